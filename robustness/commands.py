"""`nrp evaluate`: measure a purifier or a classifier, and write the figures into its card."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from types import MappingProxyType

import torch

from model_store.card import Card, Figure
from model_store.devices import device_named
from model_store.store import ModelStore
from robustness.certify_verb import configure_certify, run_certify
from robustness.cost_verb import configure_cost, run_cost
from robustness.defences import NoDefence, Purification
from robustness.errors import VictimError
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
from robustness.options import budgets, names, whole
from robustness.progress import Progress
from robustness.rendering import FigureMaker, clean_figure, mode_note, report_text
from robustness.report import Report, summarise
from robustness.suite.commands import configure_suite, run_card_or_suite
from robustness.suspicion_verb import configure_suspicion, run_suspicion
from robustness.versions import versions
from robustness.victims.classification import Classifier, load_classifiers
from robustness.victims.loading import load_victim
from robustness.workbench import (
    COMMON_DEFAULTS,
    canonical,
    configure_workbench,
    output_folder,
    portable,
    workbench,
    write_result,
)

# The options of a purifier that change a figure.
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

# Verbs that measure and return what is to be printed.
SIMPLE_VERBS: Mapping[str, Callable[[argparse.Namespace], str]] = MappingProxyType(
    {"certify": run_certify, "cost": run_cost, "suspicion": run_suspicion}
)
CLEAN_METRICS: Mapping[str, str] = MappingProxyType(
    {"classifier": "accuracy", "segmenter": "pixel accuracy", "detector": "mAP@0.5"}
)


def configure_evaluate(parser: argparse.ArgumentParser) -> None:
    """Add the sub-verbs and options of `nrp evaluate`."""
    configure_suite(parser)
    metavar = "|".join(("purifier", *CLEAN_METRICS, "certify", "cost", "suspicion"))
    subjects = parser.add_subparsers(dest="subject", metavar=metavar, title="one model alone")
    purifier = subjects.add_parser("purifier", help="measure a purifier against attacked classifiers")
    purifier.add_argument("name", help="the purifier's name in the store")
    purifier.add_argument(
        "--victims", type=names, required=True, metavar="A,B", help="classifiers to attack and judge with"
    )
    _configure_purifier(purifier)
    configure_workbench(purifier)
    for task, metric in CLEAN_METRICS.items():
        victim = subjects.add_parser(task, help=f"measure a {task}'s {metric} on clean images")
        victim.add_argument("name", help=f"the {task}'s name in the store")
        configure_workbench(victim)
    configure_certify(subjects.add_parser("certify", help="certify a classifier behind a purifier (L2, smoothing)"))
    watched = subjects.add_parser("suspicion", help="calibrate a purifier's suspicion report, and try to get past it")
    configure_suspicion(watched)
    configure_cost(subjects.add_parser("cost", help="time purifiers, baselines and architectures over one image"))


def _configure_purifier(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--eps", type=budgets, metavar="E,..", help="budgets in /255, whole numbers (default 4,8)")
    add("--modes", type=names, metavar="M,..", help="modes of inference (default: default,static,published)")
    add("--attack-precision", choices=("float32", "bfloat16"), help="precision of the attacker's gradients")
    add("--adaptive-count", type=whole(0), metavar="N", help="photos for attackers who know the purifier; 0: none")
    add("--adaptive-steps", type=whole(1), metavar="N", help="their PGD steps (default 20)")
    add("--eot", type=whole(1), metavar="K", help="noise draws a step they average over (default 1)")
    parser.set_defaults(**PURIFIER_DEFAULTS)


def run_evaluate(args: argparse.Namespace) -> int:
    """Measure, print, write ``evaluation.json`` and, if asked, the card. Returns 0; raises NrpError."""
    if args.subject is None:
        return run_card_or_suite(args)
    if args.subject in SIMPLE_VERBS:
        print(SIMPLE_VERBS[args.subject](args))
        return 0
    began = time.monotonic()
    store, device = ModelStore(args.store), device_named(args.device)
    output = output_folder(args)
    if args.subject in ("segmenter", "detector"):
        return _run_scenes(args, store, device, output)
    purifying = args.subject == "purifier"
    victims = load_classifiers(store, args.victims if purifying else [args.name], device)
    purified = purifications(store.load(args.name), args.modes, device) if purifying else ()
    plan = Plan(args.eps, args.adaptive_count, args.adaptive_steps, args.eot) if purifying else None
    progress = Progress()
    progress.plan(1 + (stages(plan, len(victims), len(defences_with(purified))) if plan else 1))
    bench = workbench(args, victims, device, progress)
    measured = measure_purifier(bench, victims, purified, plan) if plan else measure_classifier(bench, victims[0])
    report = summarise(measured)
    card = store.card(args.name)
    figures = FigureMaker(canonical_command(args), args.seed, _notes(card, purified)).figures(report)
    result = _result(args, bench, victims, purified, report, time.monotonic() - began)
    write_result(output / "evaluation.json", result)
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
    bench = workbench(args, (victim,), device, progress)
    if args.limit is not None:
        bench = replace(bench, examples=bench.examples.first(args.limit))
    (seen,) = judge(bench, clean_trial(bench, (victim,)), NoDefence())
    figure = clean_figure(seen, canonical_command(args), args.seed)
    data = {"count": len(bench.examples), "sha256": bench.examples.digest}
    weights = {args.name: card.sha256}
    facts = {"name": args.name, "versions": versions(), "weights_sha256": weights, "images": data}
    result = {**facts, **figure.model_dump(mode="json")}
    write_result(output / "evaluation.json", result)
    if args.write_card:
        store.rewrite_card(card.model_copy(update={"figures": (figure,)}))
    print(json.dumps(result, indent=2) if args.json else f"{figure.name}: {figure.value} % {figure.interval}")
    return 0


def canonical_command(args: argparse.Namespace) -> str:
    """The command that gives these figures again on any machine: no absolute path, no option that changes nothing."""
    words = ["nrp", "evaluate", args.subject, args.name]
    if args.subject == "purifier":
        words += ["--victims", ",".join(args.victims)]
    words += ["--data", portable(args.data)]
    purifying = PURIFIER_DEFAULTS if args.subject == "purifier" else {}
    return canonical(words, args, {**purifying, **COMMON_DEFAULTS})


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
