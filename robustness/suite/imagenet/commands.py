"""`nrp evaluate --suite imagenet` from its options to its page."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from dataclasses import replace
from pathlib import Path

from model_store.devices import computes_in_bfloat16, device_named
from model_store.store import ModelStore
from robustness.certified import with_figures
from robustness.conditions import Conditions
from robustness.errors import EvaluationError
from robustness.progress import Progress
from robustness.results.files import read_lines
from robustness.results.judged import judged_figures
from robustness.results.real_networks import SUITE
from robustness.suite.imagenet.assembly import TASKS, Entry, assemble, with_data
from robustness.suite.imagenet.jobs import Journal
from robustness.suite.imagenet.plan import FEWEST, plan_for
from robustness.suite.imagenet.run import run_sections
from robustness.suite.imagenet.sections import chosen, refuse_mixture

VICTIMS = ("efficientnet-lite1", "squeezenet", "camvid-segnet", "fastestdet")
SEEN = ("efficientnet-lite0",)
PURIFIERS = ("nrp-fast", "nrp-strong")
SURROGATE = "vgg16-hed"
DEFAULT_FRACTION = 0.25


def run_imagenet(args: argparse.Namespace) -> int:
    """Measure the sections, write rows and page, and say where they are. Raises NrpError."""
    sections = _sections(args)
    output = args.output or Path("runs") / "evaluate" / SUITE
    results = _results(args, output)
    device = device_named(args.device)
    if args.precision == "auto":  # settled here, so that the command shown gives these figures on any hardware
        args.precision = "bfloat16" if computes_in_bfloat16(device) else "float32"
    conditions = Conditions(args.seed, args.batch, device, "float32", args.precision)
    plan = plan_for(args.limit, args.aware_limit, args.scene_limit)
    progress = Progress(quiet=not sys.stderr.isatty())  # a log of hours needs no bars
    store = ModelStore(args.store)
    deadline = None if args.minutes is None else time.monotonic() + 60 * args.minutes
    contest = replace(assemble(_entry(args, sections, output), plan, store, conditions, progress), deadline=deadline)
    path = results / f"{SUITE}.jsonl"
    refuse_mixture(path, sections, contest)
    journal = Journal(lambda line: print(line, flush=True), deadline=deadline)
    page = run_sections(contest, sections, results, journal, progress)
    print(f"{path} and {page} written")
    if args.write_card:
        for name in args.purifier:
            figures = judged_figures(read_lines(path), name)
            store.rewrite_card(with_figures(store.card(name), figures))
            print(f"{len(figures)} figures written to the card of {name}")
    for warning in contest.session.warnings:
        print(f"WARNING: {warning}")
    return 0


def _sections(args: argparse.Namespace) -> tuple[str, ...]:
    """The sections asked for; of all, those that there is data for."""
    if not args.data:
        raise EvaluationError("give --data with the folders of test data, such as --data nips17 --data camvid")
    if args.card or args.modes or args.selection_fraction != DEFAULT_FRACTION:
        raise EvaluationError("--card, --modes and --selection-fraction are of --suite quick; leave them out")
    args.model = args.model or VICTIMS
    args.purifier = args.purifier or PURIFIERS
    args.surrogate = args.surrogate or SURROGATE
    return with_data(chosen(args.section), args.data, every=not args.section)


def _results(args: argparse.Namespace, output: Path) -> Path:
    """Where the page goes: that of a rehearsal not among those to keep, unless it is said where."""
    if args.results is not None:
        return Path(args.results)
    rehearsal = args.limit is not None and args.limit < FEWEST
    return output / "results" if rehearsal else Path("docs") / "results"


def _entry(args: argparse.Namespace, sections: tuple[str, ...], output: Path) -> Entry:
    tasks = frozenset().union(*(TASKS[name] for name in sections))
    return Entry(
        args.model,
        args.seen,
        args.purifier,
        args.surrogate,
        tuple(args.data),
        tasks,
        output,
        _command(args),
    )


def _command(args: argparse.Namespace) -> str:
    """The command that gives these rows again: no absolute path, nothing that changes no figure."""
    words = ["nrp", "evaluate", "--suite", SUITE, "--purifier", ",".join(args.purifier)]
    for option, usual in (("model", VICTIMS), ("seen", SEEN), ("section", ())):
        value = getattr(args, option)
        words += [f"--{option}", ",".join(value)] if value != usual else []
    words += ["--surrogate", args.surrogate] if args.surrogate != SURROGATE else []
    for root in args.data:
        words += ["--data", (Path(root.name) if root.is_absolute() else root).as_posix()]
    for option in ("limit", "aware_limit", "scene_limit"):
        value = getattr(args, option)
        words += [f"--{option.replace('_', '-')}", str(value)] if value is not None else []
    words += ["--seed", str(args.seed)] if args.seed else []
    words += ["--batch", str(args.batch), "--precision", args.precision]
    return shlex.join(words)
