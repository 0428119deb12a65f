"""What a device computes in, and how much of it at a time."""

from __future__ import annotations

import torch

from model_store.devices import computes_in_bfloat16
from service.settings import PrecisionName

_CPU_BATCH_PIXELS = 1 << 20
_ACCELERATOR_BATCH_PIXELS = 8 << 20


def choose_precision(name: PrecisionName, device: torch.device) -> torch.dtype:
    """The type convolutions compute in. bfloat16 where the hardware does; elsewhere it is slower than float32."""
    if name == "auto":
        return torch.bfloat16 if computes_in_bfloat16(device) else torch.float32
    return torch.bfloat16 if name == "bfloat16" else torch.float32


def choose_purifier(name: str, device: torch.device) -> str:
    """The default purifier's name in the store: ``auto`` is what the device can run beside its other work."""
    if name == "auto":
        return "nrp-fast" if device.type == "cpu" else "nrp-strong"
    return name


def choose_batch_pixels(chosen: int, device: torch.device, lanes: int) -> int:
    """Pixels of one model run, draws counted; unless ``chosen``, the lanes share what there is."""
    return chosen or (_CPU_BATCH_PIXELS if device.type == "cpu" else _ACCELERATOR_BATCH_PIXELS) // lanes
