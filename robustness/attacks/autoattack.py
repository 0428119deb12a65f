"""AutoAttack, through the maintained package ``pyautoattack``."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

import torch
from torch import Tensor

from robustness.attacks.ascent import project
from robustness.attacks.attack import Attack, Knowledge, Network, required
from robustness.attacks.square import margins
from robustness.attacks.title import titled
from robustness.errors import AttackError

Version = Literal["standard", "pair", "rand"]
MOST_TARGETS = 9  # the package's own number, and the paper's


class _InputGradient(torch.autograd.Function):
    """A network whose backward pass stops at its input, so that ``backward()`` fills no parameter's gradient."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, network: Network) -> Tensor:
        with torch.enable_grad():
            ctx.leaf = images.detach().requires_grad_(True)
            ctx.answer = network(ctx.leaf).float()
        answer: Tensor = ctx.answer
        return answer.detach().clone()

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None]:
        (slope,) = torch.autograd.grad(ctx.answer, ctx.leaf, slopes[0], retain_graph=True)
        return slope, None


@dataclass(frozen=True)
class AutoAttack(Attack):
    """AutoAttack (Croce & Hein, ICML 2020), L-infinity, parameter-free.

    ``standard``: APGD on cross-entropy, targeted APGD, targeted FAB, Square, each part on the images that the earlier
    ones left right; an image that none of them breaks is returned as it is. ``pair``: the first two of these alone,
    which leave about what all four do of a network without a defence. ``rand``, for randomised defences: APGD on
    cross-entropy and on DLR, each gradient the mean of 20 draws, and of each image the point of highest loss, where
    the package hands back the clean one after one lucky draw of the victim. With fewer than ten classes, all wrong ones
    are targets. Fewer ``iterations`` (of APGD and FAB) or ``queries`` (of Square) than the published ones cut the
    package's schedules short: quicker, and no AutoAttack. Images (N, 3, H, W) in [0,1] to the same; ``eps`` in /255.
    Raises AttackError where the package is missing, and where there are too few classes for its losses (3 for
    ``rand``, else 4). The package's own warnings are silenced; evaluation makes its own checks.
    """

    eps: float
    version: Version = "standard"
    iterations: int = 100
    queries: int = 5000

    @property
    def name(self) -> str:
        """What tables call it."""
        return titled(f"AutoAttack {self.version}", self, "version")

    def __call__(self, images: Tensor, knowledge: Knowledge, generator: torch.Generator) -> Tensor:
        """Adversaries of ``images``; the package's seed is drawn from ``generator``."""
        network = required(knowledge.logits, "logits", self.name)
        labels = required(knowledge.labels, "labels", self.name)
        package = _package()
        clean = images.detach().contiguous()
        with torch.no_grad():
            classes = network(clean[:1]).shape[1]
        fewest = 3 if self.version == "rand" else 4
        if classes < fewest:
            raise AttackError(
                f"{self.name} needs at least {fewest} classes for its losses, not {classes}; use PGD with restarts and "
                "Square"
            )

        def logits(candidates: Tensor) -> Tensor:
            if len(candidates) == 0:  # the package may ask so where a margin is exactly zero
                return candidates.new_zeros(0, classes)
            out: Tensor = _InputGradient.apply(candidates, network)
            return out

        seed = int(torch.randint(2**31, (), generator=generator))
        with _contained():
            runner = self._runner(package, logits, images.device, seed)
            for part in (runner.apgd, runner.apgd_targeted, runner.fab):
                part.n_iter = self.iterations
            runner.apgd_targeted.n_target_classes = min(MOST_TARGETS, classes - 1)
            runner.fab.n_target_classes = min(MOST_TARGETS, classes - 1)
            runner.square.n_queries = self.queries
            if self.version == "rand":
                found = _farthest(runner.apgd, clean, labels, seed)
            else:
                found = runner.run_standard_evaluation(clean, labels, batch_size=len(clean))[0]
        return project(found.detach(), images, self.eps)

    def _runner(self, package: Any, logits: Network, device: torch.device, seed: int) -> Any:
        settings: dict[str, Any] = {"device": device, "eps": self.eps / 255, "norm": "Linf", "seed": seed}
        if self.version != "pair":
            return package.AutoAttack(logits, version=self.version, **settings)
        runner = package.AutoAttack(logits, version="custom", attacks=["apgd-ce", "apgd-t"], **settings)
        runner.apgd.n_restarts = 1  # the standard version's
        return runner


def _farthest(apgd: Any, clean: Tensor, labels: Tensor, seed: int) -> Tensor:
    """APGD's points of highest loss on cross-entropy and on DLR: of each image, the one that is wrong by more.

    Judged as the gradients were, by the mean of ``apgd.eot_iter`` draws.
    """
    found, margin = [], []
    for loss in ("ce", "dlr"):
        torch.manual_seed(seed)
        apgd.loss = loss
        found.append(apgd.perturb(clean, labels, best_loss=True).detach())
        with torch.no_grad():
            margin.append(torch.stack([margins(apgd.model(found[-1]), labels) for _ in range(apgd.eot_iter)]).mean(0))
    first = (margin[0] <= margin[1]).view(-1, 1, 1, 1)
    return torch.where(first, found[0], found[1])


def _package() -> Any:
    try:
        return import_module("pyautoattack")
    except ImportError as error:
        raise AttackError('AutoAttack needs pyautoattack; install the extra: pip install -e ".[evaluate]"') from error


@contextmanager
def _contained() -> Iterator[None]:
    """Keep what the package does to the process inside: it seeds the global generators, logs, and ends any tracing."""
    log, tracer = logging.getLogger("auto-attack"), sys.gettrace()
    silenced = log.disabled
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    log.disabled = True
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        log.disabled = silenced
        sys.settrace(tracer)
