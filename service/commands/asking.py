"""Asking a downstream model about many files, as ``nrp classify``, ``nrp detect`` and ``nrp segment`` do."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from model_store.official import Kind
from service.answers import ModeReport, SuspicionReport
from service.commands.arguments import local_settings
from service.commands.files import report_failures
from service.downstream import AnyDownstream
from service.engine import Engine
from service.logs import log_to_standard_error
from service.options import DownstreamQuery
from service.pipeline import Order, make_order
from service.settings import Settings
from service.suspicion import judge
from service.workbench import Done, Failed, Workbench

Row = dict[str, Any]


@dataclass(frozen=True)
class Question:
    """``said`` makes of a file's answer what is printed of it as JSON beside what every row has, or says why it cannot;
    ``lines`` makes of a row what the table shows."""

    task: Kind
    query: DownstreamQuery
    said: Callable[[Done, AnyDownstream], Row | Failed]
    lines: Callable[[Row], Sequence[str]]


def ask(args: argparse.Namespace, sources: Sequence[Path], question: Question) -> int:
    """Ask about every file after purifying it, and print the answers in the files' order; 1 if any file failed."""
    log_to_standard_error()
    settings = local_settings(args, question.task)
    engine = Engine(settings, tasks=[question.task])
    order = make_order(engine, settings.max_draws, question.query, task=question.task)
    bench = Workbench(engine, threads=settings.codec_threads, max_pixels=settings.max_pixels)
    try:
        rows, failures = _answers(bench, settings, engine, order, sources, question)
    finally:
        bench.close()
    return show(args, sources, rows, failures, question.lines)


def show(
    args: argparse.Namespace,
    sources: Sequence[Path],
    rows: Mapping[Path, Row],
    failures: Sequence[Failed],
    lines: Callable[[Row], Sequence[str]],
) -> int:
    """Print the rows in the files' order, as JSON or as a table; 1 if any file failed."""
    ordered = [rows[source] for source in sources if source in rows]
    if args.json:
        failed = [{"file": str(failure.source), "error": failure.reason} for failure in failures]
        print(json.dumps({"results": ordered, "failed": failed}, indent=2))
    else:
        width = max((len(row["file"]) for row in ordered), default=0)
        for row in ordered:
            for line in lines(row):
                print(f"{row['file']:<{width}}  {line}")
    return report_failures(failures, len(sources))


def _answers(
    bench: Workbench, settings: Settings, engine: Engine, order: Order, sources: Sequence[Path], question: Question
) -> tuple[dict[Path, Row], list[Failed]]:
    rows: dict[Path, Row] = {}
    failures = []
    model = engine.downstream(question.task)
    outcomes = bench.outcomes(sources, order, question.query.seed)
    for outcome in tqdm(outcomes, total=len(sources), unit="image"):
        said = outcome if isinstance(outcome, Failed) else question.said(outcome, model)
        if isinstance(outcome, Failed) or isinstance(said, Failed):
            failures.append(said if isinstance(said, Failed) else outcome)
        else:
            rows[outcome.source] = {**_about(outcome, model, order, settings.suspicion_threshold), **said}
    return rows, failures


def _about(done: Done, model: AnyDownstream, order: Order, threshold: float | None) -> Row:
    """What every row has."""
    answer = done.answer
    suspicion = judge(
        done.image.pixels,
        answer.purified,
        answer.undefended,
        answer.defended,
        scale=order.scale,
        threshold=threshold,
    )
    return {
        "file": str(done.source),
        "model": model.name,
        "purifier": order.card.name,
        "mode": ModeReport.of(order.mode).model_dump(),
        "suspicion": SuspicionReport.of(suspicion).model_dump(),
    }
