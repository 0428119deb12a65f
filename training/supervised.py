"""Classifiers and the feature network: cross-entropy on labelled folders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model_store.architectures import build
from model_store.devices import place
from robustness.attacks.attack import Knowledge
from robustness.attacks.pgd import PGD
from training.augment import jitter, resized_crops
from training.loop import batch_at, generator_at, rate_at, set_rate
from training.parallel import ALONE, Workers
from training.photos import Photos
from training.precision import autocast
from training.recipe import SupervisedRecipe

GROWN_AT = 0.7
JITTER = 0.2


class SupervisedTraining:
    """Train ``recipe.architecture`` on ``photos``; the classes are the folders."""

    def __init__(
        self, recipe: SupervisedRecipe, photos: Photos, device: torch.device, workers: Workers = ALONE
    ) -> None:
        self.recipe, self.photos, self.device, self.workers = recipe, photos, device, workers
        self.total = round(recipe.epochs * max(1, len(photos) // recipe.batch))
        torch.manual_seed(recipe.seed)
        module = build(recipe.architecture, {**recipe.arguments, "classes": len(photos.folders)})
        self.module = place(module, device).train()
        self.parallel = workers.wrap(self.module)
        self.optimiser = torch.optim.AdamW(
            self.module.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay
        )

    def crop_at(self, number: int) -> int:
        """The crop's side at step ``number``, a multiple of 16 growing from ``crop_start`` to ``crop``."""
        grown = min(1.0, number / (GROWN_AT * self.total))
        side = self.recipe.crop_start + grown * (self.recipe.crop - self.recipe.crop_start)
        return self.recipe.crop if grown >= 1 else max(16, int(side) // 16 * 16)

    def eps_at(self, number: int) -> float:
        """The budget in /255 of the adversaries of step ``number``, above 0 where the recipe asks for any."""
        ramp = self.recipe.adversarial_ramp * self.total
        return self.recipe.adversarial_eps * min(1.0, (number + 1) / max(1.0, ramp))

    def batch(self, number: int) -> tuple[Tensor, Tensor]:
        """Augmented images in [0,1] and labels of step ``number``."""
        indices = batch_at(len(self.photos), self.recipe.batch, number, self.recipe.seed)
        generator = generator_at(self.recipe.seed, number)
        crops = resized_crops(self.photos.pixels[indices], self.crop_at(number), self.recipe.smallest_area, generator)
        images = jitter(crops, JITTER, generator).to(self.device, memory_format=torch.channels_last)
        return images, self.photos.labels[indices].to(self.device)

    def step(self, number: int) -> Mapping[str, float]:
        """One optimiser step."""
        images, labels = (self.workers.share(part) for part in self.batch(number))
        set_rate(self.optimiser, self.recipe.learning_rate * rate_at(number, self.total, self.recipe.warmup))
        if self.recipe.adversarial_eps:
            images = self._attacked(images, labels, number)
        logits = self._logits(images, self.parallel)
        loss = F.cross_entropy(logits.float(), labels, label_smoothing=self.recipe.label_smoothing)
        self.optimiser.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.module.parameters(), self.recipe.gradient_clip)
        self.optimiser.step()
        accuracy = (logits.argmax(1) == labels).float().mean()
        shown = self.workers.mean(torch.stack([loss.detach(), accuracy]))
        return dict(zip(("loss", "accuracy"), shown.tolist(), strict=True))

    def _logits(self, images: Tensor, module: nn.Module) -> Tensor:
        with autocast(self.device, self.recipe.precision):
            out: Tensor = module(images)
        return out

    def _attacked(self, images: Tensor, labels: Tensor, number: int) -> Tensor:
        """Adversaries of the module as it now is, in evaluation mode, so that its batch statistics see them once."""
        eps, iterations = self.eps_at(number), self.recipe.adversarial_iterations
        pgd = PGD(eps, step=1.25 * eps / iterations, iterations=iterations)

        def loss(candidates: Tensor) -> Tensor:
            return F.cross_entropy(self._logits(candidates, self.module).float(), labels, reduction="none")

        self.module.eval().requires_grad_(False)
        try:
            return pgd(images, Knowledge(loss=loss), generator_at(self.recipe.seed, number))
        finally:
            self.module.train().requires_grad_(True)

    def candidate(self) -> nn.Module:
        """What gets published."""
        return self.module

    def images(self, number: int) -> Mapping[str, Tensor]:
        """The augmented images of step ``number``."""
        return {"seen": self.batch(number)[0]}

    def state(self) -> dict[str, Any]:
        """Module and optimiser."""
        return {"module": self.module.state_dict(), "optimiser": self.optimiser.state_dict()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up ``state`` again."""
        self.module.load_state_dict(state["module"])
        self.optimiser.load_state_dict(state["optimiser"])
