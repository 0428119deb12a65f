"""Several workers that train one model: what each does, and what they tell each other.

Every worker draws the whole batch's randomness and takes its own share, and gradients are averaged: two workers do
the arithmetic of one, up to rounding, where nothing but the weights ties the images of a batch together.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from training.errors import RunError


def own_device(device: torch.device) -> torch.device:
    """This worker's own GPU where torchrun started several on one machine, else ``device``."""
    if device.type != "cuda" or "LOCAL_RANK" not in os.environ:
        return device
    return torch.device("cuda", int(os.environ["LOCAL_RANK"]))


def require_one_worker(kind: str) -> None:
    """Raise RunError under torchrun, for a ``kind`` of training that nobody taught to share its work."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise RunError(f"a {kind} is trained by one worker; start it without torchrun")


@dataclass(frozen=True)
class Workers:
    """Worker ``rank`` of ``world``; the first leads: it alone writes files and shows progress."""

    rank: int
    world: int

    @staticmethod
    def from_environment(device: torch.device) -> Workers:
        """As torchrun's variables say, over NCCL on CUDA and Gloo on the CPU; without them, alone.

        ``device`` is this worker's own. Raises RunError where the workers cannot reach each other.
        """
        world = int(os.environ.get("WORLD_SIZE", "1"))
        if world == 1:
            return ALONE
        if device.type == "cuda":
            torch.cuda.set_device(device)
        try:
            distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
        except (RuntimeError, ValueError) as error:
            raise RunError(f"{world} workers cannot be joined ({error}); start them with torchrun") from error
        return Workers(distributed.get_rank(), world)

    @property
    def leads(self) -> bool:
        """Whether this worker writes and shows for all."""
        return self.rank == 0

    def wrap(self, module: nn.Module) -> nn.Module:
        """``module``, placed already, with its gradients averaged over all workers; alone, the module itself.

        On CUDA batch statistics are those of all workers; on the CPU each worker normalises over its own share.
        """
        if self.world == 1:
            return module
        if next(module.parameters()).is_cuda:
            module = nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
        return DistributedDataParallel(module)

    def share(self, batch: Tensor) -> Tensor:
        """This worker's slice (N / world, ...) of a batch (N, ...). Raises RunError where it does not come out even."""
        if len(batch) % self.world:
            raise RunError(f"a batch of {len(batch)} cannot be shared by {self.world} workers; change batch")
        return batch.chunk(self.world)[self.rank]

    def mean(self, value: Tensor) -> Tensor:
        """The mean of ``value`` over all workers, with its gradient."""
        if self.world == 1:
            return value
        out: Tensor = _Mean.apply(value, self.world)
        return out

    def agreed(self, wish: bool) -> bool:
        """The leader's wish, which all follow: clocks differ, and a worker that stops alone leaves the others hung."""
        if self.world == 1:
            return wish
        device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
        told = torch.tensor([wish], dtype=torch.uint8, device=device)
        distributed.broadcast(told, src=0)
        return bool(told.item())

    def wait(self) -> None:
        """Until every worker is here: what the leader wrote before, all can read after."""
        self.agreed(True)

    def close(self) -> None:
        """Take leave of the others."""
        if self.world > 1:
            distributed.destroy_process_group()


ALONE = Workers(0, 1)


class _Mean(torch.autograd.Function):
    """The mean over workers; the gradient of a mean is the mean of the gradients."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, world: int) -> Tensor:
        ctx.world = world
        total = value.detach().clone()
        distributed.all_reduce(total)
        return total / world

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        total = gradients[0].clone()
        distributed.all_reduce(total)
        return total / ctx.world, None
