"""``nrp train classifier | feature-net | purifier | ...``: image folders in, a published checkpoint out."""

from __future__ import annotations

import argparse
import dataclasses
import signal
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from model_store.card import Card
from model_store.devices import device_named
from model_store.errors import ModelExistsError
from model_store.store import ModelStore
from robustness.datasets.bccd import read_bccd
from robustness.datasets.camvid import read_camvid
from training.commands.around import configure_around, configure_publishing
from training.detection import DetectionTraining, DetectorRecipe, detector_card
from training.errors import DataError, OutOfTimeError, RunError
from training.features import OFFICIAL
from training.loop import Run, Trainable, Validation, train
from training.packing import open_photos
from training.parallel import Workers, own_device, require_one_worker
from training.perturber import PerturberRecipe, PerturberTraining, load_surrogate, perturber_card
from training.photos import decode
from training.place import Place
from training.publish import cost, publish, stage_card, stored
from training.recipe import AnyRecipe, Recipe, read_recipe
from training.segmentation import SegmentationTraining, SegmenterRecipe, segmenter_card
from training.stages import SCHEMAS, Stage, fingerprint, prepare
from training.watching import UNWATCHED, LogLines, TensorBoard, Watcher, Watchers

TRAININGS = (
    ("classifier", "a downstream classifier, from one folder a class"),
    ("feature-net", "the network whose features SSP attacks, from one folder a class"),
    ("purifier", "the purifier, from unlabelled photos"),
    ("perturber", "a generator that fools a classifier in one pass (CDA), from unlabelled photos"),
    ("segmenter", "a segmenter of road scenes, from CamVid's folder"),
    ("detector", "a detector of blood cells, from BCCD's folder"),
)


def configure_train(parser: argparse.ArgumentParser) -> None:
    """Add the sub-verbs."""
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    own = {"perturber": run_perturber, "segmenter": run_segmenter, "detector": run_detector}
    for kind, summary in TRAININGS:
        _configure_kind(
            kinds.add_parser(kind, help=summary, description=f"Train {summary}."), kind, own.get(kind, run_stage)
        )
    configure_around(kinds)


def _configure_kind(parser: argparse.ArgumentParser, kind: str, run: Callable[[argparse.Namespace], int]) -> None:
    photos = "folders of photos, or one packed file" if kind in (*SCHEMAS, "perturber") else "folder of the data set"
    parser.add_argument("data", nargs="+", type=Path, metavar="DIR", help=photos)
    parser.add_argument(
        "--recipe", default=kind, help="a .toml file or the name of a shipped recipe (default: %(default)s)"
    )
    parser.add_argument("--run", type=Path, help="folder of checkpoints to start or resume (default: runs/NAME)")
    configure_publishing(parser)
    parser.add_argument("--name", help="publish under this name instead of the recipe's")
    parser.add_argument("--seed", type=int, help="use this seed instead of the recipe's")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--stop-at", type=int, help="stop after this step, saved, and publish nothing")
    parser.add_argument("--minutes", type=float, help="stop cleanly after this long, saved, and publish nothing yet")
    parser.add_argument("--tensorboard", action="store_true", help="write event files under RUN/tensorboard")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    parser.add_argument("--log-every", type=float, metavar="S", help="a line about every S seconds, for log files")
    if kind == "purifier":
        parser.add_argument(
            "--publish-best", action="store_true", help="train no further: publish the best of the run as it stands"
        )
        parser.add_argument(
            "--feature-network", metavar="NAME", help=f"a feature network in the store, or {OFFICIAL} (downloaded)"
        )
    if kind == "perturber":
        parser.add_argument("--surrogate", metavar="NAME", help="attack this classifier instead of the recipe's")
    parser.set_defaults(run_kind=run)


