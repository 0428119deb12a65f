"""`nrp evaluate --suite` and `--card`: the measurements that this project publishes, on anyone's models and images."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from model_store.devices import computes_in_bfloat16, device_named
from model_store.store import SHIPPED, ModelStore
from robustness.conditions import Conditions
from robustness.errors import EvaluationError
from robustness.options import fraction, names, whole
from robustness.progress import Progress
from robustness.results.files import write_lines
from robustness.results.real_networks import SUITE as IMAGENET
from robustness.suite.assembly import SUITE as QUICK
from robustness.suite.assembly import Wanted, assemble
from robustness.suite.imagenet.assembly import TASKS
from robustness.suite.imagenet.commands import SEEN, run_imagenet
from robustness.suite.imagenet.commands import SURROGATE as FEATURES
from robustness.suite.pages import render_card, render_page
from robustness.suite.run import run_suite

SURROGATE = "imagenette-vgg-features"
PURIFIERS = ("nrp-fast",)
MODES = ("default", "static")
# Options that change a figure, shown in the command where they differ from these.
DEFAULTS: Mapping[str, object] = MappingProxyType(
    {
        "limit": None,
        "aware_limit": None,
        "scene_limit": None,
        "selection_fraction": 0.25,
        "seed": 0,
        "batch": 50,
        "precision": "auto",
    }
)


def configure_suite(parser: argparse.ArgumentParser) -> None:
    """Add the options of a suite to `nrp evaluate`."""
    add = parser.add_argument
    add(
        "--suite",
        choices=(IMAGENET, QUICK),
        help="imagenet: real networks, hours of two cores; quick: a smoke test of five minutes",
    )
    add(
        "--section",
        type=names,
        default=(),
        metavar="A,B",
        help=f"of the suite imagenet, only these, in place of their earlier rows: {', '.join(TASKS)}",
    )
    add(
        "--seen",
        type=names,
        default=SEEN,
        metavar="A,B",
        help=f"of the suite imagenet, classifiers that a purifier's training has seen (default {','.join(SEEN)})",
    )
    add("--card", action="store_true", help="write the purifier's defence card, one page, from the suite's rows")
    add("--write-card", action="store_true", help="with --suite imagenet: write each purifier's bars into its own card")
    add("--model", type=names, default=(), metavar="A,B", help="victims of any task (default: all in the store)")
    add(
        "--purifier",
        type=names,
        metavar="A,B",
        help="the purifier to measure, with --suite imagenet several (default nrp-fast; nrp-fast,nrp-strong)",
    )
    add(
        "--modes",
        type=names,
        metavar="M,..",
        help="modes of inference (default default,static; not with --suite imagenet)",
    )
    add(
        "--surrogate",
        metavar="NAME",
        help=f"whose features transfer attacks follow (default {SURROGATE}; with --suite imagenet {FEATURES})",
    )
    add(
        "--data", type=Path, action="append", default=[], metavar="DIR", help="test data, or a folder of it; repeatable"
    )
    add("--limit", type=whole(1), metavar="N", help="photos to classify, instead of the suite's own number")
    add("--aware-limit", type=whole(1), metavar="N", help="photos for attackers who know the purifier, at most --limit")
    add("--scene-limit", type=whole(1), metavar="N", help="scenes to segment and to detect in")
    _configure_conditions(parser)
    parser.set_defaults(**DEFAULTS)


def _configure_conditions(parser: argparse.ArgumentParser) -> None:
    """Add what figures depend on beside networks and photos, and where they go."""
    add = parser.add_argument
    add("--minutes", type=float, metavar="M", help="with --suite imagenet: stop after this long, to go on from there")
    add("--selection-fraction", type=fraction, metavar="F", help="share of each class to leave out")
    add("--seed", type=whole(0), help="seed of everything random (default 0)")
    add("--batch", type=whole(1), metavar="N", help="image copies in flight (default 50)")
    add(
        "--precision",
        choices=("auto", "float32", "bfloat16"),
        help="what models are judged in (default auto: bfloat16 where the hardware has it, as the service does)",
    )
    add("--output", type=Path, metavar="DIR", help="rows, pictures and cache (default runs/evaluate/SUITE)")
    add(
        "--results",
        type=Path,
        metavar="DIR",
        help="where rows and page go (default of imagenet: docs/results; of quick and few photos: OUTPUT/results)",
    )
    add("--store", type=Path, default=SHIPPED, metavar="DIR", help="the model store (default: the shipped one)")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to compute")


def run_card_or_suite(args: argparse.Namespace) -> int:
    """Measure, write rows, page and card, and say where they are. Raises EvaluationError for a useless command line."""
    if args.suite == IMAGENET:
        return run_imagenet(args)
    _refuse_useless(args)
    args.purifier = args.purifier or PURIFIERS
    args.surrogate = args.surrogate or SURROGATE
    output = args.output or Path("runs") / "evaluate" / QUICK
    # A smoke test's figures are not to be published, unless it is said where.
    args.results = args.results or output / "results"
    progress = Progress()
    device = device_named(args.device)
    if args.precision == "auto":  # settled here, so that the command shown gives these figures on any hardware
        args.precision = "bfloat16" if computes_in_bfloat16(device) else "float32"
    conditions = Conditions(args.seed, args.batch, device, "float32", args.precision)
    session = assemble(_wanted(args, output), ModelStore(args.store), conditions, output / "cache", progress)
    run_suite(session, progress)
    if args.suite is not None:
        lines = args.results / f"{QUICK}.jsonl"
        write_lines(session.recorder.rows, lines)
        page = render_page(session, args.results, output / "pictures")
        print(f"{len(session.recorder.rows)} rows in {lines}, shown in {page}; pictures of the data in {output}")
    if args.card:
        print(f"{render_card(session, args.results)} written")
    for warning in session.warnings:
        print(f"WARNING: {warning}")
    return 0


def _refuse_useless(args: argparse.Namespace) -> None:
    if args.suite is None and not args.card:
        raise EvaluationError(
            "say what to measure: --suite imagenet or quick, --card, or one model alone: nrp evaluate purifier NAME"
        )
    if not args.data:
        raise EvaluationError("give --data with a folder of test data, such as --data imagenette2-160/val")
    if args.write_card:
        raise EvaluationError("--write-card writes the figures that --suite imagenet judges; name that suite")
    if args.section:
        raise EvaluationError("--section names parts of --suite imagenet; name that suite")


def _wanted(args: argparse.Namespace, output: Path) -> Wanted:
    return Wanted(
        models=args.model,
        purifiers=args.purifier,
        modes=args.modes or MODES,
        surrogate=args.surrogate,
        data=tuple(args.data),
        limit=args.limit,
        aware_limit=args.aware_limit,
        scene_limit=args.scene_limit,
        selection_fraction=args.selection_fraction,
        output=output,
        command=_command(args),
    )


def _command(args: argparse.Namespace) -> str:
    """The command that gives these rows again: no absolute path, nothing that changes no figure."""
    words = ["nrp", "evaluate", "--suite", QUICK, "--purifier", ",".join(args.purifier), "--surrogate", args.surrogate]
    words += ["--model", ",".join(args.model)] if args.model else []
    words += ["--modes", ",".join(args.modes)] if args.modes not in (None, MODES) else []
    for root in args.data:
        words += ["--data", (Path(root.name) if root.is_absolute() else root).as_posix()]
    for option, default in DEFAULTS.items():
        value = getattr(args, option)
        words += [f"--{option.replace('_', '-')}", str(value)] if value != default else []
    return shlex.join(words)
