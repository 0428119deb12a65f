"""``nrp classify``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from service.answers import best
from service.commands.arguments import (
    add_downstream_option,
    add_image_options,
    add_json_option,
    positive,
    purification,
)
from service.commands.asking import Question, Row, ask
from service.downstream import Downstream
from service.findings import probabilities_of
from service.options import ClassifyQuery
from service.plan import find_sources
from service.workbench import Done


def configure_classify(parser: argparse.ArgumentParser) -> None:
    """Options of ``nrp classify``."""
    add_image_options(parser)
    add_downstream_option(parser, "classifier")
    parser.add_argument("--compare", action="store_true", help="also show the answer without purifying")
    parser.add_argument("--top-k", type=positive, default=1, metavar="N", help="labels to show, best first (default 1)")
    add_json_option(parser)


def run_classify(args: argparse.Namespace) -> int:
    """Classify files and folders after purifying; 1 if any file failed."""
    query = ClassifyQuery(**purification(args), compare=args.compare, top_k=args.top_k)

    def said(done: Done, classifier: Downstream) -> Row:
        defended, undefended = probabilities_of(done.answer.defended), probabilities_of(done.answer.undefended)
        labels = classifier.labels
        return {
            "predictions": [p.model_dump() for p in best(defended, labels, args.top_k)],
            "undefended": [p.model_dump() for p in best(undefended, labels, args.top_k)] if args.compare else None,
        }

    return ask(args, find_sources(args.inputs), Question("classifier", query, said, _lines))


def _lines(row: Row) -> Sequence[str]:
    undefended = "" if row["undefended"] is None else f"   unpurified: {_labels(row['undefended'])}"
    return [f"{_labels(row['predictions'])}{undefended}"]


def _labels(predictions: Sequence[Row]) -> str:
    return ", ".join(f"{p['label']} {p['probability']:.1%}" for p in predictions)
