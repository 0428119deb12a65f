"""`nrp evaluate certify`: what no perturbation of a bounded L2 norm can take from a classifier behind a purifier."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType

from model_store.certification import Smoothing
from model_store.devices import device_named
from model_store.store import ModelStore
from robustness.certified import (
    SUITE,
    Certified,
    certified_figures,
    certified_rows,
    certified_text,
    measure_certified,
    with_figures,
)
from robustness.defences import NoDefence, Purification
from robustness.evaluation import purifications
from robustness.judgement import Bench
from robustness.options import fraction, positive, radii, whole
from robustness.progress import Progress
from robustness.results.files import merge_lines
from robustness.results.row import Row
from robustness.suite.assembly import source_name
from robustness.suite.pages import refresh_page
from robustness.versions import versions
from robustness.victims.classification import Classifier, load_classifier
from robustness.workbench import (
    COMMON_DEFAULTS,
    canonical,
    configure_workbench,
    output_folder,
    portable,
    workbench,
    write_result,
)

# Options that change a figure, shown in the command where they differ from these.
DEFAULTS: Mapping[str, object] = MappingProxyType(
    {"sigma": 0.25, "n0": 100, "n": 1000, "alpha": 0.001, "radii": (0.0, 0.25, 0.5, 0.75, 1.0)}
)


def configure_certify(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    add = parser.add_argument
    add("name", metavar="PURIFIER", help="the purifier's name in the store; it adds no noise of its own")
    add("--classifier", required=True, metavar="NAME", help="the classifier behind it")
    add("--sigma", type=positive, metavar="S", help="std of the noise on images in [0,1] (default 0.25)")
    add("--n0", type=whole(1), metavar="N", help="noisy copies that choose the class (default 100)")
    add("--n", type=whole(1), metavar="N", help="noisy copies that bound its probability (default 1000)")
    add("--alpha", type=fraction, metavar="A", help="chance that a certificate is wrong (default 0.001)")
    add("--radii", type=radii, metavar="R,..", help="L2 radii to report (default 0,0.25,0.5,0.75,1.0)")
    add("--results", type=Path, metavar="DIR", help="also keep the rows there and write the page (docs/results)")
    configure_workbench(parser, card="add to the card, or replace in it, the figures")
    parser.set_defaults(**DEFAULTS)


def run_certify(args: argparse.Namespace) -> str:
    """Certify, write ``certified.json``, rows and card as asked, and return what is to be printed. Raises NrpError."""
    began = time.monotonic()
    store, device = ModelStore(args.store), device_named(args.device)
    smoothing = Smoothing(args.sigma, args.n0, args.n, args.alpha, args.batch)
    # The purifier's own noise would only add to that of the certificate.
    purification = purifications(store.load(args.name), ("static",), device, named=True)[-1]
    victim = load_classifier(store, args.classifier, device)
    progress = Progress()
    progress.plan(5)
    bench = workbench(args, (victim,), device, progress)
    arms = (NoDefence(), purification)
    found = [measure_certified(bench, victim, defence, smoothing, args.radii) for defence in arms]
    result = _result(args, bench, (victim, purification), found)
    path = output_folder(args) / "certified.json"
    write_result(path, {**result, "seconds": round(time.monotonic() - began, 1)})
    told = [json.dumps(result, indent=2)] if args.json else [certified_text(found), f"{path} written"]
    if args.write_card:
        figures = certified_figures(found, smoothing, certify_command(args), args.seed)
        store.rewrite_card(with_figures(store.card(args.name), figures))
        told += [] if args.json else [f"{len(figures)} figures added to the card of {args.name}"]
    if args.results is not None:
        shared = _shared(args, bench, victim)
        rows = [row for each in found for row in certified_rows(each, smoothing, purification, shared)]
        merge_lines(rows, args.results / f"{SUITE}.jsonl")
        page = refresh_page(store, args.results)
        told += [] if args.json else [f"{len(rows)} rows kept, shown in {page}"]
    return "\n".join(told)


def certify_command(args: argparse.Namespace) -> str:
    """The command that gives these figures again on any machine."""
    words = ["nrp", "evaluate", "certify", args.name, "--classifier", args.classifier, "--data", portable(args.data)]
    return canonical(words, args, {**DEFAULTS, **COMMON_DEFAULTS})


def _result(
    args: argparse.Namespace, bench: Bench, models: tuple[Classifier, Purification], found: Sequence[Certified]
) -> dict[str, object]:
    victim, purification = models
    return {
        "subject": "certify",
        "name": args.name,
        "command": certify_command(args),
        "seed": args.seed,
        "device": bench.conditions.device.type,
        "versions": versions(),
        "weights_sha256": {victim.name: victim.identity, args.name: purification.weights},
        "photos": {"count": len(bench.examples), "sha256": bench.examples.digest},
        **{option: getattr(args, option) for option in DEFAULTS},
        "certified": [_plain(each) for each in found],
    }


def _plain(found: Certified) -> dict[str, object]:
    scores = [
        {"metric": metric, "radius": radius, **{key: value for key, value in asdict(score).items() if key in _SHOWN}}
        for metric, radius, score in found.scores
    ]
    return {"defence": found.defence, "role": found.role, "victim": found.victim, "scores": scores}


_SHOWN = ("percent", "interval", "count")


def _shared(args: argparse.Namespace, bench: Bench, victim: Classifier) -> Row:
    """What all rows of one run have in common; its figure is filled in for each."""
    return Row(
        suite=SUITE,
        table="certified",
        task="classification",
        attacker="none",
        attack="Gaussian noise",
        eps=0,
        victim=victim.name,
        defence="none",
        role="none",
        metric="",
        percent=0.0,
        count=len(bench.examples),
        weights={victim.name: victim.identity},
        data={source_name(args.data): bench.examples.digest},
        versions=versions(),
        device=bench.conditions.device.type,
        precision=bench.conditions.precision,
        seed=args.seed,
        command=certify_command(args),
    )
