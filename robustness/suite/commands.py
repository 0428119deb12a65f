"""`nrp evaluate --suite` and `--card`: the measurements that this project publishes, on anyone's models and images."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from model_store.devices import computes_in_bfloat16, device_named
from model_store.store import SHIPPED, ModelStore
from robustness.certified import with_figures
from robustness.conditions import Conditions
from robustness.errors import EvaluationError
from robustness.options import fraction, names, whole
from robustness.progress import Progress
from robustness.results.files import write_lines
from robustness.results.judged import judged_figures
from robustness.results.real_networks import SUITE as IMAGENET
from robustness.suite.assembly import Wanted, assemble
from robustness.suite.imagenet.assembly import TASKS
from robustness.suite.imagenet.commands import SEEN, run_imagenet
from robustness.suite.imagenet.commands import SURROGATE as FEATURES
from robustness.suite.pages import render_card, render_page
from robustness.suite.run import run_suite
from robustness.suite.sizes import SUITES

SURROGATE = "imagenette-vgg-features"
PURIFIERS = ("nrp-fast",)
RESULTS = Path("docs/results")
MODES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"quick": ("default", "static"), "paper": ("default", "static"), "purifier": ("default",)}
)
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
        choices=(IMAGENET, *SUITES),
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
    add("--write-card", action="store_true", help="with --suite purifier: write each purifier's bars into its own card")
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
        help="modes of inference (default default,static; with --suite purifier default)",
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
    add("--selection-fraction", type=fraction, metavar="F", help="share of each class to leave out")
    add("--seed", type=whole(0), help="seed of everything random (default 0)")
    add("--batch", type=whole(1), metavar="N", help="image copies in flight (default 50)")
    add(
        "--precision",
        choices=("auto", "float32", "bfloat16"),
        help="what models are judged in (default auto: bfloat16 where the hardware has it, as the service does)",
    )
    add("--output", type=Path, metavar="DIR", help="rows, pictures and cache (default runs/evaluate/SUITE)")
    add("--results", type=Path, metavar="DIR", help="where rows and page go (default docs/results)")
    add("--store", type=Path, default=SHIPPED, metavar="DIR", help="the model store (default: the shipped one)")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to compute")
    parser.set_defaults(**DEFAULTS)


def run_card_or_suite(args: argparse.Namespace) -> int:
    """Measure, write rows, page and card, and say where they are. Raises EvaluationError for a useless command line."""
    if args.suite == IMAGENET:
        return run_imagenet(args)
    _refuse_useless(args)
    args.purifier = args.purifier or PURIFIERS
    args.surrogate = args.surrogate or SURROGATE
    args.results = args.results or RESULTS
    suite = args.suite or "quick"
    output = args.output or Path("runs") / "evaluate" / suite
    progress = Progress()
    device = device_named(args.device)
    if args.precision == "auto":  # settled here, so that the command shown gives these figures on any hardware
        args.precision = "bfloat16" if computes_in_bfloat16(device) else "float32"
    conditions = Conditions(args.seed, args.batch, device, "float32", args.precision)
    session = assemble(_wanted(args, suite, output), ModelStore(args.store), conditions, output / "cache", progress)
    run_suite(session, progress)
    if args.suite is not None:
        lines = args.results / f"{suite}.jsonl"
        write_lines(session.recorder.rows, lines)
        page = render_page(session, args.results, output / "pictures")
        print(f"{len(session.recorder.rows)} rows in {lines}, shown in {page}; pictures of the data in {output}")
    if args.card:
        print(f"{render_card(session, args.results)} written")
    if args.write_card:
        for name in args.purifier:
            figures = judged_figures(session.recorder.rows, name)
            session.store.rewrite_card(with_figures(session.store.card(name), figures))
            print(f"{len(figures)} figures written to the card of {name}")
    for warning in session.warnings:
        print(f"WARNING: {warning}")
    return 0


def _refuse_useless(args: argparse.Namespace) -> None:
    if args.suite is None and not args.card:
        raise EvaluationError(
            "say what to measure: --suite quick, paper or purifier, --card, or one model alone: nrp evaluate purifier "
            "NAME"
        )
    if not args.data:
        raise EvaluationError("give --data with a folder of test data, such as --data imagenette2-160/val")
    compares = SUITES[args.suite or "quick"].compares
    if args.card and compares:
        raise EvaluationError("a defence card stands on --suite quick or paper; leave out --card, or name one of them")
    if args.write_card and not compares:
        raise EvaluationError("--write-card writes the figures that --suite purifier judges; name that suite")


def _wanted(args: argparse.Namespace, suite: str, output: Path) -> Wanted:
    return Wanted(
        suite=suite,
        models=args.model,
        purifiers=args.purifier,
        modes=args.modes or MODES[suite],
        surrogate=args.surrogate,
        data=tuple(args.data),
        limit=args.limit,
        aware_limit=args.aware_limit,
        scene_limit=args.scene_limit,
        selection_fraction=args.selection_fraction,
        output=output,
        command=_command(args, suite),
    )


def _command(args: argparse.Namespace, suite: str) -> str:
    """The command that gives these rows again: no absolute path, nothing that changes no figure."""
    words = ["nrp", "evaluate", "--suite", suite, "--purifier", ",".join(args.purifier), "--surrogate", args.surrogate]
    words += ["--model", ",".join(args.model)] if args.model else []
    words += ["--modes", ",".join(args.modes)] if args.modes not in (None, MODES[suite]) else []
    for root in args.data:
        words += ["--data", (Path(root.name) if root.is_absolute() else root).as_posix()]
    for option, default in DEFAULTS.items():
        value = getattr(args, option)
        words += [f"--{option.replace('_', '-')}", str(value)] if value != default else []
    return shlex.join(words)
