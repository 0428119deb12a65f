"""The purifier: undo perturbations and Gaussian noise, judged by pixels, features, predictions and a critic.

Naseer et al., CVPR 2020 train on SSP adversaries alone, features first. That tends to leave small and other
perturbations in place; what is drowned in noise and then rebuilt survives far better. So each photo is a clean or
an attacked one, is corrupted by JPEG and noise of random strengths on top, and the clean photo is the target. What
is attacked, by whom, and how strongly is the recipe's to say; see ``PurifierRecipe``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from model_store.architectures import build
from model_store.devices import place
from model_store.pixels import to_bytes, to_float
from robustness.seeds import derive_seed
from training.adversaries import Tally, attacked, attacked_through, budget
from training.banks import Bank, Banks
from training.batches import Drawn, Part, Places, draw_batch
from training.corruption import corrupt, gaussian
from training.critic import Critic
from training.ensemble import Ensemble, Target
from training.errors import DataError, RecipeError
from training.loop import BySteps, Pace, generator_at, set_rate, update_average
from training.losses import pixel_distance, relativistic_average
from training.parallel import ALONE, Workers
from training.photos import Photos
from training.precision import autocast
from training.purifier_recipe import PurifierRecipe

SHOWN = 8


class PurifierTraining:
    """Train ``recipe.architecture``; ``average`` (the moving average of its weights) is what gets published.

    ``initial`` is the state of a purifier of that architecture to start from. Raises RecipeError where it does not
    fit or the ensemble lacks what the recipe asks of it, DataError where there are fewer photos than a batch takes.
    """

    def __init__(
        self,
        recipe: PurifierRecipe,
        photos: Photos,
        bank: Bank | Banks,
        ensemble: Ensemble,
        device: torch.device,
        *,
        workers: Workers = ALONE,
        initial: Mapping[str, Tensor] | None = None,
    ) -> None:
        ensemble.require(recipe)
        _require_enough(recipe, photos, bank)
        self.recipe, self.photos, self.bank, self.device, self.workers = recipe, photos, bank, device, workers
        self.total = recipe.steps
        self.pace: Pace = BySteps(recipe.steps, recipe.warmup)
        torch.manual_seed(recipe.seed)
        self.purifier = place(build(recipe.architecture, recipe.arguments), device)
        self.critic = place(Critic(), device)
        if initial is not None:
            _start_from(initial, self.purifier, recipe)
        self.average = copy.deepcopy(self.purifier).requires_grad_(False)
        self.ensemble = ensemble.on(device, compiled=recipe.compiled)
        self.optimiser = torch.optim.AdamW(
            self.purifier.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay
        )
        self.critic_optimiser = torch.optim.Adam(self.critic.parameters(), recipe.learning_rate, betas=(0.5, 0.99))
        # Gradients of what is wrapped are averaged over the workers; attacks differentiate the module itself.
        self.learner = self._compiled(workers.wrap(self.purifier))
        self.victim = self._compiled(self.purifier)
        self.judge = workers.wrap(self.critic)
        self.unaware, self.adaptive = Tally(), Tally()

    def _compiled(self, module: nn.Module) -> Callable[[Tensor], Tensor]:
        return torch.compile(module) if self.recipe.compiled else module

    def batch(self, number: int) -> tuple[Tensor, Tensor]:
        """What the purifier, as it now is, sees of step ``number`` and what it should give, (n, 3, crop, crop) each."""
        recipe = self.recipe
        generator = generator_at(recipe.seed, number)
        drawn = draw_batch(
            recipe, self.photos, self.bank.at(number).pairs, number, generator, self.device, self.workers
        )
        seen, target = drawn.seen, drawn.target
        for part, attack in ((Part.UNAWARE, self._attacked), (Part.ADAPTIVE, self._attacked_through)):
            places = drawn.places(part)
            if len(places.mine):
                there = places.mine.to(self.device)
                clean = to_bytes(target[there])
                target = target.index_copy(0, there, to_float(clean))
                seen = seen.index_copy(0, there, to_float(attack(clean, drawn, places, number)))
        corrupted = corrupt(seen, drawn.strengths, drawn.noise)
        layout = torch.channels_last
        return corrupted.contiguous(memory_format=layout), target.contiguous(memory_format=layout)

    def _attacked(self, clean: Tensor, drawn: Drawn, places: Places, number: int) -> Tensor:
        """Adversaries of this step that know nothing of the purifier."""
        del drawn
        recipe, generator = self.recipe.adversaries, self._generator("unaware", number)
        with self.unaware.counting(len(clean), self.device):
            return attacked(clean, number, recipe, self.ensemble, generator, places.before)

    def _attacked_through(self, clean: Tensor, drawn: Drawn, places: Places, number: int) -> Tensor:
        """Adversaries through the purifier and the corruption that these images get, its noise drawn anew each step."""
        recipe = self.recipe
        strengths, noises = drawn.strengths.of(places.mine), self._generator("adaptive noise", number)
        whole = torch.Size((places.total, *clean.shape[1:]))

        def defended(candidates: Tensor) -> Tensor:
            noise = gaussian(whole, noises, self.device)[places.before :][: len(candidates)]
            return self._purified(self.victim, corrupt(candidates, strengths, noise))

        generator = self._generator("adaptive", number)
        eps = budget(recipe.adversaries, number, generator)
        torch.rand(places.before, *clean.shape[1:], generator=generator)  # the random starts of earlier workers
        self.purifier.requires_grad_(False)  # else each step of the attack would keep what their gradients need
        try:
            with self.adaptive.counting(len(clean), self.device):
                return attacked_through(
                    clean, defended, self._target(number), eps, recipe.adaptive, recipe.precision, generator
                )
        finally:
            self.purifier.requires_grad_(True)

    def _target(self, number: int) -> Target:
        """The network behind the purifier at step ``number``, and the layer where features are to be moved."""
        if self.recipe.adaptive.objective == "feature":
            return self.ensemble.layered[number % len(self.ensemble.layered)]
        return self.ensemble.answering[number % len(self.ensemble.answering)], ""

    def _generator(self, purpose: str, number: int) -> torch.Generator:
        return torch.Generator().manual_seed(derive_seed(self.recipe.seed, purpose, number))

    def _purified(self, purifier: Callable[[Tensor], Tensor], seen: Tensor) -> Tensor:
        with autocast(self.device, self.recipe.precision):
            out = purifier(seen)
        return out.float()

    def step(self, number: int) -> Mapping[str, float]:
        """One step of the purifier and, once it has joined, one of the critic."""
        recipe = self.recipe
        rate = recipe.learning_rate * self.pace.rate(number)
        set_rate(self.optimiser, rate)
        set_rate(self.critic_optimiser, rate)
        seen, clean = self.batch(number)
        purified = self._purified(self.learner, seen)
        losses = {"pixel": pixel_distance(purified, clean, recipe.pixel_norm, mean=self.workers.mean)}
        loss = recipe.pixel_weight * losses["pixel"]
        if recipe.feature_weight or recipe.prediction_weight:
            losses |= self._perceptual_losses(purified, clean, number)
        for name, weight in (("feature", recipe.feature_weight), ("prediction", recipe.prediction_weight)):
            if name in losses:
                loss = loss + weight * losses[name]
        if recipe.adversarial_weight and number >= recipe.adversarial_from * self.total:
            losses["critic"] = self._critic_step(purified.detach(), clean)
            losses["adversarial"] = self._adversarial_loss(purified, clean)
            loss = loss + recipe.adversarial_weight * losses["adversarial"]
        self.optimiser.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.purifier.parameters(), recipe.gradient_clip)
        self.optimiser.step()
        update_average(self.average, self.purifier, recipe.ema_decay, number)
        shown = self.workers.mean(torch.stack([value.detach() for value in losses.values()]))
        return dict(zip(losses, shown.tolist(), strict=True))

    def _perceptual_losses(self, purified: Tensor, clean: Tensor, number: int) -> dict[str, Tensor]:
        """Feature distance and, where it counts, prediction shift, on a share of the batch."""
        share = max(1, round(len(clean) * self.recipe.feature_share))
        views = self.ensemble.views(self.recipe.members_per_step, self._generator("views", number))
        with autocast(self.device, self.recipe.precision):
            return self.ensemble.distances(
                purified[:share],
                clean[:share],
                views,
                answer=self.recipe.prediction_weight > 0,
                relative=self.recipe.relative_features,
                mean=self.workers.mean,
            )

    def _critic_step(self, purified: Tensor, clean: Tensor) -> Tensor:
        with autocast(self.device, self.recipe.precision):
            real, fake = self.judge(clean), self.judge(purified)
        loss = relativistic_average(real.float(), fake.float(), mean=self.workers.mean)
        self.critic_optimiser.zero_grad()
        torch.autograd.backward(loss)
        self.critic_optimiser.step()
        return loss.detach()

    def _adversarial_loss(self, purified: Tensor, clean: Tensor) -> Tensor:
        self.critic.requires_grad_(False)
        with autocast(self.device, self.recipe.precision):
            real, fake = self.critic(clean), self.critic(purified)
        self.critic.requires_grad_(True)
        return relativistic_average(fake.float(), real.float(), mean=self.workers.mean)

    @torch.no_grad()
    def images(self, number: int) -> Mapping[str, Tensor]:
        """The first images of step ``number``'s batch: as seen, as the moving average purifies them, as wanted."""
        seen, target = (images[:SHOWN] for images in self.batch(number))
        return {"seen": seen, "purified": self._purified(self.average, seen), "target": target}

    def candidate(self) -> nn.Module:
        """The moving average of the weights."""
        return self.average

    def facts(self) -> Mapping[str, float]:
        """How many adversaries were made, and how many a second, by this worker since it started."""
        bank = self.bank.current if isinstance(self.bank, Banks) else self.bank
        found = bank.facts()
        for kind, tally in (("online", self.unaware), ("adaptive", self.adaptive)):
            if tally.count:
                found |= {f"adversaries, {kind}": tally.count, f"adversaries per second, {kind}": tally.rate}
        return found

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


def _require_enough(recipe: PurifierRecipe, photos: Photos, bank: Bank | Banks) -> None:
    attacked_count = round(recipe.batch * recipe.adversary_share) if recipe.uses_bank else 0
    pairs = min(recipe.adversaries.count, len(photos)) if isinstance(bank, Banks) else len(bank.pairs)
    for what, there, wanted in (
        ("adversaries", pairs, attacked_count),
        ("photos", len(photos), recipe.batch - attacked_count),
    ):
        if there < wanted:
            raise DataError(f"a batch takes {wanted} {what} and there are {there}; give more photos or lower batch")


def _start_from(initial: Mapping[str, Tensor], purifier: nn.Module, recipe: PurifierRecipe) -> None:
    try:
        purifier.load_state_dict({name: value.float() for name, value in initial.items()})
    except RuntimeError as error:
        detail = " ".join(str(error).split())[:300]
        raise RecipeError(f"{recipe.initial or 'initial'} is no {recipe.architecture} like this: {detail}") from error
