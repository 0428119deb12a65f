"""The purifier: undo perturbations and Gaussian noise, judged by pixels, features, predictions and a critic.

Naseer et al., CVPR 2020 train on SSP adversaries alone, features first. That tends to leave small and other
perturbations in place; what is drowned in noise and then rebuilt survives far better. So each photo is a clean or
an attacked one, gets Gaussian noise of a random strength on top, and the clean photo is the target.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from model_store.architectures import build
from model_store.architectures.vgg_features import VGG16Features
from model_store.devices import place
from training.augment import aligned_crops, resized_crops
from training.critic import Critic
from training.loop import batch_at, generator_at, rate_at, set_rate, update_average
from training.losses import feature_distance, pixel_distance, prediction_shift, relativistic_average
from training.photos import Photos
from training.recipe import PurifierRecipe


class PurifierTraining:
    """Train ``recipe.architecture``; ``average`` (the moving average of its weights) is what gets published."""

    def __init__(
        self, recipe: PurifierRecipe, photos: Photos, pairs: Tensor, features: VGG16Features, device: torch.device
    ) -> None:
        self.recipe, self.photos, self.pairs, self.device = recipe, photos, pairs, device
        self.total = recipe.steps
        torch.manual_seed(recipe.seed)
        self.purifier = place(build(recipe.architecture, recipe.arguments), device)
        self.critic = place(Critic(), device)
        self.average = copy.deepcopy(self.purifier).requires_grad_(False)
        self.features = place(features, device).eval().requires_grad_(False)
        self.optimiser = torch.optim.AdamW(
            self.purifier.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay
        )
        self.critic_optimiser = torch.optim.Adam(self.critic.parameters(), recipe.learning_rate, betas=(0.5, 0.99))

    def batch(self, number: int) -> tuple[Tensor, Tensor]:
        """What the purifier sees and what it should give, (N, 3, crop, crop) each, of step ``number``."""
        recipe, generator = self.recipe, generator_at(self.recipe.seed, number)
        attacked = round(recipe.batch * recipe.adversary_share)
        seen, target = [], []
        if attacked:
            chosen = batch_at(len(self.pairs), attacked, number, recipe.seed)
            crops = aligned_crops(self.pairs[chosen], recipe.crop, generator)
            seen.append(crops[:, 1])
            target.append(crops[:, 0])
        if attacked < recipe.batch:
            chosen = batch_at(len(self.photos), recipe.batch - attacked, number, recipe.seed + 1)
            crops = resized_crops(self.photos.pixels[chosen], recipe.crop, recipe.smallest_zoom**2, generator)
            seen.append(crops)
            target.append(crops)
        images = torch.cat(seen)
        std = recipe.noise_high * torch.rand(len(images), 1, 1, 1, generator=generator) ** recipe.noise_power
        noisy = images + std * torch.randn(images.shape, generator=generator)
        shuffled = torch.randperm(len(images), generator=generator)
        return self._onto(noisy[shuffled]), self._onto(torch.cat(target)[shuffled])

    def _onto(self, images: Tensor) -> Tensor:
        return images.to(self.device, memory_format=torch.channels_last)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.precision == "bfloat16")

    def step(self, number: int) -> Mapping[str, float]:
        """One step of the purifier and, once it has joined, one of the critic."""
        recipe = self.recipe
        rate = recipe.learning_rate * rate_at(number, self.total, recipe.warmup)
        set_rate(self.optimiser, rate)
        set_rate(self.critic_optimiser, rate)
        seen, clean = self.batch(number)
        with self._autocast():
            purified = self.purifier(seen)
        purified = purified.float()
        losses = {"pixel": pixel_distance(purified, clean)}
        loss = recipe.pixel_weight * losses["pixel"]
        if recipe.feature_weight or recipe.prediction_weight:
            losses |= self._perceptual_losses(purified, clean)
            loss = loss + recipe.feature_weight * losses["feature"]
        if recipe.prediction_weight:
            loss = loss + recipe.prediction_weight * losses["prediction"]
        if recipe.adversarial_weight and number >= recipe.adversarial_from * self.total:
            losses["critic"] = self._critic_step(purified.detach(), clean)
            losses["adversarial"] = self._adversarial_loss(purified, clean)
            loss = loss + recipe.adversarial_weight * losses["adversarial"]
        self.optimiser.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.purifier.parameters(), recipe.gradient_clip)
        self.optimiser.step()
        update_average(self.average, self.purifier, recipe.ema_decay, number)
        return {name: value.item() for name, value in losses.items()}

    def _perceptual_losses(self, purified: Tensor, clean: Tensor) -> dict[str, Tensor]:
        """Feature distance and, where it counts, prediction shift, on a share of the batch."""
        share = max(1, round(len(clean) * self.recipe.feature_share))
        with self._autocast():
            with torch.no_grad():
                wanted = self.features.extract(clean[:share])
            given = self.features.extract(purified[:share])
            losses = {"feature": feature_distance(given.float(), wanted.float())}
            if self.recipe.prediction_weight:
                with torch.no_grad():
                    answer = self.features.classify(wanted)
                losses["prediction"] = prediction_shift(self.features.classify(given).float(), answer.float())
        return losses

    def _critic_step(self, purified: Tensor, clean: Tensor) -> Tensor:
        with self._autocast():
            real, fake = self.critic(clean), self.critic(purified)
        loss = relativistic_average(real.float(), fake.float())
        self.critic_optimiser.zero_grad()
        torch.autograd.backward(loss)
        self.critic_optimiser.step()
        return loss.detach()

    def _adversarial_loss(self, purified: Tensor, clean: Tensor) -> Tensor:
        self.critic.requires_grad_(False)
        with self._autocast():
            real, fake = self.critic(clean), self.critic(purified)
        self.critic.requires_grad_(True)
        return relativistic_average(fake.float(), real.float())

    def _parts(self) -> dict[str, Any]:
        return {
            "purifier": self.purifier,
            "average": self.average,
            "critic": self.critic,
            "optimiser": self.optimiser,
            "critic_optimiser": self.critic_optimiser,
        }

    def state(self) -> dict[str, Any]:
        """Purifier, its average, critic and both optimisers."""
        return {name: part.state_dict() for name, part in self._parts().items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up ``state`` again."""
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
