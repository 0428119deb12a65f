"""``nrp train classifier | feature-net | purifier | ...``: image folders in, a published checkpoint out."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from torch import nn

from model_store.card import Card
from model_store.devices import device_named
from model_store.errors import ModelExistsError
from model_store.store import SHIPPED, ModelStore
from robustness.datasets.bccd import read_bccd
from robustness.datasets.camvid import read_camvid
from training.adversaries import make_adversaries
from training.detection import DetectionTraining, DetectorRecipe, detector_card
from training.errors import DataError, RecipeError
from training.features import OFFICIAL, load_features
from training.loop import Run, Trainable, train
from training.perturber import PerturberRecipe, PerturberTraining, load_surrogate, perturber_card
from training.photos import read_photos
from training.publish import cost, publish, purifier_card, supervised_card
from training.purifier import PurifierTraining
from training.recipe import AnyRecipe, PurifierRecipe, Recipe, SupervisedRecipe, read_recipe
from training.segmentation import SegmentationTraining, SegmenterRecipe, segmenter_card
from training.supervised import SupervisedTraining

ONLY_IN_THE_CARD = frozenset({"save_every", "modes", "default_mode", "short_side", "limits"})


def configure_train(parser: argparse.ArgumentParser) -> None:
    """Add the sub-verbs."""
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    for kind, summary, run in (
        ("classifier", "a downstream classifier, from one folder a class", run_classifier),
        ("feature-net", "the network whose features SSP attacks, from one folder a class", run_feature_net),
        ("purifier", "the purifier, from unlabelled photos", run_purifier),
        ("perturber", "a generator that fools a classifier in one pass (CDA), from unlabelled photos", run_perturber),
        ("segmenter", "a segmenter of road scenes, from CamVid's folder", run_segmenter),
        ("detector", "a detector of blood cells, from BCCD's folder", run_detector),
    ):
        _configure_kind(kinds.add_parser(kind, help=summary, description=f"Train {summary}."), kind, run)


def _configure_kind(parser: argparse.ArgumentParser, kind: str, run: Callable[[argparse.Namespace], int]) -> None:
    parser.add_argument("data", nargs="+", type=Path, metavar="DIR", help="folders of photos")
    parser.add_argument(
        "--recipe", default=kind, help="a .toml file or the name of a shipped recipe (default: %(default)s)"
    )
    parser.add_argument("--run", type=Path, help="folder of checkpoints to start or resume (default: runs/NAME)")
    parser.add_argument("--store", type=Path, default=SHIPPED, help="where to publish (default: the shipped weights)")
    parser.add_argument("--replace", action="store_true", help="replace a published model of the same name")
    parser.add_argument("--name", help="publish under this name instead of the recipe's")
    parser.add_argument("--seed", type=int, help="use this seed instead of the recipe's")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--stop-at", type=int, help="stop after this step, saved, and publish nothing")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    if kind == "purifier":
        parser.add_argument(
            "--feature-network", metavar="NAME", help=f"a feature network in the store, or {OFFICIAL} (downloaded)"
        )
    if kind == "perturber":
        parser.add_argument("--surrogate", metavar="NAME", help="attack this classifier instead of the recipe's")
    parser.set_defaults(run_kind=run)


def run_train(arguments: argparse.Namespace) -> int:
    """Run the chosen sub-verb."""
    run: Callable[[argparse.Namespace], int] = arguments.run_kind
    return run(arguments)


def chosen_recipe(arguments: argparse.Namespace, schema: type[AnyRecipe]) -> AnyRecipe:
    """The recipe with the command line's name and seed, its place in the store checked before any work."""
    recipe = read_recipe(arguments.recipe, schema)
    wanted = {
        "name": arguments.name,
        "seed": arguments.seed,
        "feature_network": getattr(arguments, "feature_network", None),
        "surrogate": getattr(arguments, "surrogate", None),
    }
    recipe = recipe.model_copy(update={key: value for key, value in wanted.items() if value is not None})
    if recipe.name in ModelStore(arguments.store).names() and not arguments.replace and arguments.stop_at is None:
        raise ModelExistsError(f"{recipe.name!r} is already published in {arguments.store}; pass --replace or --name")
    return recipe


def run_folder(arguments: argparse.Namespace, name: str) -> Path:
    """The run folder asked for, or runs/NAME."""
    return arguments.run if arguments.run is not None else Path("runs") / name


