"""What is left of purifiers whose attackers know them: ``python -m training.gpu.aware FOLDER --rows ROWS.jsonl``.

The protocol is that of ``robustness.aware``, harder than two cores allow: 200 steps of 20 draws. It is made on a few
photos first, then on more, as long as there is time: each row states how many it stands on, and takes the place of an
earlier one of fewer. Black-box search is left to the suite: a query of it uses next to nothing of a GPU.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from model_store.devices import device_named, place
from model_store.errors import NrpError
from model_store.folding import fold_batch_norms
from robustness.aware.defended import Arithmetic, Defended, Mode
from robustness.aware.figure import Figure
from robustness.aware.judging import VOTE
from robustness.aware.material import Material
from robustness.aware.plan import GPU_PLAN, AwarePlan
from robustness.aware.protocol import CURVE, KNOWN, measure
from robustness.cache import Cache
from robustness.errors import OutOfTimeError
from robustness.examples import Examples
from robustness.progress import Progress
from training.errors import DataError
from training.finished import is_finished, read_finished
from training.gpu.folder import Folder, read_facts
from training.gpu.stamp import Stamp
from training.packing import PackedPhotos
from training.photos import decode
from training.plan import read_plan, unbundle
from training.purifier_recipe import PurifierRecipe
from training.stages import Network
from training.validation import Mode as RecipeMode

LEVELS = (32, 64, 128, 256, 512)  # multiples of the plan's batch, whose results a larger level takes over
TOY_LEVELS = (2, 4)
TOY_SIDE = 112  # at which the victims still recognise something that can then be attacked
SHOWN = frozenset({VOTE, CURVE, KNOWN})  # all are written
BF16 = Arithmetic("bfloat16", "bfloat16")
TOY_PLAN = AwarePlan(
    steps=2, eot=2, decisions=2, few=2, eot_curve=(1, 2), square_photos=0, batch=2, chunk=4, unbounded_eps=32
)


@dataclass(frozen=True)
class Purifier:
    """A purifier in one mode; ``name`` as tables have it, ``weights`` its sha256."""

    name: str
    mode: Mode
    weights: str
    module: nn.Module


@dataclass(frozen=True)
class Bench:
    """What is measured with, and where rows go."""

    material: Material
    plan: AwarePlan
    levels: tuple[int, ...]
    stamp: Stamp
    rows: Path
    data: str


def main(argv: Sequence[str] | None = None) -> int:
    """Measure while there is time; 0 also where that was not enough for all."""
    parser = argparse.ArgumentParser(prog="python -m training.gpu.aware", description="Attack purifiers, aware.")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="what `make gpu-pack` wrote")
    parser.add_argument("--finished", type=Path, metavar="DIR", help="a purifier trained here, measured first")
    parser.add_argument("--rows", type=Path, required=True, metavar="ROWS.jsonl", help="rows are appended")
    parser.add_argument("--cache", type=Path, required=True, metavar="DIR", help="where a later call goes on from")
    parser.add_argument("--minutes", type=float, default=2.0, help="begin nothing after this long (default: 2)")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--toy", action="store_true", help="sizes at which everything is only rehearsed")
    given = parser.parse_args(argv)
    deadline = time.monotonic() + 60 * given.minutes
    folder = Folder(given.folder)
    try:
        device = device_named(given.device)
        facts = read_facts(folder.judge)
        stamp = Stamp.of(device, folder.facts()["code_revision"])
        examples = read_judged(folder, facts, side=TOY_SIDE if given.toy else None)
        material = Material(examples, Cache(given.cache), Progress(quiet=True), device, deadline=deadline)
        plan = TOY_PLAN if given.toy else replace(GPU_PLAN, few=16, square_photos=0, batch=32)
        plan = plan if device.type == "cpu" else replace(plan, attacked=BF16)
        bench = Bench(material, plan, TOY_LEVELS if given.toy else LEVELS, stamp, given.rows, facts["data"])
        run(bench, defences(folder, facts, given.finished), victims(folder, facts))
    except OutOfTimeError as late:
        tqdm.write(f"stopped in time: {late}")
    except NrpError as error:
        tqdm.write(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def run(bench: Bench, purifiers: Sequence[Purifier], judges: Mapping[str, Network]) -> None:
    """Every purifier before every victim on a few photos, then on more. Raises OutOfTimeError."""
    available = len(bench.material.examples)
    levels = sorted({min(level, available) for level in bench.levels})
    for level in levels:
        for name, network in judges.items():
            behind = [_defended(purifier, name, network, bench.material.device) for purifier in purifiers]
            for defended in behind:
                others = [other for other in behind if other is not defended]
                _measure(bench, defended, replace(bench.plan, photos=level), others)


def _measure(bench: Bench, defended: Defended, plan: AwarePlan, others: Sequence[Defended]) -> None:
    warnings: list[str] = []
    began = time.monotonic()
    for figure in measure(bench.material, defended, plan, warnings.append, others):
        row = row_of(figure, defended, bench, others) | {"seconds": round(time.monotonic() - began, 2)}
        bench.stamp.append(row, bench.rows)
        if figure.series in SHOWN:
            tqdm.write(_told(figure, defended))
        began = time.monotonic()
    for warning in warnings:
        bench.stamp.append({"kind": "warning", "text": warning}, bench.rows)
        tqdm.write(f"warning: {warning}")


def _told(figure: Figure, defended: Defended) -> str:
    through = f" made through {figure.source}" if figure.source else ""
    return (
        f"{defended.victim} behind {defended.name}, {figure.attack}{through}, eps {figure.eps}: "
        f"{figure.series} {figure.score.percent:.1f} % of {figure.score.count} (clean {figure.clean.percent:.1f})"
    )


def row_of(figure: Figure, defended: Defended, bench: Bench, others: Sequence[Defended]) -> dict[str, Any]:
    """All that ``training.gpu.publish`` makes a row of the suite of."""
    weights = {one.name: one.weights for one in (defended, *others)} | {defended.victim: defended.identity}
    return {
        "kind": "aware",
        "figure": figure.as_json(),
        "victim": defended.victim,
        "defence": defended.name,
        "weights": weights,
        "data": {bench.data: bench.material.examples.digest},
        "attacked in": bench.plan.attacked.classifier,
        "seed": bench.material.seed,
    }


def read_judged(folder: Folder, facts: Mapping[str, Any], side: int | None = None) -> Examples:
    """The photos to judge on, as they were packed, or smaller for a rehearsal. Raises DataError for other ones."""
    source = PackedPhotos(folder.judged)
    photos = decode(source, side or source.side, quiet=True)
    truths = {"labels": photos.labels, "targets": torch.tensor(facts["targets"], dtype=torch.int64)}
    examples = Examples(photos.pixels, truths, tuple(facts["names"]))
    if side is None and examples.digest != facts["digest"]:
        raise DataError(f"{folder.judged} does not hold the photos that {folder.judge.name} names; pack both again")
    return examples


def victims(folder: Folder, facts: Mapping[str, Any]) -> dict[str, Network]:
    """The classifiers that no training has seen."""
    models = unbundle({name: facts["models"][name] for name in facts["victims"]}, folder.judge.parent)
    return {name: replace(network, module=fold_batch_norms(network.module)) for name, network in models.items()}


def defences(folder: Folder, facts: Mapping[str, Any], finished: Path | None) -> list[Purifier]:
    """What was trained here, first, and what it is measured beside."""
    found = []
    if finished is not None and is_finished(finished):
        done = read_finished(finished)
        if not isinstance(done.recipe, PurifierRecipe):
            raise DataError(f"{finished} is no purifier; name the folder of one")
        mode = RecipeMode.default_of(done.recipe)
        modes = Mode(mode.noise_std, mode.draws, mode.ball, mode.jpeg)
        title = f"{done.recipe.name} {done.recipe.default_mode}"
        found.append(Purifier(title, modes, done.identity, done.module))
    planned = read_plan(folder.plan).models if folder.plan.is_file() else {}
    for name, told in facts["purifiers"].items():
        own = name in facts["models"]
        models = unbundle({name: facts["models"][name]}, folder.judge.parent) if own else planned
        if name not in models:
            continue  # it lies in train, which was not carried
        network = models[name]
        found.append(Purifier(f"{name} {told['name']}", Mode(**told["mode"]), network.identity, network.module))
    if not found:
        raise DataError(f"there is no purifier to measure: carry {folder.plan.parent}, or name one with --finished")
    return found


def _defended(purifier: Purifier, name: str, victim: Network, device: torch.device) -> Defended:
    modules = (place(module, device) for module in (purifier.module, victim.module))
    return Defended(purifier.name, name, purifier.mode, purifier.weights, victim.identity, *modules)


if __name__ == "__main__":
    sys.exit(main())
