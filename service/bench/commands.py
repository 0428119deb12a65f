"""``nrp bench``."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

import torch

from model_store.card import Card
from model_store.store import SHIPPED, ModelStore
from service.bench.bars import SOAK_REQUESTS, verdicts
from service.bench.conductor import PARTS, Plan, conduct
from service.bench.machine import hardware, has_bfloat16, versions
from service.bench.page import page
from service.bench.plots import new_figure, plot_all
from service.bench.rows import Report, Run, read_report, write_report, write_whole
from service.bench.schedule import phases
from service.bench.servers import ARMS, OURS
from service.bench.task import Task, cores
from service.device import choose_purifier
from service.settings import Settings

Number = TypeVar("Number", int, float)

ROWS, PAGE, PLOTS = "serving.jsonl", "serving.md", "plots"
# What --quick stands for where an option does not say otherwise: it shows that all runs, and measures nothing well.
FULL: Mapping[str, object] = MappingProxyType(
    {
        "minutes": 25.0,
        "rounds": 2,
        "clients": (1, 8, 32, 128),
        "loads": (50, 80, 120, 200),
        "soak": SOAK_REQUESTS,
        "arms": tuple(ARMS),
        "side": 224,
        "output": Path("docs/results"),
    }
)
QUICK: Mapping[str, object] = MappingProxyType(
    {
        "minutes": 1.0,
        "rounds": 1,
        "clients": (1, 8),
        "loads": (80, 200),
        "soak": 600,
        "arms": (OURS, "fastapi"),
        "side": 64,
        "output": Path("out/bench"),
    }
)


def configure_bench(parser: argparse.ArgumentParser) -> None:
    """Options of ``nrp bench``."""
    add = parser.add_argument
    add("--quick", action="store_true", help="a minute at small sizes into out/bench: shows that all runs, no more")
    add("--arms", type=_named(ARMS), metavar="A,B", help=f"servers to measure, of {','.join(ARMS)} (default: all)")
    add("--parts", type=_named(PARTS), default=PARTS, metavar="P,..", help=f"of {','.join(PARTS)} (default: all)")
    add("--minutes", type=_above_zero(float), metavar="M", help="time for all of it (default 25)")
    add("--rounds", type=_above_zero(int), metavar="N", help="times that each arm has its turn (default 2)")
    add("--clients", type=_levels, metavar="N,..", help="clients of the closed loops (default 1,8,32,128)")
    add("--loads", type=_levels, metavar="P,..", help="offered loads, %% of capacity (default 50,80,120,200)")
    add("--soak", type=_above_zero(int), metavar="N", help=f"requests of the soak (default {SOAK_REQUESTS})")
    add("--side", type=_side, metavar="N", help="pixels a side of the image (default 224)")
    add("--purifier", metavar="NAME", help="purifier in the store (default: the service's)")
    add("--mode", default="static", metavar="NAME", help="inference mode (default static: one run of the network)")
    add("--device", choices=("cpu", "cuda"), default="cpu", help="where the models run (default cpu)")
    add("--threads", type=int, default=0, metavar="N", help="CPU threads of a model run (default: one a core)")
    add("--seed", type=int, default=0, metavar="N", help="of arrivals, orders and pictures (default 0)")
    add(
        "--store",
        type=Path,
        default=SHIPPED,
        metavar="DIR",
        help="folder of models; where it lacks the default classifier, set NRP_CLASSIFIER",
    )
    add("--peers", type=Path, metavar="DIR", help="where `pip install --target DIR` put requirements/bench.txt")
    add("--output", type=Path, metavar="DIR", help=f"takes {ROWS}, {PAGE} and {PLOTS}/ (default docs/results)")
    add("--render", action="store_true", help=f"measure nothing: make the page again from {ROWS}")
    add("--json", action="store_true", help="print the verdicts as JSON")


def run_bench(args: argparse.Namespace) -> int:
    """Measure, write rows, page and plots, print the verdicts; 0 also where a bar is missed."""
    for name, value in (QUICK if args.quick else FULL).items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    new_figure()  # without matplotlib an hour of measuring would end without a page
    report = read_report(args.output / ROWS) if args.render else _measure(args)
    drawn = plot_all(report, args.output / PLOTS)
    write_whole(args.output / PAGE, page(report, drawn).encode())
    judged = verdicts(report)
    if args.json:
        print(
            json.dumps(
                [
                    {"bar": one.bar.words, "limit": one.bar.text, "value": one.value, "verdict": one.word}
                    for one in judged
                ],
                indent=2,
            )
        )
    else:
        for one in judged:
            measured = "" if one.value is None else f" {one.value:.3g}{one.bar.unit}"
            print(f"{one.word:>12}  {one.bar.words} {one.bar.text}:{measured}")
        print(f"{len(report.rows)} rows in {args.output / ROWS}, the page is {args.output / PAGE}")
    return 0


def _measure(args: argparse.Namespace) -> Report:
    """Run the plan. The file is written again with each row, so that a run that is cut short, however, leaves those."""
    task = _task(args)
    card = ModelStore(args.store).card(task.purifier)
    began, started = time.monotonic(), datetime.now(UTC)
    report = Report(run=_run(args, task, card, started.strftime("%Y-%m-%d")), rows=())
    with tempfile.TemporaryDirectory(prefix="nrp-bench-") as scratch:
        plan = Plan(
            task,
            args.arms,
            phases(args.clients, args.loads),
            args.rounds,
            args.minutes,
            args.soak,
            args.parts,
            args.peers,
            Path(scratch),
            _say,
        )
        for row in conduct(plan):
            minutes = round((time.monotonic() - began) / 60, 2)
            run = report.run.model_copy(update={"minutes": minutes})
            report = Report(run=run, rows=(*report.rows, row))
            write_report(report, args.output / ROWS)
    return report


def _task(args: argparse.Namespace) -> Task:
    purifier = choose_purifier(args.purifier or Settings.model_fields["purifier"].default, torch.device(args.device))
    return Task(
        store=args.store.resolve(),
        purifier=purifier,
        mode=args.mode,
        device=args.device,
        side=args.side,
        seed=args.seed,
        threads=args.threads,
    )


def _run(args: argparse.Namespace, task: Task, card: Card, started: str) -> Run:
    return Run(
        command=_command(args),
        purifier=card.name,
        sha256=card.sha256,
        mode=task.mode,
        side=task.side,
        device=task.device,
        hardware=hardware(task.device),
        cores=cores(),
        threads=task.model_threads,
        bfloat16=has_bfloat16(task.device),
        rounds=args.rounds,
        batch=task.batch,
        seed=task.seed,
        started=started,
        minutes=0.0,
        versions=versions(args.arms, args.peers),
    )


def _command(args: argparse.Namespace) -> str:
    """The command without what does not change a figure, or is a path on this machine."""
    base: dict[str, object] = {"parts": PARTS, "mode": "static", "device": "cpu", "threads": 0, "seed": 0}
    base |= {**(QUICK if args.quick else FULL), "purifier": None}
    words = ["nrp", "bench", *(["--quick"] if args.quick else [])]
    for name, default in base.items():
        value = getattr(args, name)
        if name != "output" and value != default:
            words += [f"--{name}", ",".join(map(str, value)) if isinstance(value, tuple) else str(value)]
    return shlex.join(words)


def _say(text: str) -> None:
    print(f"nrp bench: {text}", file=sys.stderr, flush=True)


def _named(known: Iterable[str]) -> Callable[[str], tuple[str, ...]]:
    names = tuple(known)

    def parse(text: str) -> tuple[str, ...]:
        chosen = tuple(dict.fromkeys(text.split(",")))
        if not set(chosen) <= set(names):
            raise argparse.ArgumentTypeError(f"{text!r}: names of {', '.join(names)}, with commas between")
        return chosen

    return parse


def _levels(text: str) -> tuple[int, ...]:
    try:
        levels = tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: whole numbers with commas between") from error
    if min(levels) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: each must be at least 1")
    return levels


def _above_zero(kind: type[Number]) -> Callable[[str], Number]:
    def parse(text: str) -> Number:
        number = kind(text)
        if not number > 0:
            raise argparse.ArgumentTypeError(f"{text!r}: must be above 0")
        return number

    return parse


def _side(text: str) -> int:
    side = int(text)
    if not 16 <= side <= 2048:
        raise argparse.ArgumentTypeError(f"{text!r}: from 16 to 2048 pixels")
    return side
