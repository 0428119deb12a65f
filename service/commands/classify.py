"""``nrp classify``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from service.answers import best
from service.certify_order import check_certifies
from service.commands.arguments import (
    add_downstream_option,
    add_image_options,
    add_json_option,
    chosen,
    positive,
)
from service.commands.asking import Question, Row, ask, show
from service.commands.certify import certificate_line, certify_files, configure_certify
from service.downstream import Downstream
from service.findings import probabilities_of
from service.logs import log_to_standard_error
from service.options import ClassifyQuery
from service.plan import find_sources
from service.settings import load_settings
from service.workbench import Done


def configure_classify(parser: argparse.ArgumentParser) -> None:
    """Options of ``nrp classify``."""
    add_image_options(parser)
    add_downstream_option(parser, "classifier")
    parser.add_argument("--compare", action="store_true", help="also show the answer without purifying")
    parser.add_argument("--top-k", type=positive, metavar="N", help="labels to show, best first (default 1)")
    add_json_option(parser)
    configure_certify(parser)


def run_classify(args: argparse.Namespace) -> int:
    """Classify files and folders after purifying, or certify what they show; 1 if any file failed."""
    given = {name: getattr(args, name) for name in ClassifyQuery.model_fields if hasattr(args, name)}
    query = ClassifyQuery(**given)
    if query.certify:
        return _certify(args, query)
    check_certifies(query)
    count = args.top_k or 1

    def said(done: Done, classifier: Downstream) -> Row:
        defended, undefended = probabilities_of(done.answer.defended), probabilities_of(done.answer.undefended)
        labels = classifier.labels
        return {
            "predictions": [p.model_dump() for p in best(defended, labels, count)],
            "undefended": [p.model_dump() for p in best(undefended, labels, count)] if args.compare else None,
        }

    return ask(args, find_sources(args.inputs), Question("classifier", query, said, _lines))


def _certify(args: argparse.Namespace, query: ClassifyQuery) -> int:
    log_to_standard_error()
    sources = find_sources(args.inputs)
    settings = load_settings(**chosen(args), classifier=args.classifier)
    rows, failures = certify_files(sources, settings, query)
    return show(args, sources, rows, failures, lambda row: [certificate_line(row)])


def _lines(row: Row) -> Sequence[str]:
    undefended = "" if row["undefended"] is None else f"   unpurified: {_labels(row['undefended'])}"
    return [f"{_labels(row['predictions'])}{undefended}"]


def _labels(predictions: Sequence[Row]) -> str:
    return ", ".join(f"{p['label']} {p['probability']:.1%}" for p in predictions)
