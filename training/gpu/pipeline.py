"""Images from host memory through a network and back, as a service moves them: uint8, pinned, overlapped or not."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from model_store.pixels import to_bytes, to_float

Forward = Callable[[Tensor], Tensor]


def pinned(forward: Forward, host: Tensor, device: torch.device) -> Callable[[], Tensor]:
    """A call that takes uint8 ``host`` (N, 3, H, W) to ``device``, through ``forward`` and back, and waits for it."""
    came, gone = _held(host, device), _held(host, device)

    def run() -> Tensor:
        images = to_float(came.to(device, non_blocking=True)).contiguous(memory_format=torch.channels_last)
        gone.copy_(to_bytes(forward(images)), non_blocking=True)
        if device.type == "cuda":
            torch.cuda.current_stream().synchronize()
        return gone

    return run


def overlapped(forward: Forward, host: Tensor, device: torch.device) -> Callable[[], Tensor]:
    """The same without waiting: each batch comes and goes on streams of their own while others are computed.

    Two batches are in flight. On a CPU nothing overlaps.
    """
    if device.type != "cuda":
        return pinned(forward, host, device)
    coming, going = (torch.cuda.Stream() for _ in range(2))  # type: ignore[no-untyped-call]
    main = torch.cuda.current_stream()
    slots = [_Slot(host, device) for _ in range(2)]
    turn = 0

    def run() -> Tensor:
        nonlocal turn
        slot = slots[turn % 2]
        turn += 1
        with torch.cuda.stream(coming):
            coming.wait_event(slot.computed)  # of the batch that was here before: its input has been read
            slot.images.copy_(slot.came, non_blocking=True)
            slot.arrived.record(coming)
        main.wait_event(slot.arrived)
        main.wait_event(slot.left)
        slot.answer.copy_(to_bytes(forward(to_float(slot.images).contiguous(memory_format=torch.channels_last))))
        slot.computed.record(main)
        with torch.cuda.stream(going):
            going.wait_event(slot.computed)
            slot.gone.copy_(slot.answer, non_blocking=True)
            slot.left.record(going)
        return slot.gone

    return run


class _Slot:
    """The memory of one batch in flight, and when what of it happened."""

    def __init__(self, host: Tensor, device: torch.device) -> None:
        self.came, self.gone = _held(host, device), _held(host, device)
        self.images, self.answer = host.to(device), host.to(device)
        self.arrived, self.computed, self.left = (torch.cuda.Event() for _ in range(3))  # type: ignore[no-untyped-call]


def _held(host: Tensor, device: torch.device) -> Tensor:
    """A copy of ``host``, pinned where a GPU reads it."""
    return host.clone().pin_memory() if device.type == "cuda" else host.clone()
