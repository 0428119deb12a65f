"""`nrp attack`: photos attacked with a model, written as PNGs, and what the model says of them before and after."""

from __future__ import annotations

import argparse
import difflib
import io
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from model_store.devices import device_named
from model_store.inference import seeded
from model_store.pixels import bytes_to_image, image_to_bytes
from model_store.store import SHIPPED, ModelStore
from robustness.attacks.attack import Attack
from robustness.attacks.registry import ATTACKS
from robustness.attacks.scattering import FSA
from robustness.datasets.photos import open_photo
from robustness.errors import AttackError, EvaluationError, VictimError
from robustness.options import whole
from robustness.photo_attack import (
    Source,
    Target,
    attack_named,
    attack_photo,
    check_budget,
    is_classifier,
    load_source,
    load_target,
)
from robustness.progress import Progress
from robustness.seeds import derive_seed

SUFFIX = "-adversarial.png"


@dataclass(frozen=True)
class Said:
    """One answer of a model: a class, and the probability it gives it."""

    index: int
    label: str
    probability: float


@dataclass(frozen=True)
class Outcome:
    """What became of one photo. ``truth`` is the class attacked, ``largest_change`` in /255."""

    file: str
    output: str
    truth: str
    before: Said
    after: Said
    aim: str | None
    fooled: bool
    largest_change: int


