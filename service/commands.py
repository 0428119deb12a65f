"""``nrp serve``, ``nrp purify`` and ``nrp classify``."""

from __future__ import annotations

import argparse
import json
import sys
from collections import deque
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from tqdm import tqdm

from model_store.errors import NrpError
from model_store.official import Kind
from service.answers import ModeReport, SuspicionReport, best
from service.app import create_app
from service.engine import Engine
from service.findings import probabilities_of
from service.images import encode
from service.logs import configure_logs, log_to_standard_error
from service.options import PurifyQuery
from service.pipeline import Order, make_order
from service.plan import Errand, find_images, make_plan
from service.server import serve
from service.settings import Settings, load_settings
from service.suspicion import judge
from service.workbench import WINDOW_PIXELS, Done, Failed, Workbench

# Images on their way to the disk; bounds what is held in memory when encoding or the disk is slow.
WRITING_AHEAD = 64


def configure_serve(parser: argparse.ArgumentParser) -> None:
    """Options of ``nrp serve``."""
    _add_model_options(parser)
    parser.add_argument("--classifier", metavar="NAME", help="classifier in the store, or torchvision:NAME")
    parser.add_argument("--segmenter", metavar="NAME", help="segmenter in the store, torchvision:NAME, or none")
    parser.add_argument("--detector", metavar="NAME", help="detector in the store, torchvision:NAME, or none")
    parser.add_argument("--host", help="address to listen on (default 127.0.0.1: this machine only)")
    parser.add_argument("--port", type=int, help="port to listen on (default 8000)")
    everything_else = "Everything else is set by NRP_* variables; an option here overrides its variable."
    parser.epilog = "\n\n".join(part for part in (parser.epilog, everything_else) if part)


def run_serve(args: argparse.Namespace) -> int:
    """Load and verify the models, then serve until SIGTERM or Ctrl-C."""
    downstream = {"classifier": args.classifier, "segmenter": args.segmenter, "detector": args.detector}
    settings = load_settings(**_chosen(args), **downstream, host=args.host, port=args.port)
    app = create_app(settings)
    configure_logs(settings)
    return serve(app, settings)


def configure_purify(parser: argparse.ArgumentParser) -> None:
    """Options of ``nrp purify``."""
    _add_image_options(parser)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder for the purified images")
    parser.add_argument("--format", choices=("keep", "png"), default="keep", help="keep each file's format, or PNG")
    parser.add_argument("--json", action="store_true", help="print a summary as JSON")


def run_purify(args: argparse.Namespace) -> int:
    """Purify files and folders into another folder; 1 if any file failed."""
    log_to_standard_error()
    errands = {e.source: e for e in make_plan(args.inputs, args.output, force_png=args.format == "png")}
    settings = load_settings(**_chosen(args))
    engine = Engine(settings, tasks=())
    order = _order(engine, settings, args)
    bench = Workbench(engine, threads=settings.codec_threads, max_pixels=settings.max_pixels)
    try:
        failures = _purify_all(bench, errands, order, args.seed)
    finally:
        bench.close()
    if args.json:
        failed = [{"file": str(failure.source), "error": failure.reason} for failure in failures]
        print(json.dumps({"written": len(errands) - len(failed), "output": str(args.output), "failed": failed}))
    return _report_failures(failures, len(errands))


