"""Detectors: RetinaNet's losses on photos with boxes, from the backbone of a published classifier."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model_store.architectures import build
from model_store.architectures.retinanet import RetinaNetSmall
from model_store.card import Card, InputConvention, Source
from model_store.devices import place
from model_store.store import ModelStore
from robustness.examples import Examples
from training.augment import jitter, uniform
from training.errors import RecipeError
from training.loop import batch_at, generator_at, rate_at, set_rate, update_average
from training.precision import autocast
from training.publish import LICENCE, all_arguments, code_revision
from training.recipe import Decay, Positive, Recipe, recipe_json

VISIBLE = 0.4


@dataclass(frozen=True, kw_only=True)
class DetectorRecipe(Recipe):
    """A detector. ``size`` (H, W) is what photos are brought to, ``split`` the list of photos to train on.

    ``pretrained`` names the classifier in the store whose stem and stages the backbone starts from; empty: from
    scratch. Each photo is zoomed by ``zoom`` (low, high) about a random place, mirrored both ways at random, and
    jittered in brightness and contrast by ``jitter`` and a channel's gain by ``tint``. ``limits`` goes into its card.
    """

    split: str = "train"
    size: tuple[int, int] = (240, 320)
    pretrained: str = ""
    epochs: Positive
    zoom: tuple[float, float] = (0.85, 1.35)
    jitter: Decay = 0.25
    tint: Decay = 0.08
    ema_decay: Decay = 0.998
    labels: tuple[str, ...]
    limits: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check that there is something to detect, too."""
        super().__post_init__()
        if not self.labels:
            raise ValueError("labels must name at least one class")


def reframe(
    images: Tensor, boxes: Tensor, labels: Tensor, zoom: tuple[float, float], generator: torch.Generator
) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """Random zoom, place and mirrors of uint8 ``images`` (N, 3, H, W), with their ``boxes`` (N, K, 4).

    Returns floats in [0,1] of the same size, black beyond the photo's edge, and boxes and labels of each image. A
    box is cut at the frame, and left out where less than 40 % of it stays inside: too little to be recognised.
    """
    count, _, height, width = images.shape
    window = 1 / uniform(count, *zoom, generator)
    mirrors = torch.where(torch.rand(count, 2, generator=generator) < 0.5, -1.0, 1.0)
    # The window's centre, in [-1,1], stays where the window lies within the photo (or the photo within it).
    centre = (1 - window).abs()[:, None] * (torch.rand(count, 2, generator=generator) * 2 - 1)
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = window * mirrors[:, 0], window * mirrors[:, 1]
    theta[:, :, 2] = centre
    grid = F.affine_grid(theta, [count, 3, height, width], align_corners=False)
    framed = F.grid_sample(images.float() / 255, grid, mode="bilinear", align_corners=False)

    extent = torch.tensor([width, height]).float()
    corners = boxes.view(count, -1, 2, 2) / extent * 2 - 1
    moved = (corners - centre[:, None, None]) / (window[:, None] * mirrors)[:, None, None]
    low, high = moved.amin(2), moved.amax(2)
    kept_low, kept_high = low.clamp(-1, 1), high.clamp(-1, 1)
    share = (kept_high - kept_low).prod(-1) / (high - low).prod(-1).clamp(min=1e-9)
    visible = (share >= VISIBLE) & (labels >= 0)
    cut = torch.cat([(kept_low + 1) / 2 * extent, (kept_high + 1) / 2 * extent], dim=-1)
    targets = [{"boxes": cut[n][visible[n]], "labels": labels[n][visible[n]]} for n in range(count)]
    return framed, targets


