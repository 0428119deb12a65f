"""A small robust evaluation while a purifier trains, which finds the best of its moving averages.

A frozen judge, which does not know the purifier, is attacked once, at the start, on photos that are held back from
training. The purifier is good when the judge answers on purified photos and on purified adversaries what it answers
on the photos themselves. No label is needed. A grey-box figure to choose by, not one to publish.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model_store.jpeg import jpeg
from model_store.noise import PUBLISHED_BALL, PUBLISHED_STD, with_noise
from model_store.pixels import to_8bit, to_float
from robustness.attacks.attack import Knowledge
from robustness.attacks.pgd import PGD
from robustness.aware.defended import Mode as PlainMode
from robustness.seeds import derive_seed
from training.errors import RecipeError
from training.purifier_recipe import PurifierRecipe

EPS = 8.0
ITERATIONS = 10
BATCH = 32
LEAST_ERROR = 1e-10


@dataclass(frozen=True)
class Mode(PlainMode):
    """How the purifier is run while it is validated."""

    @staticmethod
    def default_of(recipe: PurifierRecipe) -> Mode:
        """The default mode of ``recipe``. Raises RecipeError for one that it does not describe."""
        modes = {"static": {}, "published": {"noise_std": PUBLISHED_STD, "ball": PUBLISHED_BALL}, **recipe.modes}
        try:
            return Mode(**modes[recipe.default_mode])
        except (KeyError, TypeError) as error:
            raise RecipeError(f"default_mode {recipe.default_mode!r} is not described in [modes]: {error}") from error

    def applied(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """One noisy draw of ``images`` (N, 3, H, W)."""
        if self.jpeg is not None:
            images = jpeg(images, torch.full((len(images),), self.jpeg))
        if not self.noise_std:
            return images
        noise = self.noise_std * torch.randn(images.shape, generator=generator)
        return with_noise(images, noise, self.ball)


@dataclass(frozen=True)
class Scores:
    """PSNR (dB) against the clean photos, and shares of photos on which the judge's answer stayed its own."""

    psnr_clean: float
    psnr_adversary: float
    agrees_clean: float
    agrees_adversary: float

    @property
    def score(self) -> float:
        """What the best is chosen by: the mean of the two agreements."""
        return (self.agrees_clean + self.agrees_adversary) / 2


class RobustValidation:
    """Judges candidates every ``every`` steps and at the end; ``best`` holds the weights of the highest score.

    ``photos`` uint8 (N, 3, S, S). ``undefended`` is the judge's agreement with itself on the adversaries as they
    are, ``history`` every score with its step.
    """

    def __init__(
        self, photos: Tensor, judge: nn.Module, *, every: int, mode: Mode, device: torch.device, seed: int
    ) -> None:
        self.every, self.mode, self.device, self.seed = every, mode, device, seed
        self.judge = judge.to(device).eval().requires_grad_(False)
        self.clean = to_float(photos)
        with torch.no_grad():
            self.answers = torch.cat([self._answer(batch) for batch in torch.split(self.clean, BATCH)])
        self.adversaries = torch.cat([self._attacked(turn) for turn in range(math.ceil(len(photos) / BATCH))])
        with torch.no_grad():
            answers = torch.cat([self._answer(batch) for batch in torch.split(self.adversaries, BATCH)])
        self.undefended = (answers == self.answers).double().mean().item()
        self.best: dict[str, Tensor] | None = None
        self.history: list[dict[str, float]] = []

    def is_due(self, done: int, *, ends: bool) -> bool:
        """Whether the candidate after ``done`` steps is to be judged."""
        return ends or done % self.every == 0

    def consider(self, done: int, candidate: nn.Module) -> Mapping[str, float]:
        """Judge ``candidate``; of equal scores the later one is kept, which has seen more."""
        measured = self.measure(candidate)
        best = max((past["score"] for past in self.history), default=-1.0)
        scores = {**asdict(measured), "score": measured.score}
        self.history.append({"step": float(done), **scores})
        if measured.score >= best:
            self.best = {name: value.detach().cpu().clone() for name, value in candidate.state_dict().items()}
        return scores

    @torch.no_grad()
    def measure(self, candidate: nn.Module) -> Scores:
        """The scores of ``candidate``, whose mode is left as it was."""
        training = candidate.training
        candidate.eval()
        clean, kept_clean = self._purified(candidate, self.clean)
        adversary, kept_adversary = self._purified(candidate, self.adversaries)
        candidate.train(training)
        return Scores(clean, adversary, kept_clean, kept_adversary)

    def _purified(self, candidate: nn.Module, images: Tensor) -> tuple[float, float]:
        """PSNR of the purified ``images`` and the share of them that the judge takes for what the clean ones are."""
        ratios, kept = [], 0
        for number, batch in enumerate(torch.split(images, BATCH)):
            draws = torch.stack([self._draw(candidate, batch, number, draw) for draw in range(self.mode.draws)])
            wanted = self.clean[number * BATCH :][: len(batch)].to(self.device)
            errors = (draws.mean(dim=0) - wanted).square().mean(dim=(1, 2, 3)).clamp(min=LEAST_ERROR)
            ratios.append(-10 * errors.log10())
            # Probabilities of the draws are averaged, as the service does it.
            chances = torch.stack([self.judge(draw).float().softmax(dim=1) for draw in draws]).mean(dim=0)
            kept += int((chances.argmax(1).cpu() == self.answers[number * BATCH :][: len(batch)]).sum())
        return torch.cat(ratios).mean().item(), kept / len(images)

    def _draw(self, candidate: nn.Module, batch: Tensor, number: int, draw: int) -> Tensor:
        """One purified draw of a batch; its noise is the same each time, so that scores can be compared."""
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "validation noise", number, draw))
        noisy = self.mode.applied(batch, generator).to(self.device, memory_format=torch.channels_last)
        out: Tensor = candidate(noisy)
        return out.float().clamp(0, 1)

    def _answer(self, batch: Tensor) -> Tensor:
        logits: Tensor = self.judge(batch.to(self.device))
        return logits.argmax(dim=1).cpu()

    def _attacked(self, turn: int) -> Tensor:
        """Adversaries of one batch, as an upload carries them: rounded to 8 bits."""
        images = self.clean[turn * BATCH :][:BATCH].to(self.device)
        labels = self.answers[turn * BATCH :][:BATCH].to(self.device)

        def loss(candidates: Tensor) -> Tensor:
            return F.cross_entropy(self.judge(candidates).float(), labels, reduction="none")

        generator = torch.Generator().manual_seed(derive_seed(self.seed, "validation adversaries", turn))
        return to_8bit(PGD(EPS, iterations=ITERATIONS)(images, Knowledge(loss=loss), generator)).cpu()

    def report(self) -> dict[str, Any]:
        """For run.json: every score, the best, and what the judge was worth undefended."""
        best = max(self.history, key=lambda past: (past["score"], past["step"]), default=None)
        return {"photos": len(self.clean), "undefended": self.undefended, "best": best, "scores": self.history}

    def state(self) -> dict[str, Any]:
        """The history and the best weights; the adversaries come from the seed again."""
        return {"history": self.history, "best": self.best}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up ``state`` again."""
        self.history, self.best = list(state["history"]), state["best"]
