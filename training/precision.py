"""What a training computes in: bfloat16 where the hardware has it, unless the recipe says otherwise."""

from __future__ import annotations

import torch

from model_store.devices import computes_in_bfloat16
from training.recipe import Precision


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Autocast to bfloat16 where ``precision`` is that, or ``auto`` on hardware that has it; else it does nothing."""
    wanted = precision == "bfloat16" or (precision == "auto" and computes_in_bfloat16(device))
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted)
