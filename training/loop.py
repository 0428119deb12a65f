"""The one training loop: schedule, progress, atomic checkpoints, resume.

A step is a function of (state, seed, step number): batches, crops and noise come from a generator seeded by the
step, never from one that lives across steps. So a run killed anywhere and resumed does the same arithmetic.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn
from tqdm import tqdm

from model_store.errors import NrpError
from training.errors import RunError

CHECKPOINT = "checkpoint.pt"


class Trainable(Protocol):
    """Something that can be trained a step at a time and put away."""

    total: int

    def step(self, number: int) -> Mapping[str, float]:
        """Do step ``number`` (from 0) and return the losses to show."""

    def state(self) -> dict[str, Any]:
        """Everything a resumed run needs: tensors, numbers and containers of them."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up ``state`` again."""


def generator_at(seed: int, step: int) -> torch.Generator:
    """The generator of one step. Layers that draw by themselves (dropout) get the same seed, globally."""
    mixed = int.from_bytes(hashlib.sha256(f"{seed}:{step}".encode()).digest()[:7], "big")
    torch.manual_seed(mixed)
    return torch.Generator().manual_seed(mixed)


def batch_at(count: int, batch: int, step: int, seed: int) -> torch.Tensor:
    """Indices of step ``step``: each epoch is its own permutation of ``count``, its short tail left out."""
    per_epoch = max(1, count // batch)
    epoch, place = divmod(step, per_epoch)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))
    return order[place * batch : (place + 1) * batch]


def rate_at(step: int, total: int, warmup: float) -> float:
    """Share of the peak learning rate: a linear warm-up, then a cosine to zero."""
    rising = max(1, round(total * warmup))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, total - rising)))


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Give every parameter group this learning rate."""
    for group in optimiser.param_groups:
        group["lr"] = rate


def require_finite(losses: Mapping[str, float], number: int) -> None:
    """Raise RunError where a loss is NaN or infinite, before it reaches the next checkpoint."""
    bad = [name for name, value in losses.items() if not math.isfinite(value)]
    if bad:
        raise RunError(
            f"training diverged at step {number} ({', '.join(bad)}); lower learning_rate and start a new run"
        )


@dataclass(frozen=True)
class Run:
    """A run folder. ``fingerprint`` names recipe and data; a checkpoint of another is refused."""

    folder: Path
    fingerprint: str
    save_every: int = 100

    @property
    def path(self) -> Path:
        """Where the checkpoint is."""
        return self.folder / CHECKPOINT

    def load(self) -> tuple[int, float, Mapping[str, Any] | None]:
        """Step to go on from, seconds spent, state; or (0, 0, None). Raises RunError for another run's checkpoint."""
        if not self.path.exists():
            return 0, 0.0, None
        try:
            saved = torch.load(self.path, weights_only=True, map_location="cpu")
        except Exception as error:
            raise RunError(f"{self.path} cannot be read ({type(error).__name__}); remove it to start again") from error
        if saved["fingerprint"] != self.fingerprint:
            raise RunError(f"{self.folder} holds a run of another recipe or other data; choose another --run folder")
        return saved["step"], saved["seconds"], saved["state"]

    def save(self, step: int, seconds: float, state: Mapping[str, Any]) -> None:
        """Write the checkpoint in one move, so that a kill leaves the old one or the new one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        scratch = self.path.with_suffix(".new")
        saved = {"fingerprint": self.fingerprint, "step": step, "seconds": seconds, "state": dict(state)}
        torch.save(saved, scratch)
        scratch.replace(self.path)


def train(work: Trainable, run: Run, *, stop_at: int | None = None, quiet: bool = False) -> bool:
    """Train ``work`` to its end, or to ``stop_at``, resuming from ``run``; True when the end was reached.

    Interrupting (Ctrl-C) saves first. Raises RunError when a loss stops being finite.
    """
    begin, spent, state = run.load()
    started = time.monotonic() - spent
    if state is not None:
        work.restore(state)
    last = work.total if stop_at is None else min(stop_at, work.total)
    done = begin
    bar = tqdm(total=work.total, initial=begin, desc=run.folder.name, unit="step", disable=quiet, mininterval=1.0)
    try:
        for number in range(begin, last):
            losses = work.step(number)
            require_finite(losses, number)
            done = number + 1
            bar.set_postfix({name: f"{value:.4f}" for name, value in losses.items()}, refresh=False)
            bar.update()
            if done % run.save_every == 0:
                run.save(done, time.monotonic() - started, work.state())
    except NrpError:
        raise
    except KeyboardInterrupt:
        run.save(done, time.monotonic() - started, work.state())
        raise
    finally:
        bar.close()
    if done > begin:
        run.save(done, time.monotonic() - started, work.state())
    return done == work.total


@torch.no_grad()
def update_average(average: nn.Module, module: nn.Module, decay: float, step: int) -> None:
    """Move ``average`` towards ``module``: an exponential moving average that trusts early steps less."""
    weight = 1 - min(decay, (1 + step) / (10 + step))
    for kept, fresh in zip(average.state_dict().values(), module.state_dict().values(), strict=True):
        if kept.is_floating_point():
            kept.lerp_(fresh, weight)
        else:
            kept.copy_(fresh)
