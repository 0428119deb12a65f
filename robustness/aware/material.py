"""What a measurement stands on: photos, where results are kept, and how long there is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from model_store.pixels import to_float
from robustness.cache import Cache, Tensors
from robustness.errors import OutOfTimeError
from robustness.examples import Examples
from robustness.progress import Progress


@dataclass(frozen=True)
class Material:
    """``examples`` have ``labels``. Nothing is begun after ``deadline``, in ``time.monotonic``'s seconds."""

    examples: Examples
    cache: Cache
    progress: Progress
    device: torch.device
    seed: int = 0
    deadline: float | None = None

    def first(self, count: int) -> range:
        """The places of the first ``count`` photos, of all if there are fewer."""
        return range(min(count, len(self.examples)))

    def floats(self, pixels: Tensor) -> Tensor:
        """uint8 (N, 3, H, W) as float32 in [0,1] on the device."""
        return to_float(pixels.to(self.device))

    def labels(self, places: Tensor) -> Tensor:
        """The true classes (M,) of the photos at ``places``, on the device."""
        return self.examples.truths["labels"][places].to(self.device)

    def recall(self, label: str, made_from: dict[str, object], make: Callable[[], Tensors]) -> Tensors:
        """What ``make`` gives, kept under all that it depends on. Raises OutOfTimeError where it had to begin late."""

        def in_time() -> Tensors:
            if self.deadline is not None and time.monotonic() >= self.deadline:
                raise OutOfTimeError("the time is over; run the same again to go on from what is kept")
            return make()

        made_from = {**made_from, "seed": self.seed, "device": self.device.type, "torch": str(torch.__version__)}
        return self.cache.recall(label, made_from, in_time)

    def batches(self, title: str, count: int, size: int) -> Iterator[Tensor]:
        """The places from 0 to ``count`` in order, ``size`` at a time, under a progress bar."""
        self.progress.begin(title)
        with self.progress.bar(count) as bar:
            for places in torch.split(torch.arange(count), size):
                yield places
                bar.update(len(places))
