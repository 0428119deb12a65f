"""Where modules run: the device a name stands for, and modules laid out for it."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

from model_store.errors import UnavailableDeviceError

AnyModule = TypeVar("AnyModule", bound=nn.Module)


def device_named(name: str) -> torch.device:
    """``auto`` (CUDA where there is one, else the CPU), ``cpu`` or ``cuda``. Raises UnavailableDeviceError."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UnavailableDeviceError(f"device {name!r} was asked for but PyTorch sees no CUDA device; use cpu or auto")
    return torch.device(name)


def computes_in_bfloat16(device: torch.device) -> bool:
    """Whether the hardware has bfloat16; where it is emulated, it is several times slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    features = torch.cpu.get_capabilities()
    return bool(features.get("avx512_bf16") or features.get("amx_bf16") or features.get("amx_tile"))


def place(module: AnyModule, device: torch.device) -> AnyModule:
    """``module`` on ``device`` with channels-last weights, the layout in which convolutions are fastest."""
    return module.to(device).to(memory_format=torch.channels_last)
