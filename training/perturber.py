"""The perturber: a generator that fools one frozen classifier with whatever image it is given (CDA).

Naseer et al., "Cross-domain transferability of adversarial perturbations", NeurIPS 2019, from the paper: only the
generator learns; its output is brought into the eps ball and [0,1]; what it raises is the relativistic
cross-entropy, that of the *difference* between the logits of adversary and clean image; no label is needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model_store.architectures import build
from model_store.card import Card, Figure, InputConvention
from model_store.devices import place
from model_store.pixels import centre, to_8bit, to_float
from model_store.store import ModelStore
from robustness.attacks.ascent import project
from robustness.intervals import wilson
from training.augment import aligned_crops
from training.errors import DataError
from training.loop import batch_at, generator_at
from training.photos import Photos
from training.precision import autocast
from training.publish import LICENCE, all_arguments, code_revision, source_of
from training.recipe import Bounds, Count, Pixels, Positive, Recipe, recipe_json

BETAS = (0.5, 0.999)
MEASURED_AT = (8, 16)


@dataclass(frozen=True, kw_only=True)
class PerturberRecipe(Recipe):
    """``surrogate``: the classifier in the store that is attacked; ``eps`` (in /255): the budget learnt within.

    Random crops of ``crop`` pixels, mirrored at random, of photos brought to ``side``. The last ``held_out`` photos
    of a fixed shuffle are not trained on: they tell in the card how often the surrogate is fooled. The rate is
    constant, as in the paper.
    """

    architecture: str = "cda_generator"
    surrogate: str
    steps: Count
    batch: Count = 16
    crop: Pixels = 128
    eps: Annotated[float, Bounds(above=0, most=255)] = 10.0
    learning_rate: Positive = 2e-4
    held_out: Count = 200

    def __post_init__(self) -> None:
        """Check that the crop fits, too."""
        super().__post_init__()
        if self.crop > self.side:
            raise ValueError("crop must be at most side")


@dataclass(frozen=True)
class Surrogate:
    """The classifier that is attacked, frozen; ``identity`` (a sha256) is what runs depend on."""

    module: nn.Module
    identity: str


def load_surrogate(name: str, store: ModelStore) -> Surrogate:
    """The classifier of that name. Raises UnknownModelError, or DataError for a model of another task."""
    loaded = store.load(name)
    if loaded.card.task != "classifier":
        raise DataError(f"{name!r} is a {loaded.card.task}; name a classifier with --surrogate")
    return Surrogate(loaded.module, loaded.card.sha256)


def relativistic_loss(adversaries: Tensor, clean: Tensor) -> Tensor:
    """What the generator raises, from logits (N, classes) of both: cross-entropy of their difference, towards the
    class that the clean image is taken for."""
    return F.cross_entropy(adversaries - clean, clean.argmax(dim=1))


class PerturberTraining:
    """Train ``recipe.architecture`` to fool ``surrogate`` on ``photos``, whose labels are never looked at."""

    def __init__(self, recipe: PerturberRecipe, photos: Photos, surrogate: Surrogate, device: torch.device) -> None:
        if len(photos) < recipe.held_out + recipe.batch:
            raise DataError(
                f"{len(photos)} photos are too few to hold out {recipe.held_out} and train on batches of "
                f"{recipe.batch}; give more photos, or lower held_out or batch in the recipe"
            )
        self.recipe, self.photos, self.device = recipe, photos, device
        self.total = recipe.steps
        shuffled = torch.randperm(len(photos), generator=torch.Generator().manual_seed(recipe.seed))
        self.trained_on, self.held_out = shuffled[: -recipe.held_out], shuffled[-recipe.held_out :]
        torch.manual_seed(recipe.seed)
        self.module = place(build(recipe.architecture, recipe.arguments), device).train()
        self.identity = surrogate.identity
        self.surrogate = place(surrogate.module, device).eval().requires_grad_(False)
        self.optimiser = torch.optim.Adam(
            self.module.parameters(), recipe.learning_rate, betas=BETAS, weight_decay=recipe.weight_decay
        )

    def batch(self, number: int) -> Tensor:
        """Clean crops (N, 3, crop, crop) in [0,1] of step ``number``."""
        chosen = self.trained_on[batch_at(len(self.trained_on), self.recipe.batch, number, self.recipe.seed)]
        generator = generator_at(self.recipe.seed, number)
        crops = aligned_crops(self.photos.pixels[chosen].unsqueeze(1), self.recipe.crop, generator)[:, 0]
        return crops.to(self.device, memory_format=torch.channels_last)

    def step(self, number: int) -> Mapping[str, float]:
        """One step of the generator; ``fooled`` is the share of the batch whose answer changed."""
        images = self.batch(number)
        with torch.no_grad():
            clean = self._logits(images)
        logits = self._logits(project(self._made(images), images, self.recipe.eps))
        raised = relativistic_loss(logits, clean)
        self.optimiser.zero_grad()
        torch.autograd.backward(-raised)
        nn.utils.clip_grad_norm_(self.module.parameters(), self.recipe.gradient_clip)
        self.optimiser.step()
        fooled = (logits.argmax(1) != clean.argmax(1)).float().mean()
        return {"relativistic": raised.item(), "fooled": fooled.item()}

    def _made(self, images: Tensor) -> Tensor:
        with autocast(self.device, self.recipe.precision):
            out: Tensor = self.module(images)
        return out.float()

    def _logits(self, images: Tensor) -> Tensor:
        with autocast(self.device, self.recipe.precision):
            out: Tensor = self.surrogate(images)
        return out.float()

    @torch.no_grad()
    def fooled(self, eps: float) -> Tensor:
        """Whether the surrogate's answer changes (held_out,), for the held-out photos' centre crops within ``eps``.

        In single precision and on adversaries rounded to 8 bits, as evaluation does it.
        """
        self.module.eval()
        changed = []
        for chosen in torch.split(self.held_out, self.recipe.batch):
            images = centre(to_float(self.photos.pixels[chosen]), self.recipe.crop).to(self.device)
            adversaries = to_8bit(project(self.module(images), images, eps))
            changed.append(self.surrogate(adversaries).argmax(1) != self.surrogate(images).argmax(1))
        self.module.train()
        return torch.cat(changed).cpu()

    def state(self) -> dict[str, Any]:
        """Generator and optimiser."""
        return {"module": self.module.state_dict(), "optimiser": self.optimiser.state_dict()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up ``state`` again."""
        self.module.load_state_dict(state["module"])
        self.optimiser.load_state_dict(state["optimiser"])