def finish(
    arguments: argparse.Namespace,
    work: Trainable,
    run: Run,
    card: Callable[[], tuple[Card, nn.Module]],
    prepared: float = 0.0,
) -> int:
    """Train to the end and publish; stopping early publishes nothing. ``prepared`` seconds preceded the first step."""
    if not train(work, run, stop_at=arguments.stop_at, quiet=arguments.quiet):
        print(f"stopped early; run the same command again to go on ({run.path})")
        return 0
    made, module = card()
    price = cost(prepared + run.load()[1], device_named(arguments.device))
    priced = made.model_copy(update={"training_cost": price})
    published = publish(ModelStore(arguments.store), priced, module, replace=arguments.replace)
    print(f"published {published.name} in {arguments.store} (sha256 {published.sha256[:12]})")
    return 0


def fingerprint(recipe: Recipe, *data: str) -> str:
    """Names recipe, data and whatever else a run depends on; what only its card says may change later."""
    parts = (recipe.model_dump_json(exclude=set(ONLY_IN_THE_CARD)), *data)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def run_classifier(arguments: argparse.Namespace) -> int:
    """``nrp train classifier``."""
    return _run_supervised(arguments, "classifier")


def run_feature_net(arguments: argparse.Namespace) -> int:
    """``nrp train feature-net``."""
    return _run_supervised(arguments, "feature-network")


def _run_supervised(arguments: argparse.Namespace, task: Literal["classifier", "feature-network"]) -> int:
    recipe = chosen_recipe(arguments, SupervisedRecipe)
    photos = read_photos(arguments.data, recipe.side, quiet=arguments.quiet)
    work = SupervisedTraining(recipe, photos, device_named(arguments.device))
    run = Run(run_folder(arguments, recipe.name), fingerprint(recipe, photos.fingerprint), recipe.save_every)
    return finish(arguments, work, run, lambda: (supervised_card(recipe, photos, task), work.module))


def run_purifier(arguments: argparse.Namespace) -> int:
    """``nrp train purifier``."""
    recipe = chosen_recipe(arguments, PurifierRecipe)
    features = load_features(recipe.feature_network, ModelStore(arguments.store))
    if recipe.needs_predictions and features.module.head is None:
        raise RecipeError(
            f"{recipe.feature_network} has no head to predict with; use --recipe purifier-vgg16, or a recipe with "
            "prediction_weight 0 and adversaries of kind ssp alone"
        )
    device = device_named(arguments.device)
    folder = run_folder(arguments, recipe.name)
    photos = read_photos(arguments.data, recipe.side, quiet=arguments.quiet)
    bank = make_adversaries(recipe, arguments.data, features, folder, device, quiet=arguments.quiet)
    work = PurifierTraining(recipe, photos, bank.pairs, features.module, device)
    run = Run(folder, fingerprint(recipe, photos.fingerprint, features.identity), recipe.save_every)
    return finish(arguments, work, run, lambda: (purifier_card(recipe, photos), work.average), bank.seconds)


def run_perturber(arguments: argparse.Namespace) -> int:
    """``nrp train perturber``."""
    recipe = chosen_recipe(arguments, PerturberRecipe)
    surrogate = load_surrogate(recipe.surrogate, ModelStore(arguments.store))
    photos = read_photos(arguments.data, recipe.side, quiet=arguments.quiet)
    work = PerturberTraining(recipe, photos, surrogate, device_named(arguments.device))
    depends = fingerprint(recipe, photos.fingerprint, surrogate.identity)
    run = Run(run_folder(arguments, recipe.name), depends, recipe.save_every)
    return finish(arguments, work, run, lambda: (perturber_card(work), work.module))


def run_segmenter(arguments: argparse.Namespace) -> int:
    """``nrp train segmenter``."""
    if len(arguments.data) > 1:
        raise DataError("a segmenter is trained on one folder; give CamVid's, which holds train, val and test")
    recipe = chosen_recipe(arguments, SegmenterRecipe)
    scenes = read_camvid(arguments.data[0], "train", recipe.size)
    work = SegmentationTraining(recipe, scenes, device_named(arguments.device))
    run = Run(run_folder(arguments, recipe.name), fingerprint(recipe, scenes.digest), recipe.save_every)
    return finish(arguments, work, run, lambda: (segmenter_card(recipe, scenes), work.module))


def run_detector(arguments: argparse.Namespace) -> int:
    """``nrp train detector``."""
    recipe = chosen_recipe(arguments, DetectorRecipe)
    if len(arguments.data) > 1:
        raise DataError("a detector is trained on one folder; give BCCD's folder alone")
    store = ModelStore(arguments.store)
    examples = read_bccd(arguments.data[0], recipe.split, recipe.size)
    work = DetectionTraining(recipe, examples, store, device_named(arguments.device))
    origin = store.card(recipe.pretrained).sha256 if recipe.pretrained else ""
    run = Run(run_folder(arguments, recipe.name), fingerprint(recipe, examples.digest, origin), recipe.save_every)
    return finish(arguments, work, run, lambda: (detector_card(recipe, examples, store), work.average))
