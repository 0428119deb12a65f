"""Noisy copies of one image, as a certificate needs them: counted by the label that each gets."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from model_store.certification import Classify, Smoothing, sample_counts
from model_store.pixels import to_float


@dataclass(frozen=True, eq=False)
class Copies:
    """The next ``count`` noisy copies of an image, uint8 (3, H, W), that ``noise`` (a CPU generator) gives.

    ``weight``: what one of them counts for in a run's budget of pixels. ``classes``: how many labels there are.
    """

    pixels: Tensor
    smoothing: Smoothing
    count: int
    noise: torch.Generator
    weight: int
    classes: int
    abandoned: threading.Event

    def counts(self, classify: Classify, device: torch.device, size: int) -> Tensor:
        """How often each label is the answer, (classes,) int64; ``size`` copies at a time, which changes nothing.

        What goes wrong leaves ``noise`` where it stood, so that a second try sees the same copies.
        """
        begun = self.noise.get_state()
        smoothing = replace(self.smoothing, batch=size)
        try:
            image = to_float(self.pixels.to(device))
            return sample_counts(classify, image, smoothing, self.count, self.classes, self.noise)
        except BaseException:
            self.noise.set_state(begun)
            raise