def configure_classify(parser: argparse.ArgumentParser) -> None:
    """Options of ``nrp classify``."""
    _add_image_options(parser)
    parser.add_argument("--classifier", metavar="NAME", help="classifier in the store, or torchvision:NAME")
    parser.add_argument("--compare", action="store_true", help="also show the answer without purifying")
    parser.add_argument(
        "--top-k", type=_positive, default=1, metavar="N", help="labels to show, best first (default 1)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run_classify(args: argparse.Namespace) -> int:
    """Classify files and folders after purifying; 1 if any file failed."""
    log_to_standard_error()
    sources = list(dict.fromkeys(source for source, _ in find_images(args.inputs)))
    settings = load_settings(**_chosen(args), classifier=args.classifier)
    engine = Engine(settings, tasks=["classifier"])
    order = _order(engine, settings, args, "classifier")
    bench = Workbench(engine, threads=settings.codec_threads, max_pixels=settings.max_pixels)
    rows: dict[Path, dict[str, Any]] = {}
    failures = []
    try:
        for outcome in tqdm(bench.outcomes(sources, order, args.seed), total=len(sources), unit="image"):
            if isinstance(outcome, Failed):
                failures.append(outcome)
            else:
                rows[outcome.source] = _row(outcome, engine, order, args, settings.suspicion_threshold)
    finally:
        bench.close()
    ordered = [rows[source] for source in sources if source in rows]
    if args.json:
        failed = [{"file": str(failure.source), "error": failure.reason} for failure in failures]
        print(json.dumps({"results": ordered, "failed": failed}, indent=2))
    else:
        _print_table(ordered)
    return _report_failures(failures, len(sources))


def _add_model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--store", type=Path, metavar="DIR", help="folder of models (default: those shipped)")
    parser.add_argument("--purifier", metavar="NAME", help="purifier in the store (see `nrp models list`)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), help="where to compute (default auto)")


def _add_image_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("inputs", nargs="+", type=Path, metavar="IN", help="image files, and folders of them")
    _add_model_options(parser)
    parser.add_argument("--mode", metavar="NAME", help="inference mode: one of the card's, static or published")
    parser.add_argument("--samples", type=_positive, metavar="N", help="noisy draws to average (default: the mode's)")
    parser.add_argument("--seed", type=_seed, metavar="N", help="makes the noise reproducible (default: secret)")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _seed(text: str) -> int:
    number = int(text)
    if not 0 <= number < 2**63:
        raise ValueError(text)
    return number


def _chosen(args: argparse.Namespace) -> dict[str, Any]:
    """The settings that every verb has an option for."""
    return {"model_store": args.store, "purifier": args.purifier, "device": args.device}


def _order(engine: Engine, settings: Settings, args: argparse.Namespace, task: Kind | None = None) -> Order:
    return make_order(
        engine, settings.max_draws, PurifyQuery(mode=args.mode, samples=args.samples, seed=args.seed), task=task
    )


def _purify_all(bench: Workbench, errands: dict[Path, Errand], order: Order, seed: int | None) -> list[Failed]:
    """Purify and write; writing happens beside the purifying."""
    failures: list[Failed] = []
    writing: deque[tuple[int, Future[Failed | None]]] = deque()
    with tqdm(total=len(errands), unit="image") as bar:
        for outcome in bench.outcomes(list(errands), order, seed):
            if isinstance(outcome, Failed):
                failures.append(outcome)
            else:
                pixels = outcome.image.width * outcome.image.height
                writing.append((pixels, bench.pool.submit(_write, outcome, errands[outcome.source])))
            while len(writing) > WRITING_AHEAD or sum(pixels for pixels, _ in writing) > WINDOW_PIXELS:
                failures += _failure(writing.popleft()[1])
            bar.update()
    return failures + [failure for _, future in writing for failure in _failure(future)]


def _failure(written: Future[Failed | None]) -> list[Failed]:
    """Wait until one image is written; what went wrong, if anything did."""
    failed = written.result()
    return [] if failed is None else [failed]


def _write(done: Done, errand: Errand) -> Failed | None:
    """Encode and write one image; it appears whole or not at all."""
    scratch = errand.target.with_name(f".{errand.target.name}.part")
    try:
        data = encode(done.answer.purified, done.image.alpha, errand.image_format, done.image.profile)
        errand.target.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_bytes(data)
        scratch.replace(errand.target)
    except NrpError as error:
        return Failed(errand.source, str(error))
    except OSError as error:
        return Failed(errand.source, f"cannot write {errand.target}: {error.strerror}")
    return None


def _row(done: Done, engine: Engine, order: Order, args: argparse.Namespace, threshold: float | None) -> dict[str, Any]:
    """One file's answer, as it is printed."""
    answer, classifier = done.answer, engine.downstream("classifier")
    defended, undefended = probabilities_of(answer.defended), probabilities_of(answer.undefended)
    labels = classifier.labels
    suspicion = judge(done.image.pixels, answer.purified, undefended, defended, scale=order.scale, threshold=threshold)
    return {
        "file": str(done.source),
        "model": classifier.name,
        "purifier": order.card.name,
        "mode": ModeReport.of(order.mode).model_dump(),
        "predictions": [p.model_dump() for p in best(defended, labels, args.top_k)],
        "undefended": [p.model_dump() for p in best(undefended, labels, args.top_k)] if args.compare else None,
        "suspicion": SuspicionReport.of(suspicion).model_dump(),
    }


def _print_table(rows: list[dict[str, Any]]) -> None:
    if not rows:
        return
    width = max(len(row["file"]) for row in rows)
    for row in rows:
        undefended = "" if row["undefended"] is None else f"   unpurified: {_labels(row['undefended'])}"
        print(f"{row['file']:<{width}}  {_labels(row['predictions'])}{undefended}")


def _labels(predictions: list[dict[str, Any]]) -> str:
    return ", ".join(f"{p['label']} {p['probability']:.1%}" for p in predictions)


def _report_failures(failures: list[Failed], total: int) -> int:
    """Name every failed file on standard error; the exit code."""
    for failure in sorted(failures, key=lambda f: f.source):
        print(f"nrp: {failure.source}: {failure.reason}", file=sys.stderr)
    if failures:
        print(f"nrp: {len(failures)} of {total} images failed", file=sys.stderr)
    return 1 if failures else 0
