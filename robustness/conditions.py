"""The conditions of a run: where the arithmetic is done, in which precision, and with which seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from model_store.pixels import to_float

Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Conditions:
    """``batch`` counts image copies in flight; ``attack_precision`` is that of the attacker's gradients alone.

    ``precision`` is what purifier and victims compute in when they are judged: bfloat16 is what the service uses
    where the hardware has it.
    """

    seed: int
    batch: int
    device: torch.device
    attack_precision: Precision = "float32"
    precision: Precision = "float32"

    def attack_autocast(self) -> torch.autocast:
        """The context in which an attacker runs networks."""
        return self._autocast(self.attack_precision)

    def autocast(self) -> torch.autocast:
        """The context in which purifier and victims are judged."""
        return self._autocast(self.precision)

    def _autocast(self, precision: Precision) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=precision == "bfloat16")

    def floats(self, pixels: Tensor) -> Tensor:
        """uint8 (N, 3, H, W) as float32 in [0,1] on the device, channels last."""
        return to_float(pixels.to(self.device)).contiguous(memory_format=torch.channels_last)
