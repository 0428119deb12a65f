"""The segmenter: cross-entropy a pixel on random crops of labelled scenes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from model_store.architectures import build
from model_store.card import Card, Source
from model_store.devices import place
from robustness.datasets.camvid import CLASSES, VOID
from robustness.examples import Examples
from training.augment import jitter, uniform
from training.errors import DataError
from training.loop import batch_at, generator_at, rate_at, set_rate
from training.precision import autocast
from training.publish import LICENCE, all_arguments, code_revision
from training.recipe import Bounds, Decay, Positive, Recipe, recipe_json

GROWN_AT = 0.7
CROP_MULTIPLE = 16

Size = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class SegmenterRecipe(Recipe):
    """A segmenter of CamVid's classes. Sizes are (height, width) in pixels.

    Scenes are brought to ``size`` once, at the start. A training image is a window of a scene, ``crop`` divided by a
    zoom log-uniform in [1/``zoom``, ``zoom``], cut to the scene and resampled to ``crop``; half of them are mirrored,
    and brightness and contrast vary by up to ``jitter``. The crop grows linearly from ``crop_start`` over the first
    70 % of the run: early epochs on small crops cost less and teach the same textures. ``class_weights`` weigh the
    loss by the inverse of a class's share of all pixels (``median``: median share over share, as the SegNet paper
    does), by the square root of that (``sqrt``), or not (``none``), which favours global pixel accuracy.
    """

    epochs: Positive
    size: Size = (180, 240)
    crop: Size = (128, 160)
    crop_start: Size = (96, 128)
    zoom: Annotated[float, Bounds(least=1)] = 1.33
    jitter: Decay = 0.2
    class_weights: Literal["none", "sqrt", "median"] = "none"

    def __post_init__(self) -> None:
        """Check that the crops fit, too."""
        super().__post_init__()
        for start, crop, whole in zip(self.crop_start, self.crop, self.size, strict=True):
            if not CROP_MULTIPLE <= start <= crop <= whole:
                raise ValueError(f"crop_start, crop and size must be at least {CROP_MULTIPLE} and in rising order")


class SegmentationTraining:
    """Train ``recipe.architecture`` on ``scenes``, the training split."""

    def __init__(self, recipe: SegmenterRecipe, scenes: Examples, device: torch.device) -> None:
        self.recipe, self.scenes, self.device = recipe, scenes, device
        self.total = round(recipe.epochs * max(1, len(scenes) // recipe.batch))
        self.weights = class_weights(scenes.truths["mask"], recipe.class_weights).to(device)
        torch.manual_seed(recipe.seed)
        module = build(recipe.architecture, {**recipe.arguments, "classes": VOID})
        self.module = place(module, device).train()
        self.optimiser = torch.optim.AdamW(
            self.module.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay
        )

    def crop_at(self, number: int) -> Size:
        """The crop at step ``number``, multiples of 16 growing from ``crop_start`` to ``crop``."""
        grown = min(1.0, number / (GROWN_AT * self.total))
        if grown >= 1:
            return self.recipe.crop
        height, width = (
            int(start + grown * (end - start)) // CROP_MULTIPLE * CROP_MULTIPLE
            for start, end in zip(self.recipe.crop_start, self.recipe.crop, strict=True)
        )
        return height, width

    def batch(self, number: int) -> tuple[Tensor, Tensor]:
        """Augmented images in [0,1] and masks (N, H, W) int64 of step ``number``."""
        scenes = self.scenes.pick(batch_at(len(self.scenes), self.recipe.batch, number, self.recipe.seed))
        generator = generator_at(self.recipe.seed, number)
        crops, masks = scene_crops(
            scenes.pixels, scenes.truths["mask"], self.crop_at(number), self.recipe.zoom, generator
        )
        images = jitter(crops, self.recipe.jitter, generator).to(self.device, memory_format=torch.channels_last)
        return images, masks.to(self.device)

    def step(self, number: int) -> Mapping[str, float]:
        """One optimiser step."""
        images, masks = self.batch(number)
        set_rate(self.optimiser, self.recipe.learning_rate * rate_at(number, self.total, self.recipe.warmup))
        with autocast(self.device, self.recipe.precision):
            logits = self.module(images)
        scored = masks != VOID
        # A crop of nothing but void has no loss: the count may not be zero.
        weight = self.weights[masks].sum().clamp(min=1e-6)
        loss = F.cross_entropy(logits.float(), masks, self.weights[:VOID], ignore_index=VOID, reduction="sum") / weight
        self.optimiser.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.module.parameters(), self.recipe.gradient_clip)
        self.optimiser.step()
        hits = ((logits.argmax(1) == masks) & scored).sum()
        return {"loss": loss.item(), "accuracy": hits.item() / max(1, scored.sum().item())}

    def state(self) -> dict[str, Any]:
        """Module and optimiser."""
        return {"module": self.module.state_dict(), "optimiser": self.optimiser.state_dict()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up ``state`` again."""
        self.module.load_state_dict(state["module"])
        self.optimiser.load_state_dict(state["optimiser"])


