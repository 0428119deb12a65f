"""The workbench: the options that every measurement of one model shares, the bench they make, and what it leaves."""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import torch

from model_store.store import SHIPPED
from robustness.cache import Cache
from robustness.conditions import Conditions, Precision
from robustness.errors import EvaluationError
from robustness.judgement import Bench
from robustness.options import fraction, whole
from robustness.progress import Progress
from robustness.victims.loading import Selection, read_examples
from robustness.victims.victim import Victim

# The options that change a figure: shown in the canonical command where they differ from these.
COMMON_DEFAULTS: Mapping[str, object] = MappingProxyType(
    {"limit": None, "selection_fraction": 0.0, "part": "rest", "seed": 0, "batch": 64, "precision": "float32"}
)


def configure_workbench(
    parser: argparse.ArgumentParser, *, card: str = "replace the card's figures with those"
) -> None:
    """Add the options; ``card`` says what --write-card does with the figures measured."""
    add = parser.add_argument
    add("--data", type=Path, required=True, metavar="DIR", help="photos, one folder a class (WordNet ids)")
    add("--limit", type=whole(1), metavar="N", help="take N photos, equal numbers a class, chosen by the seed")
    add("--selection-fraction", type=fraction, metavar="F", help="share of each class that choices were made on")
    add("--part", choices=("rest", "selection"), help="measure the rest (default) or that share")
    add("--seed", type=whole(0), help="seed of everything random (default 0)")
    add("--precision", choices=("float32", "bfloat16"), help="what purifier and victims are judged in")
    add("--batch", type=whole(1), metavar="N", help="image copies in flight (default 64)")
    add("--write-card", action="store_true", help=f"{card} measured")
    add("--json", action="store_true", help="print the result as JSON instead of tables")
    add("--output", type=Path, metavar="DIR", help="where the result goes as JSON (default runs/evaluate/NAME)")
    add("--cache", type=Path, metavar="DIR", help="adversaries and predictions, to resume (default OUTPUT/cache)")
    add("--store", type=Path, default=SHIPPED, metavar="DIR", help="the model store (default: the shipped one)")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to compute")
    parser.set_defaults(**COMMON_DEFAULTS)


def workbench(args: argparse.Namespace, victims: tuple[Victim, ...], device: torch.device, progress: Progress) -> Bench:
    """The photos for ``victims``, under the conditions asked for. Raises what reading raises."""
    progress.begin("photos")
    selection = Selection(args.limit, args.selection_fraction, args.part, args.seed)
    photos = read_examples(args.data, victims, selection, progress)
    attack_precision: Precision = getattr(args, "attack_precision", "float32")
    conditions = Conditions(args.seed, args.batch, device, attack_precision, args.precision)
    return Bench(photos, conditions, Cache(args.cache or output_folder(args) / "cache"), progress)


def output_folder(args: argparse.Namespace) -> Path:
    """Where results go."""
    folder: Path = args.output or Path("runs") / "evaluate" / args.name
    return folder


def canonical(words: Sequence[str], args: argparse.Namespace, defaults: Mapping[str, object]) -> str:
    """``words`` and the options that differ from ``defaults``, as one command line."""
    found = list(words)
    for option, default in defaults.items():
        value = getattr(args, option)
        if value != default:
            shown = ",".join(map(str, value)) if isinstance(value, tuple) else f"{value}"
            found += [f"--{option.replace('_', '-')}", shown]
    return shlex.join(found)


def portable(path: Path) -> str:
    """A path as a command that others run may name it: of an absolute one the last part."""
    return (path if not path.is_absolute() else Path(path.name)).as_posix()


def write_result(path: Path, result: Mapping[str, object]) -> None:
    """Write a result as JSON, whole or not at all. Raises EvaluationError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_name(f".{path.name}.new")
        scratch.write_text(json.dumps(result, indent=2, allow_nan=False) + "\n")
        scratch.replace(path)
    except OSError as error:
        raise EvaluationError(f"{path} cannot be written: {error.strerror}; give another --output") from error
