"""Decode, purify, encode: the work itself, the same code in every arm, so that only the serving differs."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from service.bench.task import Task
from service.engine import Engine
from service.images import ImageFormat, decode, encode, open_image
from service.isolation import run_isolated
from service.job import Job
from service.options import PurifyQuery
from service.pipeline import make_order
from service.settings import MOST_PIXELS, Settings

FILE_FORMAT: ImageFormat = "PNG"


def pixels_of(data: bytes) -> Tensor:
    """An image file as uint8 (3, H, W)."""
    return decode(open_image(data, MOST_PIXELS)).pixels


def file_of(pixels: Tensor) -> bytes:
    """uint8 (3, H, W) as a PNG file."""
    return encode(pixels, None, FILE_FORMAT)


class Purification:
    """One purifier in one mode. ``run`` belongs to one thread at a time unless the caller knows better."""

    def __init__(self, task: Task, threads: int | None = None) -> None:
        """Load and verify the weights, and run them once. ``threads``: of one model run, the task's by default."""
        self.settings = Settings(
            model_store=task.store,
            purifier=task.purifier,
            device=task.device,
            runtime=task.runtime,
            threads=task.model_threads if threads is None else threads,
            max_pixels=MOST_PIXELS,
            max_pixels_in_flight=MOST_PIXELS,
        )
        self.engine = Engine(self.settings, tasks=())
        query = PurifyQuery(mode=task.mode, seed=task.seed)
        self._order = make_order(self.engine, self.settings.max_draws, query, encode_as=FILE_FORMAT)
        self.one(task.image())

    def run(self, images: Sequence[Tensor]) -> list[Tensor]:
        """Purify images of equal shape together, uint8 (3, H, W). Raises what the engine says of any of them."""
        order = self._order
        jobs = [Job(pixels, order.card.name, order.mode.mode, order.seed) for pixels in images]
        purified = []
        for outcome in run_isolated(self.engine.run, jobs):
            if isinstance(outcome, Exception):
                raise outcome
            purified.append(outcome.purified)
        return purified

    def one(self, data: bytes) -> bytes:
        """One file in, one file out."""
        return file_of(self.run([pixels_of(data)])[0])
