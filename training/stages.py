"""The trainings that run anywhere, bare machines included: what each kind needs, and what comes out of it."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from torch import nn

from model_store.folding import fold_batch_norms
from training.banks import Bank, Originals, make_adversaries
from training.ensemble import Ensemble, Member
from training.errors import DataError, RunError
from training.loop import Run, Trainable, Validated
from training.packing import open_photos
from training.photos import Photos, decode, parted
from training.place import Place
from training.purifier import PurifierTraining
from training.purifier_recipe import PurifierRecipe
from training.recipe import Recipe, SupervisedRecipe, recipe_json
from training.supervised import SupervisedTraining
from training.validation import Mode, RobustValidation

Kind = Literal["classifier", "feature-net", "purifier"]
SCHEMAS: Mapping[str, type[Recipe]] = MappingProxyType(
    {"classifier": SupervisedRecipe, "feature-net": SupervisedRecipe, "purifier": PurifierRecipe}
)
ONLY_IN_THE_CARD = frozenset({"save_every", "modes", "default_mode", "short_side", "limits"})


@dataclass(frozen=True)
class Network:
    """A trained network that a stage builds on; ``identity`` (a sha256, say) is what runs depend on."""

    module: nn.Module = field(repr=False)
    identity: str
    task: str
    architecture: str
    arguments: Mapping[str, Any]


Networks = Callable[[str], Network]


@dataclass(frozen=True)
class Stage:
    """A training made ready. ``photos`` are all it was given, ``prepared`` the seconds that its adversaries took."""

    recipe: Recipe
    work: Trainable
    run: Run
    photos: Photos = field(repr=False)
    validation: RobustValidation | None = None
    prepared: float = 0.0

    def result(self) -> nn.Module:
        """What gets published: the candidate that validated best, or where nothing validates the last."""
        if not isinstance(self.work, Validated):
            raise RunError(f"{self.recipe.name!r} has no candidate to publish")
        module = self.work.candidate()
        if self.validation is None or self.validation.best is None:
            return module
        module = copy.deepcopy(module)
        module.load_state_dict(self.validation.best)
        return module


def needs(recipe: Recipe) -> tuple[str, ...]:
    """The names of the networks that ``recipe`` builds on, each once."""
    if not isinstance(recipe, PurifierRecipe):
        return ()
    judge = (recipe.judge,) if recipe.validate_every else ()
    return tuple(dict.fromkeys(name for name in (*recipe.members, recipe.initial, *judge) if name))


def fingerprint(recipe: Recipe, *data: str) -> str:
    """Names recipe, data and whatever else a run depends on; what only its card says may change later."""
    parts = (json.dumps(recipe_json(recipe, without=ONLY_IN_THE_CARD)), *data)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def prepare(recipe: Recipe, data: list[Path], networks: Networks, place: Place) -> Stage:
    """Read the photos (folders, or one packed file), refuse what is wrong with them, and make the training ready."""
    if isinstance(recipe, SupervisedRecipe):
        return _supervised(recipe, data, place)
    if isinstance(recipe, PurifierRecipe):
        return _purifier(recipe, data, networks, place)
    raise RunError(f"a {type(recipe).__name__} is trained by a command of its own; see `nrp train --help`")


def _supervised(recipe: SupervisedRecipe, data: list[Path], place: Place) -> Stage:
    photos = decode(open_photos(data), recipe.side, least=recipe.batch, quiet=place.quiet)
    work = SupervisedTraining(recipe, photos, place.device, place.workers)
    run = Run(place.folder, fingerprint(recipe, photos.fingerprint), recipe.save_every, place.workers)
    return Stage(recipe, work, run, photos)


def _purifier(recipe: PurifierRecipe, data: list[Path], networks: Networks, place: Place) -> Stage:
    ensemble = Ensemble(tuple(_member(name, recipe, networks) for name in recipe.members))
    ensemble.require(recipe)
    held_back = recipe.held_back if recipe.validate_every else 0
    source = open_photos(data)
    photos = decode(source, recipe.side, least=recipe.batch + held_back, quiet=place.quiet)
    parts = parted(len(photos), held_back, recipe.seed)
    learnt, kept = (photos.pick(part) for part in parts)
    where, workers = place.folder, place.workers
    bank = make_adversaries(recipe, Originals(source, parts[0]), ensemble, place)
    initial = networks(recipe.initial) if recipe.initial else None
    start = initial.module.state_dict() if initial else None
    work = PurifierTraining(recipe, learnt, bank, ensemble, place.device, workers=workers, initial=start)
    built_on = [networks(name).identity for name in needs(recipe) if name not in recipe.members]
    named = fingerprint(recipe, photos.fingerprint, ensemble.identity, *built_on)
    run = Run(where, named, recipe.save_every, workers)
    validation = _validation(recipe, kept, networks, place) if held_back and workers.leads else None
    prepared = bank.seconds if isinstance(bank, Bank) else 0.0
    return Stage(recipe, work, run, photos, validation, prepared)


def _member(name: str, recipe: PurifierRecipe, networks: Networks) -> Member:
    network = networks(name)
    if network.task not in ("classifier", "feature-network"):
        raise DataError(f"{name!r} is a {network.task}, not a classifier or a feature network; name another")
    layers = recipe.layers.get(name, ())
    # It is frozen, and gives what it gave, sooner: half of an attack's time goes into batch norms.
    return Member(name, network.identity, fold_batch_norms(network.module.eval(), keep=layers), layers)


def _validation(recipe: PurifierRecipe, kept: Photos, networks: Networks, place: Place) -> RobustValidation:
    judge = networks(recipe.judge)
    if judge.task not in ("classifier", "feature-network"):
        raise DataError(f"{recipe.judge!r} is a {judge.task} and cannot judge; name a classifier as the recipe's judge")
    mode = Mode.default_of(recipe)
    return RobustValidation(
        kept.pixels, judge.module, every=recipe.validate_every, mode=mode, device=place.device, seed=recipe.seed
    )
