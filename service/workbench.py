"""The engine without HTTP: many files through it, decoding and encoding beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from model_store.errors import NrpError
from service.engine import Engine
from service.images import DecodedImage, open_image, read
from service.isolation import run_isolated
from service.job import Answer, Job
from service.options import choose_seed
from service.pipeline import Order, check_size

WINDOW = 32
WINDOW_PIXELS = 16 << 20  # with this much decoded ahead, and as much again on the device or being written


@dataclass(frozen=True)
class Done:
    """One file's answer."""

    source: Path
    image: DecodedImage
    answer: Answer


@dataclass(frozen=True)
class Failed:
    """One file that could not be answered, and why."""

    source: Path
    reason: str


class Workbench:
    """Runs files through an engine, a window of them at a time, those of equal shape together.

    What is held is bounded by the pixels of two windows, however many files there are."""

    def __init__(self, engine: Engine, *, threads: int, max_pixels: int) -> None:
        self._engine = engine
        self._max_pixels = max_pixels
        self.pool = ThreadPoolExecutor(threads, thread_name_prefix="codec")

    def outcomes(self, sources: Sequence[Path], order: Order, seed: int | None) -> Iterator[Done | Failed]:
        """One outcome a file, in any order within a window. ``seed`` None: a fresh one for each image.

        The next window is decoded while this one is on the device.
        """
        windows = self._windows(sources)
        coming = self._begin(next(windows, []), order)
        while coming:
            window, coming = coming, self._begin(next(windows, []), order)
            read_ones = [future.result() for future in window]
            window.clear()
            yield from (outcome for outcome in read_ones if isinstance(outcome, Failed))
            images = [outcome for outcome in read_ones if not isinstance(outcome, Failed)]
            yield from self._run(images, order, seed)

    def _windows(self, sources: Sequence[Path]) -> Iterator[list[Path]]:
        """The files in their order, at most ``WINDOW`` of them and ``WINDOW_PIXELS`` at a time, but at least one."""
        window: list[Path] = []
        held = 0
        for source in sources:
            pixels = self._pixels(source)
            if window and (len(window) == WINDOW or held + pixels > WINDOW_PIXELS):
                yield window
                window, held = [], 0
            window.append(source)
            held += pixels
        if window:
            yield window

    def _pixels(self, source: Path) -> int:
        """What a file's header announces; 0 where reading it will fail."""
        try:
            return open_image(source.read_bytes(), self._max_pixels).charge
        except (OSError, NrpError):
            return 0

    def _begin(self, window: Sequence[Path], order: Order) -> list[Future[tuple[Path, DecodedImage] | Failed]]:
        return [self.pool.submit(self._read, source, order) for source in window]

    def _read(self, source: Path, order: Order) -> tuple[Path, DecodedImage] | Failed:
        try:
            image = read(source.read_bytes(), self._max_pixels, deep=order.task is None)
            check_size(self._engine, order, image.width, image.height)
        except OSError as error:
            return Failed(source, error.strerror or type(error).__name__)
        except NrpError as error:
            return Failed(source, str(error))
        return source, image

    def _run(
        self, images: Sequence[tuple[Path, DecodedImage]], order: Order, seed: int | None
    ) -> Iterator[Done | Failed]:
        buckets: dict[tuple[str, int, int], list[tuple[Path, DecodedImage, Job]]] = {}
        for source, image in images:
            own_seed = choose_seed(seed)
            job = Job(image.pixels, order.card.name, order.mode.mode, own_seed, order.task, order.compare)
            buckets.setdefault(job.key, []).append((source, image, job))
        for bucket in buckets.values():
            size = max(1, self._engine.budget.now // bucket[0][2].cost)
            for start in range(0, len(bucket), size):
                part = bucket[start : start + size]
                answers = run_isolated(self._engine.run, [job for _, _, job in part])
                for (source, image, _), answer in zip(part, answers, strict=True):
                    if isinstance(answer, Exception):
                        yield Failed(source, str(answer) or type(answer).__name__)
                    else:
                        yield Done(source, image, answer)

    def close(self) -> None:
        """Wait for the threads."""
        self.pool.shutdown()
