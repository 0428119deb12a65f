"""A finished run into the store: weights in half precision and a card."""

from __future__ import annotations

import inspect
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from model_store.architectures import ARCHITECTURES
from model_store.card import Card, Cost, Inference, InputConvention, Source
from model_store.inference import STANDARD_MODES, InferenceMode
from model_store.store import ModelStore
from training.errors import RecipeError
from training.features import OFFICIAL, load_features
from training.finished import Finished, hardware
from training.purifier_recipe import PurifierRecipe
from training.recipe import Recipe, SupervisedRecipe, recipe_json
from training.stages import Network, Networks, Stage

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


def source_of(recipe: Recipe, images: int) -> Source:
    """Where the ``images`` photos came from, as the recipe states it."""
    return Source(name=recipe.source, images=images, terms=recipe.terms)


def stored(store: ModelStore) -> Networks:
    """What a stage may build on at home: the store's models, and torchvision's VGG-16 where it can be downloaded."""

    def network(name: str) -> Network:
        if name == OFFICIAL:
            official = load_features(name, store)
            return Network(official.module, official.identity, "feature-network", "vgg16_conv3_3", {"classes": None})
        loaded = store.load(name)
        card = loaded.card
        return Network(loaded.module, card.sha256, card.task, card.architecture, card.arguments)

    return network


def stage_card(kind: str, stage: Stage) -> Card:
    """The card of what a stage has trained here."""
    measured = stage.validation.report() if stage.validation is not None else {}
    return _card(kind, stage.recipe, stage.photos.folders, len(stage.photos), measured)


def finished_card(finished: Finished) -> Card:
    """The card of what a bare machine has trained: the revision and the cost are those of there."""
    facts = finished.facts
    card = _card(finished.kind, finished.recipe, facts["folders"], facts["photos"]["count"], facts["validation"])
    spent = Cost(seconds=facts["seconds"], hardware=facts["hardware"])
    recipe = {**card.recipe, "steps_done": facts["steps"]}  # a run by time does fewer than the recipe allows
    return card.model_copy(update={"training_cost": spent, "code_revision": facts["code_revision"], "recipe": recipe})


def _card(kind: str, recipe: Recipe, folders: Sequence[str], images: int, measured: Mapping[str, Any]) -> Card:
    if isinstance(recipe, PurifierRecipe):
        return purifier_card(recipe, images, measured)
    if isinstance(recipe, SupervisedRecipe):
        return supervised_card(recipe, folders, images, "classifier" if kind == "classifier" else "feature-network")
    raise RecipeError(f"no card is written for a {type(recipe).__name__}; publish it with the command that trains it")


def supervised_card(
    recipe: SupervisedRecipe, folders: Sequence[str], images: int, task: Literal["classifier", "feature-network"]
) -> Card:
    """The card of a classifier or feature network; its figures are measured afterwards by ``nrp evaluate``."""
    return Card(
        name=recipe.name,
        summary=recipe.summary,
        task=task,
        architecture=recipe.architecture,
        arguments=all_arguments(recipe, classes=len(folders)),
        precision="float16",
        input=InputConvention(short_side=recipe.short_side, crop=recipe.crop),
        labels=tuple(recipe.labels.get(folder, folder) for folder in folders),
        training_data=(source_of(recipe, images),),
        licence=LICENCE,
        recipe={**recipe_json(recipe, without={"labels"}), "folders": list(folders)},
        code_revision=code_revision(),
        limits=("Not robust by itself: the undefended rows in a purifier's card say what PGD leaves of it.",)
        if task == "classifier"
        else (),
    )


def purifier_card(recipe: PurifierRecipe, images: int, measured: Mapping[str, Any]) -> Card:
    """The card of a purifier; its figures are measured afterwards by ``nrp evaluate``.

    ``measured``: what validation told while it trained, which was used to choose and so is no figure.
    """
    modes = {**STANDARD_MODES, **{name: InferenceMode.model_validate(mode) for name, mode in recipe.modes.items()}}
    chosen = {"chosen_by": {"undefended": measured["undefended"], **measured["best"]}} if measured.get("best") else {}
    return Card(
        name=recipe.name,
        summary=recipe.summary,
        task="purifier",
        architecture=recipe.architecture,
        arguments=all_arguments(recipe),
        precision="float16",
        inference=Inference(default=recipe.default_mode, modes=modes),
        training_data=(source_of(recipe, images),),
        licence=LICENCE,
        recipe={**recipe_json(recipe), **chosen},
        code_revision=code_revision(),
        limits=(
            *recipe.limits,
            "An attacker who knows the purifier and differentiates through it still wins.",
            "Bounded pixel perturbations only: no patches, no geometric changes, no corrupted labels.",
        ),
    )


def cost(seconds: float, device: torch.device, workers: int = 1) -> Cost:
    """What ``seconds`` of so many workers on ``device`` are worth."""
    return Cost(seconds=round(seconds, 1), hardware=hardware(device, workers))


def publish(store: ModelStore, card: Card, module: nn.Module, *, replace: bool) -> Card:
    """Write ``module`` with ``card`` and read it back, so that what is published is what loads."""
    published = store.publish(card, module, replace=replace)
    store.verify(published.name)
    return published