def fooling_figure(work: PerturberTraining, eps: int) -> Figure:
    """The share of the held-out photos that fool the surrogate within ``eps``, with its Wilson interval."""
    fooled = work.fooled(eps)
    return Figure(
        name=f"fooling rate of {work.recipe.surrogate} at {eps}/255",
        value=fooled.double().mean().item(),
        unit="share",
        count=len(fooled),
        interval=wilson(float(fooled.sum()), len(fooled)),
        command="nrp train perturber",
        seed=work.recipe.seed,
        note="white box; answers changed, on photos of the training folders that were held out",
    )


def perturber_card(work: PerturberTraining) -> Card:
    """The card of a trained perturber, with the fooling rates that it reaches on the photos held out."""
    recipe = work.recipe
    return Card(
        name=recipe.name,
        summary=recipe.summary,
        task="perturber",
        architecture=recipe.architecture,
        arguments=all_arguments(recipe),
        precision="float16",
        input=InputConvention(),
        training_data=(source_of(recipe, len(work.photos)),),
        licence=LICENCE,
        recipe={**recipe_json(recipe), "surrogate_sha256": work.identity},
        code_revision=code_revision(),
        figures=tuple(fooling_figure(work, eps) for eps in MEASURED_AT),
        limits=("Made to fool classifiers in tests: what it does to a victim other than its surrogate is transfer.",),
    )
