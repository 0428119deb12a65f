"""`nrp evaluate`: measure a purifier or a classifier, and write the figures into its card."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from types import MappingProxyType

import torch

from model_store.card import Card, Figure
from model_store.devices import device_named
from model_store.store import SHIPPED, ModelStore
from robustness.cache import Cache
from robustness.conditions import Conditions, Precision
from robustness.defences import NoDefence, Purification
from robustness.errors import EvaluationError, VictimError
from robustness.evaluation import (
    Plan,
    default_mode,
    defences_with,
    measure_classifier,
    measure_purifier,
    purifications,
    stages,
)
from robustness.judgement import Bench, clean_trial, judge
from robustness.options import budgets, fraction, names, whole
from robustness.progress import Progress
from robustness.rendering import FigureMaker, clean_figure, mode_note, report_text
from robustness.report import Report, summarise
from robustness.suite.commands import configure_suite, run_card_or_suite
from robustness.versions import versions
from robustness.victims.classification import Classifier, load_classifiers
from robustness.victims.loading import Selection, load_victim, read_examples
from robustness.victims.victim import Victim

# The options that change a figure: shown in the canonical command where they differ from these.
COMMON_DEFAULTS: Mapping[str, object] = MappingProxyType(
    {"limit": None, "selection_fraction": 0.0, "part": "rest", "seed": 0, "batch": 64, "precision": "float32"}
)
PURIFIER_DEFAULTS: Mapping[str, object] = MappingProxyType(
    {
        "eps": (4, 8),
        "modes": ("default", "static", "published"),
        "attack_precision": "float32",
        "adaptive_count": 200,
        "adaptive_steps": 20,
        "eot": 1,
    }
)


CLEAN_METRICS: Mapping[str, str] = MappingProxyType(
    {"classifier": "accuracy", "segmenter": "pixel accuracy", "detector": "mAP@0.5"}
)


def configure_evaluate(parser: argparse.ArgumentParser) -> None:
    """Add the sub-verbs and options of `nrp evaluate`."""
    configure_suite(parser)
    metavar = "|".join(("purifier", *CLEAN_METRICS))
    subjects = parser.add_subparsers(dest="subject", metavar=metavar, title="one model alone")
    purifier = subjects.add_parser("purifier", help="measure a purifier against attacked classifiers")
    purifier.add_argument("name", help="the purifier's name in the store")
    purifier.add_argument(
        "--victims", type=names, required=True, metavar="A,B", help="classifiers to attack and judge with"
    )
    _configure_purifier(purifier)
    _configure_common(purifier)
    for task, metric in CLEAN_METRICS.items():
        victim = subjects.add_parser(task, help=f"measure a {task}'s {metric} on clean images")
        victim.add_argument("name", help=f"the {task}'s name in the store")
        _configure_common(victim)


def _configure_purifier(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--eps", type=budgets, metavar="E,..", help="budgets in /255, whole numbers (default 4,8)")
    add("--modes", type=names, metavar="M,..", help="modes of inference (default: default,static,published)")
    add("--attack-precision", choices=("float32", "bfloat16"), help="precision of the attacker's gradients")
    add("--adaptive-count", type=whole(0), metavar="N", help="photos for attackers who know the purifier; 0: none")
    add("--adaptive-steps", type=whole(1), metavar="N", help="their PGD steps (default 20)")
    add("--eot", type=whole(1), metavar="K", help="noise draws a step they average over (default 1)")
    parser.set_defaults(**PURIFIER_DEFAULTS)


def _configure_common(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--data", type=Path, required=True, metavar="DIR", help="photos, one folder a class (WordNet ids)")
    add("--limit", type=whole(1), metavar="N", help="take N photos, equal numbers a class, chosen by the seed")
    add("--selection-fraction", type=fraction, metavar="F", help="share of each class that choices were made on")
    add("--part", choices=("rest", "selection"), help="measure the rest (default) or that share")
    add("--seed", type=whole(0), help="seed of everything random (default 0)")
    add("--precision", choices=("float32", "bfloat16"), help="what purifier and victims are judged in")
    add("--batch", type=whole(1), metavar="N", help="image copies in flight (default 64)")
    add("--write-card", action="store_true", help="replace the card's figures with those measured")
    add("--json", action="store_true", help="print the result as JSON instead of tables")
    add("--output", type=Path, metavar="DIR", help="where evaluation.json goes (default runs/evaluate/NAME)")
    add("--cache", type=Path, metavar="DIR", help="adversaries and predictions, to resume (default OUTPUT/cache)")
    add("--store", type=Path, default=SHIPPED, metavar="DIR", help="the model store (default: the shipped one)")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to compute")
    parser.set_defaults(**COMMON_DEFAULTS)


def run_evaluate(args: argparse.Namespace) -> int:
    """Measure, print, write ``evaluation.json`` and, if asked, the card. Returns 0; raises NrpError."""
    if args.subject is None:
        return run_card_or_suite(args)
    began = time.monotonic()
    store, device = ModelStore(args.store), device_named(args.device)
    output = args.output or Path("runs") / "evaluate" / args.name
    if args.subject in ("segmenter", "detector"):
        return _run_scenes(args, store, device, output)
    purifying = args.subject == "purifier"
    victims = load_classifiers(store, args.victims if purifying else [args.name], device)
    purified = purifications(store.load(args.name), args.modes, device) if purifying else ()
    plan = Plan(args.eps, args.adaptive_count, args.adaptive_steps, args.eot) if purifying else None
    progress = Progress()
    progress.plan(1 + (stages(plan, len(victims), len(defences_with(purified))) if plan else 1))
    bench = _bench(args, victims, device, output, progress)
    measured = measure_purifier(bench, victims, purified, plan) if plan else measure_classifier(bench, victims[0])
    report = summarise(measured)
    card = store.card(args.name)
    figures = FigureMaker(canonical_command(args), args.seed, _notes(card, purified)).figures(report)
    result = _result(args, bench, victims, purified, report, time.monotonic() - began)
    _write(output / "evaluation.json", result)
    if args.write_card:
        store.rewrite_card(card.model_copy(update={"figures": figures}))
    _show(args, report, result, output, figures)
    return 0


def _run_scenes(args: argparse.Namespace, store: ModelStore, device: torch.device, output: Path) -> int:
    """Measure a segmenter or detector on clean scenes, show it, and keep it as ``run_evaluate`` does."""
    card = store.card(args.name)
    if card.task != args.subject:
        raise VictimError(f"{args.name} is a {card.task}, not a {args.subject}; measure it as what it is")
    progress = Progress()
    progress.plan(2)
    victim = load_victim(store, args.name, device)
    bench = _bench(args, (victim,), device, output, progress)
    if args.limit is not None:
        bench = replace(bench, examples=bench.examples.first(args.limit))
    (seen,) = judge(bench, clean_trial(bench, (victim,)), NoDefence())
    figure = clean_figure(seen, canonical_command(args), args.seed)
    data = {"count": len(bench.examples), "sha256": bench.examples.digest}
    weights = {args.name: card.sha256}
    facts = {"name": args.name, "versions": versions(), "weights_sha256": weights, "images": data}
    result = {**facts, **figure.model_dump(mode="json")}
    _write(output / "evaluation.json", result)
    if args.write_card:
        store.rewrite_card(card.model_copy(update={"figures": (figure,)}))
    print(json.dumps(result, indent=2) if args.json else f"{figure.name}: {figure.value} % {figure.interval}")
    return 0


def _bench(
    args: argparse.Namespace, victims: tuple[Victim, ...], device: torch.device, output: Path, progress: Progress
) -> Bench:
    progress.begin("photos")
    selection = Selection(args.limit, args.selection_fraction, args.part, args.seed)
    photos = read_examples(args.data, victims, selection, progress)
    attack_precision: Precision = getattr(args, "attack_precision", "float32")
    conditions = Conditions(args.seed, args.batch, device, attack_precision, args.precision)
    return Bench(photos, conditions, Cache(args.cache or output / "cache"), progress)


def canonical_command(args: argparse.Namespace) -> str:
    """The command that gives these figures again on any machine: no absolute path, no option that changes nothing."""
    data = args.data if not args.data.is_absolute() else Path(args.data.name)
    words = ["nrp", "evaluate", args.subject, args.name]
    if args.subject == "purifier":
        words += ["--victims", ",".join(args.victims)]
    words += ["--data", data.as_posix()]
    defaults = {**(PURIFIER_DEFAULTS if args.subject == "purifier" else {}), **COMMON_DEFAULTS}
    for option, default in defaults.items():
        value = getattr(args, option)
        if value != default:
            shown = ",".join(map(str, value)) if isinstance(value, tuple) else f"{value}"
            words += [f"--{option.replace('_', '-')}", shown]
    return shlex.join(words)


def _notes(card: Card, purified: tuple[Purification, ...]) -> dict[str, str]:
    default = default_mode(card)
    return {p.name: mode_note(p.mode, default=p.mode_name == default) for p in purified}


def _result(
    args: argparse.Namespace,
    bench: Bench,
    victims: tuple[Classifier, ...],
    purified: tuple[Purification, ...],
    report: Report,
    seconds: float,
) -> dict[str, object]:
    weights = {victim.name: victim.identity for victim in victims}
    if purified:
        weights[args.name] = purified[0].weights
    return {
        "subject": args.subject,
        "name": args.name,
        "command": canonical_command(args),
        "seed": args.seed,
        "device": bench.conditions.device.type,
        "versions": versions(),
        "weights_sha256": weights,
        "photos": {"count": len(bench.examples), "sha256": bench.examples.digest},
        "modes": {p.mode_name: p.mode.model_dump() for p in purified},
        "default_mode": purified[0].mode_name if purified else None,
        "seconds": round(seconds, 1),
        **asdict(report),
    }


def _show(
    args: argparse.Namespace, report: Report, result: dict[str, object], output: Path, figures: tuple[Figure, ...]
) -> None:
    if args.json:
        print(json.dumps(result, indent=2))
        for warning in report.warnings:
            print(f"WARNING: {warning}", file=sys.stderr)
        return
    print(report_text(report))
    print(f"\n{output / 'evaluation.json'} written")
    if args.write_card:
        print(f"{len(figures)} figures written into the card of {args.name}")


def _write(path: Path, result: dict[str, object]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_name(f".{path.name}.new")
        scratch.write_text(json.dumps(result, indent=2, allow_nan=False) + "\n")
        scratch.replace(path)
    except OSError as error:
        raise EvaluationError(f"{path} cannot be written: {error.strerror}; give another --output") from error
