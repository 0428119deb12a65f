"""`nrp evaluate suspicion`: what clean photos score, which attacks are seen, what purifying the suspicious leaves."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from model_store.calibration import Scale, SuspicionCalibration
from model_store.devices import device_named
from model_store.store import SHIPPED, ModelStore
from robustness.adversaries import white_box
from robustness.attacks.pgd import PGD
from robustness.attacks.registry import ATTACKS
from robustness.cache import Cache
from robustness.calibrating import Source, calibrate, figures, marks, with_calibration
from robustness.conditions import Conditions
from robustness.datasets.photos import Part, PhotoFile, find_photos, in_rounds, keep_part
from robustness.datasets.recognise import class_root
from robustness.defences import Purification
from robustness.errors import EvaluationError
from robustness.evaluation import purifications
from robustness.evasion import Aim, Hiding, evading
from robustness.judgement import Bench, attacked, clean_trial
from robustness.options import budgets, fraction, names, radii, whole
from robustness.progress import Progress
from robustness.results.cells import figure
from robustness.results.files import merge_lines
from robustness.results.row import Row
from robustness.results.suspicion import TABLE
from robustness.suite.assembly import source_name
from robustness.suite.commands import SURROGATE
from robustness.suite.pages import refresh_page
from robustness.surrogates import Surrogate, load_surrogate
from robustness.suspicion import Sighting, file_sightings, sightings
from robustness.suspicion_rows import attack_rows, clean_rows, least_rows
from robustness.versions import versions
from robustness.victims.classification import Classifier, load_classifiers
from robustness.victims.loading import Selection, read_examples
from robustness.workbench import canonical, output_folder, portable, write_result

SUITE = "suspicion"
FOLLOWS_SURROGATE = frozenset({"SSP", "FSA"})
# So slow that they get the few photos of attackers in hiding.
SLOW = frozenset({*FOLLOWS_SURROGATE, "AutoAttack standard", "AutoAttack rand", "Square", "PGD-100 x5 untargeted"})
AIMS: tuple[Aim, ...] = ("both answers", "original")

# Options that change a figure, shown in the command where they differ from these.
DEFAULTS: Mapping[str, object] = MappingProxyType(
    {
        "inference": "default",
        "false_positives": 0.01,
        "selection_fraction": 0.5,
        "clean_limit": None,
        "file_limit": 300,
        "limit": 50,
        "slow_limit": 15,
        "eps": (4, 8, 16),
        "attacks": (
            "FGSM", "MI-FGSM", "DIM", "PGD-10 targeted", "PGD-10 untargeted", "SSP", "AutoAttack standard",
        ),
        "hiding": (0.3, 1.0),
        "steps": 20,
        "surrogate": SURROGATE,
        "seed": 0,
        "batch": 50,
        "precision": "float32",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Watch:
    """Who is watched on what: ``chosen`` photos set the thresholds, those of ``bench`` are measured on."""

    args: argparse.Namespace
    purification: Purification
    victims: tuple[Classifier, ...]
    surrogate: Surrogate
    chosen: Bench
    bench: Bench
    files: list[PhotoFile]

    def first(self, count: int) -> Bench:
        """The first of the photos that are measured on."""
        return replace(self.bench, examples=self.bench.examples.first(count))


def configure_suspicion(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    add = parser.add_argument
    add("name", metavar="PURIFIER", help="the purifier's name in the store")
    add("--classifier", type=names, required=True, metavar="A,B", help="the classifiers behind it")
    add("--data", type=Path, required=True, metavar="DIR", help="photos, one folder a class (WordNet ids)")
    add("--inference", metavar="NAME", help="the purifier's mode of inference (default: its own)")
    add("--false-positives", type=fraction, metavar="F", help="share that thresholds are set for (default 0.01)")
    add("--selection-fraction", type=fraction, metavar="F", help="share of each class to set them on (default 0.5)")
    add("--clean-limit", type=whole(1), metavar="N", help="clean photos of each part (default: all)")
    add("--file-limit", type=whole(1), metavar="N", help="of them to purify at their own size too (default 300)")
    add("--limit", type=whole(1), metavar="N", help="photos to attack (default 50)")
    add("--slow-limit", type=whole(1), metavar="N", help="of them for slow attacks and those in hiding (default 15)")
    add("--eps", type=budgets, metavar="E,..", help="budgets in /255 (default 4,8,16)")
    add("--attacks", type=names, metavar="A,..", help="attacks that know nothing of the report, by the names in tables")
    add(
        "--hiding",
        type=radii,
        metavar="W,..",
        help="weights of the report in the loss of attackers who hide (default 0.3,1)",
    )
    add("--steps", type=whole(1), metavar="N", help="their PGD steps (default 20)")
    add("--surrogate", metavar="NAME", help=f"whom transfer attacks follow (default {SURROGATE})")
    add("--seed", type=whole(0), help="seed of everything random (default 0)")
    add("--batch", type=whole(1), metavar="N", help="image copies in flight (default 50)")
    add("--precision", choices=("float32", "bfloat16"), help="what purifier and victims are judged in")
    add("--write-card", action="store_true", help="put calibration and false positives into the purifier's card")
    add("--results", type=Path, metavar="DIR", help="also keep the rows there and write the page (docs/results)")
    add("--json", action="store_true", help="print the result as JSON instead of tables")
    add("--output", type=Path, metavar="DIR", help="where the result goes as JSON (default runs/evaluate/NAME)")
    add("--cache", type=Path, metavar="DIR", help="adversaries and sightings, to resume (default OUTPUT/cache)")
    add("--store", type=Path, default=SHIPPED, metavar="DIR", help="the model store (default: the shipped one)")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to compute")
    parser.set_defaults(**DEFAULTS)


def run_suspicion(args: argparse.Namespace) -> str:
    """Calibrate, attack, write ``suspicion.json``, rows and card as asked, and return what is to be printed.

    Raises NrpError.
    """
    began, store = time.monotonic(), ModelStore(args.store)
    watch = _watch(args, store)
    source = _source(watch)
    chosen = sightings(watch.chosen, clean_trial(watch.chosen, watch.victims), watch.purification)
    calibration = calibrate(watch.purification, list(zip(watch.victims, chosen, strict=True)), source)
    rows = list(_rows(watch, calibration))
    result = {
        "subject": "suspicion",
        "name": args.name,
        "command": source.command,
        "mode": watch.purification.mode_name,
    }
    result |= {
        "calibration": calibration.model_dump(mode="json"),
        "rows": [row.model_dump(mode="json") for row in rows],
    }
    path = output_folder(args) / "suspicion.json"
    write_result(path, {**result, "seconds": round(time.monotonic() - began, 1)})
    told = [json.dumps(result, indent=2)] if args.json else [_text(calibration, rows), f"{path} written"]
    if args.write_card:
        _write_card(watch, store, calibration, source)
        told += [] if args.json else [f"calibration written into the card of {args.name}"]
    if args.results is not None:
        merge_lines(rows, args.results / f"{SUITE}.jsonl")
        page = refresh_page(store, args.results)
        told += [] if args.json else [f"{len(rows)} rows kept, shown in {page}"]
    return "\n".join(told)


def suspicion_command(args: argparse.Namespace) -> str:
    """The command that gives these figures again on any machine."""
    words = ["nrp", "evaluate", "suspicion", args.name, "--classifier", ",".join(args.classifier)]
    return canonical([*words, "--data", portable(args.data)], args, DEFAULTS)


def _watch(args: argparse.Namespace, store: ModelStore) -> Watch:
    unknown = [key for key in args.attacks if key not in ATTACKS]
    if unknown:
        raise EvaluationError(f"there is no attack {unknown[0]!r}; there are: {', '.join(ATTACKS)}")
    device = device_named(args.device)
    victims = load_classifiers(store, args.classifier, device)
    purification = purifications(store.load(args.name), (args.inference,), device, named=True)[-1]
    progress = Progress()
    conditions = Conditions(args.seed, args.batch, device, "float32", args.precision)
    cache = Cache(args.cache or output_folder(args) / "cache")

    def part(which: Part) -> Bench:
        progress.begin(f"photos, {which}")
        selection = Selection(args.clean_limit, args.selection_fraction, which, args.seed)
        return Bench(read_examples(args.data, victims, selection, progress), conditions, cache, progress)

    found = find_photos(class_root(args.data) or args.data, victims[0].folders)
    kept = in_rounds(keep_part(found, args.selection_fraction, "rest"), args.seed, args.clean_limit)
    surrogate = load_surrogate(store, args.surrogate, device)
    chosen, rest = part("selection"), part("rest")
    return Watch(args, purification, victims, surrogate, chosen, rest, kept[: args.file_limit])


def _source(watch: Watch) -> Source:
    args, pixels = watch.args, watch.chosen.examples.pixels
    data = f"{source_name(args.data)}, {len(pixels)} photos, sha256 {watch.chosen.examples.digest}"
    height, width = (int(side) for side in pixels.shape[-2:])
    return Source(data, height, width, suspicion_command(args), args.seed, args.false_positives)


def _rows(watch: Watch, calibration: SuspicionCalibration) -> Iterator[Row]:
    """Every row: clean photos first, then each classifier under each attack."""
    clean = sightings(watch.bench, clean_trial(watch.bench, watch.victims), watch.purification)
    as_files = file_sightings(watch.bench, watch.files, watch.victims, watch.purification)
    alone = calibration.alone()
    for victim, mine, files in zip(watch.victims, clean, as_files, strict=True):
        scale, shared = _scale(calibration, victim), _shared(watch, victim)
        for sighting in (mine, files):
            yield from clean_rows(sighting, scale, alone, shared)
        hiding = [Hiding(w, aim, *marks(calibration, victim.name)) for aim in AIMS for w in watch.args.hiding]
        for eps in watch.args.eps:
            unaware = list(_unaware(watch, victim, eps))
            aware = [_hidden(watch, victim, eps, each) for each in hiding]
            for sighting in (*unaware, *aware):
                yield from attack_rows(sighting, mine, scale, alone, shared)
            few = len(watch.first(watch.args.slow_limit).examples)
            yield from least_rows([sighting.first(few) for sighting in (*unaware, *aware)], scale, shared)


def _unaware(watch: Watch, victim: Classifier, eps: int) -> Iterator[Sighting]:
    for key in watch.args.attacks:
        attack = ATTACKS[key](eps)
        threat = watch.surrogate.threat(attack) if key in FOLLOWS_SURROGATE else white_box(attack, victim)
        bench = watch.first(watch.args.slow_limit if key in SLOW else watch.args.limit)
        (sighting,) = sightings(bench, attacked(bench, threat, (victim,)), watch.purification)
        yield sighting


def _hidden(watch: Watch, victim: Classifier, eps: int, hiding: Hiding) -> Sighting:
    bench = watch.first(watch.args.slow_limit)
    threat = evading(PGD(eps, iterations=watch.args.steps), watch.purification, victim, hiding)
    (sighting,) = sightings(bench, attacked(bench, threat, (victim,)), watch.purification)
    return sighting


def _scale(calibration: SuspicionCalibration, victim: Classifier) -> Scale:
    scale = calibration.behind(victim.name, victim.identity)
    if scale is None:
        raise AssertionError(f"{victim.name} was calibrated a moment ago")
    return scale


def _write_card(watch: Watch, store: ModelStore, calibration: SuspicionCalibration, source: Source) -> None:
    clean = sightings(watch.bench, clean_trial(watch.bench, watch.victims), watch.purification)
    pairs = [(seen, _scale(calibration, victim)) for victim, seen in zip(watch.victims, clean, strict=True)]
    added = figures(watch.purification, pairs, calibration.alone(), source)
    card = store.card(watch.args.name)
    store.rewrite_card(with_calibration(card, watch.purification.mode_name, calibration, added))


def _shared(watch: Watch, victim: Classifier) -> Row:
    """What all rows of one classifier have in common; the rest is filled in for each."""
    args, purification = watch.args, watch.purification
    return Row(
        suite=SUITE,
        table=TABLE,
        task="classification",
        attacker="none",
        attack="clean",
        eps=0,
        victim=victim.name,
        defence=purification.name,
        role="purifier",
        metric="",
        percent=None,
        missing="to be filled in",
        count=0,
        weights={victim.name: victim.identity, args.name: purification.weights},
        data={source_name(args.data): watch.bench.examples.digest},
        versions=versions(),
        device=watch.bench.conditions.device.type,
        precision=watch.bench.conditions.precision,
        seed=args.seed,
        command=suspicion_command(args),
    )


def _text(calibration: SuspicionCalibration, rows: Sequence[Row]) -> str:
    """Thresholds, then one line a figure."""
    thresholds = [f"threshold of the residual alone {calibration.threshold:g}"]
    thresholds += [f"of {name} {known.threshold:g}" for name, known in calibration.classifiers.items()]
    lines = [
        f"{row.victim}  {row.attack} {row.eps}  {row.metric}, {row.series}: {row.missing or figure(row)}"
        for row in rows
    ]
    return "\n".join([", ".join(thresholds), *lines])
