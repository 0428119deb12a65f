"""``nrp purify``."""

from __future__ import annotations

import argparse
import json
from collections import deque
from concurrent.futures import Future
from pathlib import Path

from tqdm import tqdm

from model_store.errors import NrpError
from service.commands.arguments import add_image_options, chosen, purification
from service.commands.files import report_failures, write_whole
from service.engine import Engine
from service.images import encode
from service.logs import log_to_standard_error
from service.options import PurifyQuery
from service.pipeline import Order, make_order
from service.plan import Errand, make_plan
from service.settings import load_settings
from service.workbench import WINDOW_PIXELS, Done, Failed, Workbench

# Images on their way to the disk; bounds what is held in memory when encoding or the disk is slow.
WRITING_AHEAD = 64


def configure_purify(parser: argparse.ArgumentParser) -> None:
    """Options of ``nrp purify``."""
    add_image_options(parser)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder for the purified images")
    parser.add_argument("--format", choices=("keep", "png"), default="keep", help="keep each file's format, or PNG")
    parser.add_argument("--json", action="store_true", help="print a summary as JSON")


def run_purify(args: argparse.Namespace) -> int:
    """Purify files and folders into another folder; 1 if any file failed."""
    log_to_standard_error()
    errands = {e.source: e for e in make_plan(args.inputs, args.output, force_png=args.format == "png")}
    settings = load_settings(**chosen(args))
    engine = Engine(settings, tasks=())
    order = make_order(engine, settings.max_draws, PurifyQuery(**purification(args)))
    bench = Workbench(engine, threads=settings.codec_threads, max_pixels=settings.max_pixels)
    try:
        failures = _purify_all(bench, errands, order, args.seed)
    finally:
        bench.close()
    if args.json:
        failed = [{"file": str(failure.source), "error": failure.reason} for failure in failures]
        print(json.dumps({"written": len(errands) - len(failed), "output": str(args.output), "failed": failed}))
    return report_failures(failures, len(errands))


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
    """Encode and write one image."""
    try:
        data = encode(done.answer.purified, done.image.alpha, errand.image_format, done.image.profile)
    except NrpError as error:
        return Failed(errand.source, str(error))
    return write_whole(data, errand)
