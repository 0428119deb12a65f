"""A finished run into the store: weights in half precision and a card."""

from __future__ import annotations

import inspect
import subprocess
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from model_store.architectures import ARCHITECTURES
from model_store.card import Card, Cost, Inference, InputConvention, Source
from model_store.inference import STANDARD_MODES, InferenceMode
from model_store.store import ModelStore
from training.photos import Photos
from training.recipe import PurifierRecipe, Recipe, SupervisedRecipe

LICENCE = "weights: as the training data's terms; research, non-commercial"


def code_revision() -> str:
    """The commit this code is at, '+' when the tree differs from it; 'unknown' outside a checkout."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(here), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603

    try:
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def all_arguments(recipe: Recipe, **more: object) -> dict[str, Any]:
    """The architecture's arguments with its defaults spelled out, so that a card outlives a change of default."""
    bound = inspect.signature(ARCHITECTURES[recipe.architecture].build).bind(**recipe.arguments, **more)
    bound.apply_defaults()
    return {key: list(value) if isinstance(value, tuple) else value for key, value in bound.arguments.items()}


def source_of(recipe: Recipe, photos: Photos) -> Source:
    """Where the photos came from, as the recipe states it."""
    return Source(name=recipe.source, images=len(photos), terms=recipe.terms)


def supervised_card(recipe: SupervisedRecipe, photos: Photos, task: Literal["classifier", "feature-network"]) -> Card:
    """The card of a classifier or feature network; its figures are measured afterwards by ``nrp evaluate``."""
    return Card(
        name=recipe.name,
        summary=recipe.summary,
        task=task,
        architecture=recipe.architecture,
        arguments=all_arguments(recipe, classes=len(photos.folders)),
        precision="float16",
        input=InputConvention(short_side=recipe.short_side, crop=recipe.crop),
        labels=tuple(recipe.labels.get(folder, folder) for folder in photos.folders),
        training_data=(source_of(recipe, photos),),
        licence=LICENCE,
        recipe={**recipe.model_dump(mode="json", exclude={"labels"}), "folders": list(photos.folders)},
        code_revision=code_revision(),
        limits=("Not robust by itself: the undefended rows in a purifier's card say what PGD leaves of it.",)
        if task == "classifier"
        else (),
    )


def purifier_card(recipe: PurifierRecipe, photos: Photos) -> Card:
    """The card of a purifier; its figures are measured afterwards by ``nrp evaluate``."""
    modes = {**STANDARD_MODES, **{name: InferenceMode.model_validate(mode) for name, mode in recipe.modes.items()}}
    return Card(
        name=recipe.name,
        summary=recipe.summary,
        task="purifier",
        architecture=recipe.architecture,
        arguments=all_arguments(recipe),
        precision="float16",
        inference=Inference(default=recipe.default_mode, modes=modes),
        training_data=(source_of(recipe, photos),),
        licence=LICENCE,
        recipe=recipe.model_dump(mode="json"),
        code_revision=code_revision(),
        limits=(
            *recipe.limits,
            "An attacker who knows the purifier and differentiates through it still wins: see the adaptive figures.",
            "Bounded pixel perturbations only: no patches, no geometric changes, no corrupted labels.",
        ),
    )


def cost(seconds: float, device: torch.device) -> Cost:
    """What ``seconds`` on ``device`` are worth: its name, or how many of the processor's threads were used."""
    if device.type == "cuda":
        return Cost(seconds=round(seconds, 1), hardware=torch.cuda.get_device_name(device))
    threads = torch.get_num_threads()
    return Cost(seconds=round(seconds, 1), hardware=f"CPU, {threads} thread{'s' if threads > 1 else ''}")


def publish(store: ModelStore, card: Card, module: nn.Module, *, replace: bool) -> Card:
    """Write ``module`` with ``card`` and read it back, so that what is published is what loads."""
    published = store.publish(card, module, replace=replace)
    store.verify(published.name)
    return published