def tinted(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Each channel times a random gain within 1 ± ``strength``: the stain and the lamp differ between smears."""
    gains = uniform(len(images) * 3, 1 - strength, 1 + strength, generator).view(-1, 3, 1, 1)
    return (images * gains).clamp(0, 1)


class DetectionTraining:
    """Train ``recipe.architecture`` on ``examples`` (boxes and labels); what is published is its moving average."""

    def __init__(self, recipe: DetectorRecipe, examples: Examples, store: ModelStore, device: torch.device) -> None:
        self.recipe, self.examples, self.device = recipe, examples, device
        self.total = round(recipe.epochs * max(1, len(examples) // recipe.batch))
        torch.manual_seed(recipe.seed)
        module = build(recipe.architecture, {**recipe.arguments, "classes": len(recipe.labels)})
        if not isinstance(module, RetinaNetSmall):
            raise RecipeError(f"recipe {recipe.name!r}: {recipe.architecture} is no detector; use retinanet_small")
        if recipe.pretrained:
            start_from(module, recipe.pretrained, store)
        self.module = place(module, device).train()
        self.average = copy.deepcopy(self.module).eval().requires_grad_(False)
        self.optimiser = torch.optim.AdamW(_groups(self.module, recipe.weight_decay), recipe.learning_rate)

    def batch(self, number: int) -> tuple[Tensor, list[dict[str, Tensor]]]:
        """Augmented images in [0,1] and the targets of each, of step ``number``."""
        recipe = self.recipe
        indices = batch_at(len(self.examples), recipe.batch, number, recipe.seed)
        generator = generator_at(recipe.seed, number)
        truths = self.examples.truths
        images, targets = reframe(
            self.examples.pixels[indices], truths["boxes"][indices], truths["labels"][indices], recipe.zoom, generator
        )
        images = tinted(jitter(images, recipe.jitter, generator), recipe.tint, generator)
        moved = [{name: value.to(self.device) for name, value in target.items()} for target in targets]
        return images.to(self.device, memory_format=torch.channels_last), moved

    def step(self, number: int) -> Mapping[str, float]:
        """One optimiser step."""
        images, targets = self.batch(number)
        set_rate(self.optimiser, self.recipe.learning_rate * rate_at(number, self.total, self.recipe.warmup))
        with autocast(self.device, self.recipe.precision):
            parts = self.module.losses(images, targets)
        losses = {name: value.mean() for name, value in parts.items()}
        self.optimiser.zero_grad()
        torch.autograd.backward(torch.stack(list(losses.values())).sum())
        torch.nn.utils.clip_grad_norm_(self.module.parameters(), self.recipe.gradient_clip)
        self.optimiser.step()
        update_average(self.average, self.module, self.recipe.ema_decay, number)
        return {name: value.item() for name, value in losses.items()}

    def state(self) -> dict[str, Any]:
        """Module, average and optimiser."""
        return {
            "module": self.module.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up ``state`` again."""
        self.module.load_state_dict(state["module"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])


def start_from(module: RetinaNetSmall, name: str, store: ModelStore) -> None:
    """Give the backbone of ``module`` the stem and stages of classifier ``name``. Raises RecipeError if none fit."""
    given = store.load(name).module.state_dict()
    backbone = module.detector.backbone
    for part in ("stem", "stages"):
        own = getattr(backbone, part)
        state = {key.removeprefix(f"{part}."): value for key, value in given.items() if key.startswith(f"{part}.")}
        try:
            own.load_state_dict(state)
        except RuntimeError as error:
            raise RecipeError(
                f"{name} has no {part} that fits this detector's; name a resnet_small of the same widths and blocks"
            ) from error


def detector_card(recipe: DetectorRecipe, examples: Examples, store: ModelStore) -> Card:
    """The card of a detector; its figures are measured afterwards by ``nrp evaluate``."""
    data = [Source(name=recipe.source, images=len(examples), terms=recipe.terms)]
    if recipe.pretrained:
        data += [
            source.model_copy(update={"name": f"{source.name}, through the backbone of {recipe.pretrained}"})
            for source in store.card(recipe.pretrained).training_data
        ]
    return Card(
        name=recipe.name,
        summary=recipe.summary,
        task="detector",
        architecture=recipe.architecture,
        arguments=all_arguments(recipe, classes=len(recipe.labels)),
        precision="float16",
        input=InputConvention(),
        labels=recipe.labels,
        training_data=tuple(data),
        licence=LICENCE,
        recipe=recipe_json(recipe, without={"labels", "limits"}),
        code_revision=code_revision(),
        limits=recipe.limits,
    )


def _groups(module: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Weight decay for matrices and filters; none for biases and the normalisations' scales."""
    parameters = list(module.parameters())
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
