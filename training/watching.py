"""What a training shows while it runs: losses, scores and grids of images for TensorBoard, or a line now and then."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from tqdm import tqdm

from training.errors import RunError

FOLDER = "tensorboard"
SHOWN = 8

Pictures = Callable[[int], Mapping[str, Tensor]]


class Watcher(Protocol):
    """Is told what happens after ``done`` steps."""

    def scalars(self, done: int, values: Mapping[str, float]) -> None:
        """Losses or scores by name."""

    def images(self, done: int, pictures: Pictures) -> None:
        """Images of the last step, made by ``pictures`` only if somebody looks at them."""

    def close(self) -> None:
        """Nothing more will happen."""


class _Unwatched:
    """Nobody watches."""

    def scalars(self, done: int, values: Mapping[str, float]) -> None:
        """Nothing."""

    def images(self, done: int, pictures: Pictures) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


UNWATCHED: Watcher = _Unwatched()


class TensorBoard:
    """Event files under ``folder``/tensorboard, to be looked at with ``tensorboard --logdir``."""

    def __init__(self, folder: Path, *, begin: int = 0) -> None:
        """``begin``: the step that the run goes on from; what an earlier part wrote beyond it is not shown.

        Raises RunError where TensorBoard is not installed.
        """
        try:
            from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415  (wanted by few, missing from most)
        except ImportError as error:
            raise RunError(
                'TensorBoard is not installed; install the extra: pip install -e ".[train]", or leave out --tensorboard'
            ) from error
        self.writer: Any = SummaryWriter(str(folder / FOLDER), purge_step=begin + 1)

    def scalars(self, done: int, values: Mapping[str, float]) -> None:
        """One curve a name."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, done)

    @torch.no_grad()
    def images(self, done: int, pictures: Pictures) -> None:
        """One grid: a row for each name, a column for each of the first images."""
        rows = [images[:SHOWN].detach().float().cpu().clamp(0, 1) for images in pictures(done - 1).values()]
        grid = torch.cat([torch.cat(list(row), dim=2) for row in rows], dim=1)
        self.writer.add_image("images", grid, done)

    def close(self) -> None:
        """Write what is still held back."""
        self.writer.close()


class LogLines:
    """A line every ``seconds``: the step, seconds a step, the means of the losses since the last line, the last scores.

    For a training in the background, whose progress bar nobody sees. ``write`` takes each line.
    """

    def __init__(self, seconds: float, total: int, write: Callable[[str], None] = tqdm.write) -> None:
        self.seconds, self.total, self.write = seconds, total, write
        self.sums: dict[str, float] = {}
        self.count = 0
        self.scores: Mapping[str, float] = {}
        self.last: tuple[int, float] | None = None

    def scalars(self, done: int, values: Mapping[str, float]) -> None:
        """Add the losses to the next line, or keep the scores."""
        if "score" in values:
            self.scores = dict(values)
            self.write(f"step {done} of {self.total}, validation: {_pairs(self.scores)}")
            return
        now = time.monotonic()
        if self.last is None:
            self.last = (done, now)
            return
        self.sums = {name: self.sums.get(name, 0.0) + value for name, value in values.items()}
        self.count += 1
        begin, since = self.last
        if now - since >= self.seconds and done > begin:
            means = {name: total / self.count for name, total in self.sums.items()}
            self.write(f"step {done} of {self.total}, {(now - since) / (done - begin):.2f} s a step, {_pairs(means)}")
            self.sums, self.count, self.last = {}, 0, (done, now)

    def images(self, done: int, pictures: Pictures) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def _pairs(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in values.items())


class Watchers:
    """Several watchers, told in turn."""

    def __init__(self, *watchers: Watcher) -> None:
        self.watchers = watchers

    def scalars(self, done: int, values: Mapping[str, float]) -> None:
        """Tell each."""
        for watcher in self.watchers:
            watcher.scalars(done, values)

    def images(self, done: int, pictures: Pictures) -> None:
        """Tell each."""
        for watcher in self.watchers:
            watcher.images(done, pictures)

    def close(self) -> None:
        """Close each."""
        for watcher in self.watchers:
            watcher.close()