def run_train(arguments: argparse.Namespace) -> int:
    """Run the chosen sub-verb. Told to end by SIGTERM, a training saves first, as it does on Ctrl-C."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if getattr(arguments, "minutes", None) is not None:
        arguments.deadline = time.monotonic() + 60 * arguments.minutes
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
    recipe = dataclasses.replace(recipe, **{key: value for key, value in wanted.items() if value is not None})
    if recipe.name in ModelStore(arguments.store).names() and not arguments.replace and arguments.stop_at is None:
        raise ModelExistsError(f"{recipe.name!r} is already published in {arguments.store}; pass --replace or --name")
    return recipe


def run_folder(arguments: argparse.Namespace, name: str) -> Path:
    """The run folder asked for, or runs/NAME."""
    return arguments.run if arguments.run is not None else Path("runs") / name


def watcher_of(arguments: argparse.Namespace, run: Run, total: int) -> Watcher:
    """TensorBoard and log lines where they are asked for, of the leader."""
    watchers: list[Watcher] = []
    if arguments.tensorboard and run.workers.leads:
        watchers.append(TensorBoard(run.folder, begin=run.load()[0]))
    if arguments.log_every and run.workers.leads:
        watchers.append(LogLines(arguments.log_every, total))
    return Watchers(*watchers) if watchers else UNWATCHED


def finish(
    arguments: argparse.Namespace,
    work: Trainable,
    run: Run,
    card: Callable[[], tuple[Card, nn.Module]],
    *,
    prepared: float = 0.0,
    validation: Validation | None = None,
) -> int:
    """Train to the end and publish; stopping early publishes nothing. ``prepared`` seconds preceded the first step."""
    watcher = watcher_of(arguments, run, work.total)
    deadline = getattr(arguments, "deadline", None)
    try:
        ended = train(
            work,
            run,
            stop_at=arguments.stop_at,
            deadline=deadline,
            validation=validation,
            watcher=watcher,
            quiet=arguments.quiet,
        )
    finally:
        watcher.close()
    if not run.workers.leads:
        return 0
    if not ended:
        print(f"stopped early; run the same command again to go on ({run.path})")
        return 0
    made, module = card()
    price = cost(prepared + run.load()[1], device_named(arguments.device), run.workers.world)
    priced = made.model_copy(update={"training_cost": price})
    published = publish(ModelStore(arguments.store), priced, module, replace=arguments.replace)
    print(f"published {published.name} in {arguments.store} (sha256 {published.sha256[:12]})")
    return 0


def run_stage(arguments: argparse.Namespace) -> int:
    """``nrp train classifier``, ``feature-net`` and ``purifier``; under torchrun, each worker does its share."""
    recipe: Recipe = chosen_recipe(arguments, SCHEMAS[arguments.kind])
    device = own_device(device_named(arguments.device))
    workers = Workers.from_environment(device)
    try:
        folder, quiet = run_folder(arguments, recipe.name), arguments.quiet or not workers.leads
        place = Place(device, folder, workers, quiet, getattr(arguments, "deadline", None))
        stage = prepare(recipe, arguments.data, stored(ModelStore(arguments.store)), place)
        if getattr(arguments, "publish_best", False):
            return publish_best(arguments, stage)
        return finish(
            arguments,
            stage.work,
            stage.run,
            lambda: (stage_card(arguments.kind, stage), stage.result()),
            prepared=stage.prepared,
            validation=stage.validation,
        )
    except OutOfTimeError as late:
        if workers.leads:
            print(late)
        return 0
    finally:
        workers.close()


def publish_best(arguments: argparse.Namespace, stage: Stage) -> int:
    """Publish the best of a run that may go on later. Raises RunError where nothing was saved yet."""
    step, seconds, state = stage.run.load()
    if state is None:
        raise RunError(f"{stage.run.folder} holds no checkpoint yet; train first, without --publish-best")
    stage.work.restore(state["work"])
    if stage.validation is not None:
        stage.validation.restore(state["validation"])
    price = cost(stage.prepared + seconds, device_named(arguments.device), stage.run.workers.world)
    card = stage_card(arguments.kind, stage)
    made = card.model_copy(update={"training_cost": price, "recipe": {**card.recipe, "steps_done": step}})
    published = publish(ModelStore(arguments.store), made, stage.result(), replace=arguments.replace)
    print(
        f"published {published.name}, the best of {step} of {stage.work.total} steps, in {arguments.store} "
        f"(sha256 {published.sha256[:12]})"
    )
    return 0


def alone(arguments: argparse.Namespace) -> torch.device:
    """The device of a kind that one worker trains. Raises RunError under torchrun."""
    require_one_worker(arguments.kind)
    return device_named(arguments.device)


def run_perturber(arguments: argparse.Namespace) -> int:
    """``nrp train perturber``."""
    recipe = chosen_recipe(arguments, PerturberRecipe)
    surrogate = load_surrogate(recipe.surrogate, ModelStore(arguments.store))
    photos = decode(open_photos(arguments.data), recipe.side, quiet=arguments.quiet)
    work = PerturberTraining(recipe, photos, surrogate, alone(arguments))
    depends = fingerprint(recipe, photos.fingerprint, surrogate.identity)
    run = Run(run_folder(arguments, recipe.name), depends, recipe.save_every)
    return finish(arguments, work, run, lambda: (perturber_card(work), work.module))


def run_segmenter(arguments: argparse.Namespace) -> int:
    """``nrp train segmenter``."""
    if len(arguments.data) > 1:
        raise DataError("a segmenter is trained on one folder; give CamVid's, which holds train, val and test")
    recipe = chosen_recipe(arguments, SegmenterRecipe)
    scenes = read_camvid(arguments.data[0], "train", recipe.size)
    work = SegmentationTraining(recipe, scenes, alone(arguments))
    run = Run(run_folder(arguments, recipe.name), fingerprint(recipe, scenes.digest), recipe.save_every)
    return finish(arguments, work, run, lambda: (segmenter_card(recipe, scenes), work.module))


def run_detector(arguments: argparse.Namespace) -> int:
    """``nrp train detector``."""
    recipe = chosen_recipe(arguments, DetectorRecipe)
    if len(arguments.data) > 1:
        raise DataError("a detector is trained on one folder; give BCCD's folder alone")
    store = ModelStore(arguments.store)
    examples = read_bccd(arguments.data[0], recipe.split, recipe.size)
    work = DetectionTraining(recipe, examples, store, alone(arguments))
    origin = store.card(recipe.pretrained).sha256 if recipe.pretrained else ""
    run = Run(run_folder(arguments, recipe.name), fingerprint(recipe, examples.digest, origin), recipe.save_every)
    return finish(arguments, work, run, lambda: (detector_card(recipe, examples, store), work.average))