def configure_attack(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    add = parser.add_argument
    add("inputs", type=Path, nargs="+", metavar="IMAGE", help="image files; each becomes DIR/NAME-adversarial.png")
    add("--model", required=True, metavar="NAME", help="the classifier to fool: of the store, torchvision:, timm:")
    add("--attack", default="PGD-50", metavar="NAME", help=f"one of: {', '.join(ATTACKS)} (default PGD-50)")
    add("--eps", type=_budget, default=8, metavar="E", help="largest change of a value, in /255 (default 8)")
    add("--steps", type=whole(1), metavar="N", help="iterations, of Square queries (default: the attack's own)")
    add("--targeted", metavar="LABEL", help="the class to be taken for, by name or number from 0 (PGD)")
    add("--label", metavar="LABEL", help="the true class, by name or number from 0 (default: what the model says)")
    add(
        "--surrogate",
        metavar="NAME",
        help="network to differentiate in the model's place, such as vgg16-hed or NAME:LAYER; several: A,B:LAYER",
    )
    add(
        "--output",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder for the PNGs; a file that is there is replaced",
    )
    add("--seed", type=whole(0), default=0, help="seed of everything random (default 0)")
    add("--json", action="store_true", help="print the result as JSON instead of a table")
    add("--store", type=Path, default=SHIPPED, metavar="DIR", help="the model store (default: the shipped one)")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to compute")


def run_attack(args: argparse.Namespace) -> int:
    """Attack the photos, write the PNGs and say what the model makes of them. Returns 0; raises NrpError.

    Every photo is read before the first is attacked. A photo that the attack does not fool is written all the same.
    """
    store, device = ModelStore(args.store), device_named(args.device)
    attack = attack_named(args.attack, args.eps, steps=args.steps, targeted=args.targeted is not None)
    outputs = plan_outputs(args.inputs, args.output)
    photos = [image_to_bytes(open_photo(path)) for path in args.inputs]
    target = load_target(store, args.model, device)
    if isinstance(attack, FSA) and args.surrogate is not None and not is_classifier(store, args.surrogate):
        attack = replace(attack, space="features")
    source = load_source(store, target, args.surrogate, attack, device)
    truth, aim = (None if each is None else class_named(each, target) for each in (args.label, args.targeted))
    run = _Run(target, source, attack, device, args.seed)
    outcomes = []
    progress = Progress(quiet=args.json)
    progress.plan(1)
    progress.begin(f"{attack.name}, eps {attack.eps:g}/255 on {source.name}")
    with progress.bar(len(photos)) as bar:
        for path, output, pixels in zip(args.inputs, outputs, photos, strict=True):
            outcomes.append(run.make(path, output, pixels, truth, aim))
            bar.update()
    sys.stdout.write((_as_json(args, attack, outcomes) if args.json else _as_table(attack, target, outcomes)) + "\n")
    return 0


@dataclass(frozen=True)
class _Run:
    """What is the same for every photo."""

    target: Target
    source: Source
    attack: Attack
    device: torch.device
    seed: int

    def make(self, path: Path, output: Path, pixels: Tensor, truth: int | None, aim: int | None) -> Outcome:
        """Attack one photo and write it."""
        before = self._say(pixels)
        label = before.index if truth is None else truth
        if aim == label:
            raise AttackError(f"{path} shows {self.target.labels[label]} already; aim at another class with --targeted")
        known = self.source.knowledge(self._class(label), None if aim is None else self._class(aim))
        generator = seeded(derive_seed(self.seed, "photo", self.attack.name, path.name))
        found = attack_photo(pixels, self.attack, known, generator, self.device)
        written = write_png(output, found)
        largest = check_budget(written, pixels, self.attack)
        after = self._say(written)
        fooled = after.index != label if aim is None else after.index == aim
        names = self.target.labels
        aimed = None if aim is None else names[aim]
        return Outcome(str(path), str(output), names[label], before, after, aimed, fooled, largest)

    def _class(self, number: int) -> Tensor:
        return torch.tensor([number], device=self.device)

    def _say(self, pixels: Tensor) -> Said:
        values = self.target.probabilities(pixels, self.device)
        best = int(values.argmax())
        return Said(best, self.target.labels[best], round(float(values[best]), 4))


def plan_outputs(inputs: Sequence[Path], folder: Path) -> list[Path]:
    """The PNG of each input. Raises AttackError where two would be one file, or one is an input itself."""
    outputs = [folder / f"{path.stem}{SUFFIX}" for path in inputs]
    taken: dict[Path, Path] = {}
    sources = {path.resolve() for path in inputs}
    for path, output in zip(inputs, outputs, strict=True):
        if output.resolve() in sources:
            raise AttackError(f"{output} is an input and would be overwritten; choose another --output")
        if output in taken:
            raise AttackError(
                f"{taken[output]} and {path} would both become {output}; attack them into separate folders"
            )
        taken[output] = path
    return outputs


def class_named(text: str, target: Target) -> int:
    """The number of a class by its name, in any case, or by that number. Raises VictimError."""
    if text.isdecimal():
        if int(text) < len(target.labels):
            return int(text)
        raise VictimError(f"{target.name} has no class {text}; give 0 to {len(target.labels) - 1}, or a name")
    named = [place for place, label in enumerate(target.labels) if label.casefold() == text.casefold()]
    if len(named) > 1:
        raise VictimError(f"{target.name} has several classes {text!r}; give one of the numbers {_listed(named)}")
    if not named:
        near = difflib.get_close_matches(text.casefold(), [label.casefold() for label in target.labels], 3)
        advice = f"did you mean {' or '.join(near)}?" if near else f"`nrp models show {target.name}` lists its labels"
        raise VictimError(f"{target.name} has no class {text!r}; {advice}")
    return named[0]


def write_png(path: Path, pixels: Tensor) -> Tensor:
    """Write uint8 (3, H, W) as a PNG, whole or not at all; what the file holds, read back. Raises EvaluationError."""
    data = io.BytesIO()
    bytes_to_image(pixels).save(data, "PNG", optimize=True)
    scratch = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_bytes(data.getvalue())
        with Image.open(scratch) as image:
            kept = image_to_bytes(image)
        scratch.replace(path)
    except OSError as error:
        with suppress(OSError):
            scratch.unlink()
        raise EvaluationError(f"{path} cannot be written ({error.strerror}); choose another --output") from error
    return kept


def _budget(text: str) -> int:
    found = whole(1)(text)
    if found > 255:
        raise argparse.ArgumentTypeError("a budget lies between 1 and 255")
    return found


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(str(number) for number in numbers)


def _as_json(args: argparse.Namespace, attack: Attack, outcomes: Sequence[Outcome]) -> str:
    facts: Mapping[str, object] = {
        "model": args.model,
        "attack": attack.name,
        "eps": args.eps,
        "surrogate": args.surrogate,
        "seed": args.seed,
        "images": [asdict(outcome) for outcome in outcomes],
    }
    return json.dumps(facts, indent=2)


def _as_table(attack: Attack, target: Target, outcomes: Sequence[Outcome]) -> str:
    heads = ("photo", f"{target.name} before", "after", "fooled", "change", "written")
    rows = [
        (
            outcome.file,
            *(f"{said.label} {said.probability:.1%}" for said in (outcome.before, outcome.after)),
            "yes" if outcome.fooled else "no",
            f"{outcome.largest_change}/255",
            outcome.output,
        )
        for outcome in outcomes
    ]
    widths = [max(len(row[column]) for row in (heads, *rows)) for column in range(len(heads))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in (heads, *rows)
    ]
    return "\n".join((f"{attack.name}, {attack.eps:g}/255", *lines))
