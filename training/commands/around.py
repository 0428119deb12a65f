"""Around a training: ``nrp train pack | plan | publish`` for a machine elsewhere, ``curve`` for a run here."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from model_store.store import SHIPPED, ModelStore
from training.curve import plot_history, read_history
from training.finished import read_finished
from training.packing import pack
from training.plan import Planned, kind_of, write_plan
from training.publish import code_revision, finished_card, publish, stored
from training.recipe import read_recipe, recipe_path, recipe_table
from training.stages import SCHEMAS


def configure_around(kinds: Any) -> None:
    """Add the sub-verbs to the subparsers ``kinds`` of ``nrp train``."""
    _configure_pack(kinds.add_parser("pack", help="write photos into one file, to be carried to another machine"))
    _configure_plan(kinds.add_parser("plan", help="write trainings and what they need for `python -m training.bare`"))
    _configure_curve(kinds.add_parser("curve", help="draw how a run's validation went"))
    _configure_publish(kinds.add_parser("publish", help="publish what `python -m training.bare` finished"))


def configure_publishing(parser: argparse.ArgumentParser) -> None:
    """Add where a model is published, and whether another of its name may go."""
    parser.add_argument("--store", type=Path, default=SHIPPED, help="where to publish (default: the shipped weights)")
    parser.add_argument("--replace", action="store_true", help="replace a published model of the same name")


def _configure_publish(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("finished", nargs="+", type=Path, metavar="DIR", help="folders with weights and run.json")
    configure_publishing(parser)
    parser.set_defaults(run_kind=run_publish)


def _configure_pack(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", nargs="+", type=Path, metavar="DIR", help="folders of photos")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="a .safetensors file to write")
    parser.add_argument("--side", type=int, default=160, help="side of the squares, in pixels (default: %(default)s)")
    parser.add_argument("--limit", type=int, help="pack at most this many, evenly from all folders (default: all)")
    parser.add_argument("--most-mb", type=float, default=60, help="refuse a larger file (default: %(default)s)")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    parser.set_defaults(run_kind=run_pack)


def _configure_plan(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "recipes", nargs="+", metavar="RECIPE", help=".toml files or names of shipped recipes, in order"
    )
    parser.add_argument(
        "--output", type=Path, required=True, metavar="PLAN.json", help="models go into a folder beside"
    )
    parser.add_argument("--store", type=Path, default=SHIPPED, help="where models are that no stage of the plan trains")
    parser.set_defaults(run_kind=run_plan)


def _configure_curve(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="a .png file to write")
    parser.set_defaults(run_kind=run_curve)


def run_pack(arguments: argparse.Namespace) -> int:
    """``nrp train pack``."""
    output: Path = arguments.output
    packed = pack(
        arguments.data,
        output,
        side=arguments.side,
        limit=arguments.limit,
        most_mb=arguments.most_mb,
        quiet=arguments.quiet,
    )
    print(f"packed {packed.count} of {packed.found} photos into {output} ({packed.size / 1e6:.1f} MB)")
    return 0


def run_plan(arguments: argparse.Namespace) -> int:
    """``nrp train plan``."""
    stages = []
    for where in arguments.recipes:
        kind = kind_of(recipe_table(recipe_path(where)))
        stages.append(Planned(kind, read_recipe(where, SCHEMAS[kind])))
    plan = write_plan(stages, stored(ModelStore(arguments.store)), arguments.output, code_revision=code_revision())
    print(f"planned {', '.join(s.name for s in stages)}, with {len(plan.models)} models beside, in {arguments.output}")
    return 0


def run_curve(arguments: argparse.Namespace) -> int:
    """``nrp train curve``."""
    history = read_history(arguments.run)
    plot_history(history, arguments.output)
    best = max(history, key=lambda past: (past["score"], past["step"]))
    print(f"{len(history)} validations drawn to {arguments.output}; the best at step {best['step']:g}")
    return 0


def run_publish(arguments: argparse.Namespace) -> int:
    """``nrp train publish``."""
    store = ModelStore(arguments.store)
    for folder in arguments.finished:
        finished = read_finished(folder)
        published = publish(store, finished_card(finished), finished.module, replace=arguments.replace)
        print(f"published {published.name} in {arguments.store} (sha256 {published.sha256[:12]})")
    return 0
