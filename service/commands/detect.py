"""``nrp detect``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from service.answers import detected
from service.commands.arguments import (
    add_downstream_option,
    add_image_options,
    add_json_option,
    fraction,
    purification,
)
from service.commands.asking import Question, Row, ask
from service.downstream import Downstream
from service.findings import Finding, detections_of
from service.options import DetectQuery
from service.plan import find_sources
from service.workbench import Done


def configure_detect(parser: argparse.ArgumentParser) -> None:
    """Options of ``nrp detect``."""
    add_image_options(parser)
    add_downstream_option(parser, "detector")
    parser.add_argument("--compare", action="store_true", help="also show what is found without purifying")
    default = DetectQuery().score_threshold
    parser.add_argument(
        "--score-threshold",
        type=fraction,
        default=default,
        metavar="P",
        help=f"least score of an object that is shown (default {default:g})",
    )
    add_json_option(parser)


def run_detect(args: argparse.Namespace) -> int:
    """Find objects in files and folders after purifying; 1 if any file failed."""
    query = DetectQuery(**purification(args), compare=args.compare, score_threshold=args.score_threshold)

    def said(done: Done, detector: Downstream) -> Row:
        def objects(finding: Finding | None) -> list[Row]:
            found = detected(detections_of(finding), detector.labels, query.score_threshold)
            return [thing.model_dump() for thing in found]

        return {
            "width": done.image.width,
            "height": done.image.height,
            "objects": objects(done.answer.defended),
            "undefended": objects(done.answer.undefended) if args.compare else None,
        }

    return ask(args, find_sources(args.inputs), Question("detector", query, said, _lines))


def _lines(row: Row) -> Sequence[str]:
    """A line for each object, in pixels of the image turned upright."""
    lines = [_line(found) for found in row["objects"]] or ["nothing found"]
    if row["undefended"] is not None:
        undefended = [_line(found) for found in row["undefended"]] or ["nothing found"]
        lines += [f"unpurified: {line}" for line in undefended]
    return lines


def _line(found: Row) -> str:
    corners = (round(found["box"][corner]) for corner in ("x0", "y0", "x1", "y1"))
    return "{} {:.1%}  {},{} to {},{}".format(found["label"], found["score"], *corners)