def class_weights(masks: Tensor, weighting: Literal["none", "sqrt", "median"]) -> Tensor:
    """(VOID + 1,) float32: a weight for each class, 0 for void. Raises DataError where one to weigh never occurs."""
    weights = torch.ones(VOID + 1)
    weights[VOID] = 0
    if weighting == "none":
        return weights
    shares = torch.bincount(masks.flatten(), minlength=VOID + 1)[:VOID].float()
    if (shares == 0).any():
        absent = CLASSES[int(shares.argmin())]
        raise DataError(f'no scene shows the class {absent!r}, so it cannot be weighed; set class_weights = "none"')
    ratio = shares.median() / shares
    weights[:VOID] = ratio.sqrt() if weighting == "sqrt" else ratio
    return weights


def scene_crops(
    pixels: Tensor, masks: Tensor, size: Size, zoom: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The same random window and mirror of scenes uint8 (N, 3, H, W) and masks (N, H, W), resampled to ``size``.

    Images float in [0,1], bilinear; masks by the nearest pixel. Windows stay inside the scene and keep ``size``'s
    aspect where the scene is large enough for it.
    """
    count, _, height, width = pixels.shape
    scale = torch.exp(uniform(count, -1, 1, generator) * torch.log(torch.tensor(zoom)))
    high = (size[0] / (scale * height)).clamp(max=1)
    wide = (size[1] / (scale * width)).clamp(max=1)
    mirror = torch.where(torch.rand(count, generator=generator) < 0.5, -1.0, 1.0)
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = wide * mirror, high
    theta[:, 0, 2] = (1 - wide) * uniform(count, -1, 1, generator)
    theta[:, 1, 2] = (1 - high) * uniform(count, -1, 1, generator)
    grid = F.affine_grid(theta, [count, 3, *size], align_corners=False)
    images = F.grid_sample(pixels.float() / 255, grid, padding_mode="border", align_corners=False)
    labels = F.grid_sample(masks.unsqueeze(1).float(), grid, mode="nearest", padding_mode="border", align_corners=False)
    return images, labels.squeeze(1).long()


def segmenter_card(recipe: SegmenterRecipe, scenes: Examples) -> Card:
    """The card of a segmenter, which takes images of any size; its figures are measured afterwards."""
    return Card(
        name=recipe.name,
        summary=recipe.summary,
        task="segmenter",
        architecture=recipe.architecture,
        arguments=all_arguments(recipe, classes=VOID),
        precision="float16",
        labels=CLASSES,
        training_data=(Source(name=recipe.source, images=len(scenes), terms=recipe.terms),),
        licence=LICENCE,
        recipe=recipe_json(recipe, without={"side"}),
        code_revision=code_revision(),
        limits=(
            f"Trained on road scenes of {recipe.size[0]}x{recipe.size[1]} pixels (height x width); it takes other "
            "sizes but was not measured there.",
            "Not robust by itself: the undefended rows of the evaluation say what attacks leave of it.",
        ),
    )
