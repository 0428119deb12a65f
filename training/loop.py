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
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from tqdm import tqdm

from training.errors import OutOfTimeError, RunError
from training.parallel import ALONE, Workers
from training.watching import UNWATCHED, Watcher

CHECKPOINT = "checkpoint.pt"
SHOWN_EVERY = 10


class Trainable(Protocol):
    """Something that can be trained a step at a time and put away.

    What it may offer besides has protocols of its own: Pictured, Validated, Reporting.
    """

    total: int

    def step(self, number: int) -> Mapping[str, float]:
        """Do step ``number`` (from 0) and return the losses to show."""

    def state(self) -> dict[str, Any]:
        """Everything a resumed run needs: tensors, numbers and containers of them."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up ``state`` again."""


@runtime_checkable
class Pictured(Protocol):
    """A training that shows what it does."""

    def images(self, number: int) -> Mapping[str, Tensor]:
        """Images (N, 3, H, W) in [0,1] by name, of step ``number``'s batch: seen, purified, target."""


@runtime_checkable
class Validated(Protocol):
    """A training whose best module is looked for while it runs."""

    def candidate(self) -> nn.Module:
        """The module that would be published now: the moving average of the weights."""


@runtime_checkable
class Reporting(Protocol):
    """A training with figures of its own, such as adversaries a second."""

    def facts(self) -> Mapping[str, float]:
        """Figures by name, for run.json."""


class Pace(Protocol):
    """What says how large the steps of a run are, and may end it."""

    def rate(self, step: int) -> float:
        """Share of the peak learning rate at step ``step``, which is about to be done."""

    def over(self) -> bool:
        """Whether the step just done was the last, however many the recipe has."""


@runtime_checkable
class Paced(Protocol):
    """A training whose pace can be set: without more, that of its recipe's steps."""

    pace: Pace


class Validation(Protocol):
    """What tells every few steps how good a candidate is, and remembers the best."""

    def is_due(self, done: int, *, ends: bool) -> bool:
        """Whether the candidate after ``done`` steps is to be judged."""

    def consider(self, done: int, candidate: nn.Module) -> Mapping[str, float]:
        """Judge ``candidate``, and keep its weights where it is the best so far."""

    def state(self) -> dict[str, Any]:
        """Everything a resumed run needs."""

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


@dataclass(frozen=True)
class BySteps:
    """The pace of ``total`` steps: see ``rate_at``."""

    total: int
    warmup: float

    def rate(self, step: int) -> float:
        """Share of the peak learning rate."""
        return rate_at(step, self.total, self.warmup)

    def over(self) -> bool:
        """Never: the steps are counted."""
        return False


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
    """A run folder. ``fingerprint`` names recipe and data; a checkpoint of another is refused.

    Of several ``workers`` the leader alone writes; all read the same folder.
    """

    folder: Path
    fingerprint: str
    save_every: int = 100
    workers: Workers = ALONE

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
        if not self.workers.leads:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        scratch = self.path.with_suffix(".new")
        saved = {"fingerprint": self.fingerprint, "step": step, "seconds": seconds, "state": dict(state)}
        torch.save(saved, scratch)
        scratch.replace(self.path)


def train(
    work: Trainable,
    run: Run,
    *,
    stop_at: int | None = None,
    deadline: float | None = None,
    validation: Validation | None = None,
    watcher: Watcher = UNWATCHED,
    quiet: bool = False,
) -> bool:
    """Train ``work`` to its end, to ``stop_at`` or to ``deadline``, resuming from ``run``; True when it is at its end.

    The end is its last step, or the one after which its pace is over. ``deadline`` is a time of the monotonic clock,
    after which no step is begun. Interrupting (Ctrl-C) saves first. Raises RunError when a loss stops being finite.
    """
    session = _Session(work, run, validation, watcher)
    last = work.total if stop_at is None else min(stop_at, work.total)
    hidden = quiet or not run.workers.leads
    bar = tqdm(
        total=work.total, initial=session.done, desc=run.folder.name, unit="step", disable=hidden, mininterval=1.0
    )
    begin = session.done
    try:
        while session.done < last and not session.ended and not _is_late(deadline, run.workers):
            losses = session.advance()
            bar.set_postfix({name: f"{value:.4f}" for name, value in losses.items()}, refresh=False)
            bar.update()
            if session.done % run.save_every == 0:
                session.save()
    except KeyboardInterrupt:
        session.save()
        raise
    except OutOfTimeError:  # while a step's adversaries were made; the step was not taken
        pass
    finally:
        bar.close()
    if session.done > begin:
        session.save()
    run.workers.wait()
    return session.ended


def _is_late(deadline: float | None, workers: Workers) -> bool:
    return deadline is not None and workers.agreed(time.monotonic() >= deadline)


class _Session:
    """One call's part of a run: what it took up, how far it is, and what it shows."""

    def __init__(self, work: Trainable, run: Run, validation: Validation | None, watcher: Watcher) -> None:
        self.work, self.run, self.validation, self.watcher = work, run, validation, watcher
        self.done, spent, state = run.load()
        self.ended = self.done == work.total
        self.started = time.monotonic() - spent
        if state is not None:
            work.restore(state["work"])
            if validation is not None:
                validation.restore(state["validation"])

    def advance(self) -> Mapping[str, float]:
        """Do the next step; shown and validated where they are due."""
        losses = self.work.step(self.done)
        require_finite(losses, self.done)
        self.done += 1
        paced = isinstance(self.work, Paced) and self.work.pace.over()
        self.ended = ends = self.done == self.work.total or paced
        if self.done % SHOWN_EVERY == 0 or ends:
            self.watcher.scalars(self.done, losses)
        if self.done % self.run.save_every == 0 and isinstance(self.work, Pictured):
            self.watcher.images(self.done, self.work.images)
        if self.validation is not None and self.run.workers.leads and self.validation.is_due(self.done, ends=ends):
            if not isinstance(self.work, Validated):
                raise RunError("this training offers no candidate to validate; set validate_every = 0")
            scores = self.validation.consider(self.done, self.work.candidate())
            self.watcher.scalars(self.done, scores)
        return losses

    def save(self) -> None:
        """Put everything away."""
        kept = None if self.validation is None else self.validation.state()
        state = {"work": self.work.state(), "validation": kept}
        self.run.save(self.done, time.monotonic() - self.started, state)


@torch.no_grad()
def update_average(average: nn.Module, module: nn.Module, decay: float, step: int) -> None:
    """Move ``average`` towards ``module``: an exponential moving average that trusts early steps less."""
    weight = 1 - min(decay, (1 + step) / (10 + step))
    for kept, fresh in zip(average.state_dict().values(), module.state_dict().values(), strict=True):
        if kept.is_floating_point():
            kept.lerp_(fresh, weight)
        else:
            kept.copy_(fresh)
