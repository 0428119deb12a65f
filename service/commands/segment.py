"""``nrp segment``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from service.answers import class_shares
from service.commands.arguments import add_downstream_option, add_image_options, add_json_option, purification
from service.commands.asking import Question, Row, ask
from service.commands.files import write_whole
from service.downstream import Downstream
from service.findings import mask_of
from service.masks import encode_mask
from service.options import SegmentQuery
from service.plan import make_plan
from service.workbench import Done, Failed


def configure_segment(parser: argparse.ArgumentParser) -> None:
    """Options of ``nrp segment``."""
    add_image_options(parser)
    add_downstream_option(parser, "segmenter")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder for the masks, PNG files")
    add_json_option(parser)


def run_segment(args: argparse.Namespace) -> int:
    """Write a mask for each of files and folders, made after purifying; 1 if any file failed."""
    errands = {e.source: e for e in make_plan(args.inputs, args.output, force_png=True)}

    def said(done: Done, segmenter: Downstream) -> Row | Failed:
        mask, errand = encode_mask(mask_of(done.answer.defended)), errands[done.source]
        failed = write_whole(mask.file, errand)
        if failed is not None:
            return failed
        return {
            "mask": str(errand.target),
            "width": done.image.width,
            "height": done.image.height,
            "classes": [share.model_dump() for share in class_shares(mask, segmenter.labels)],
        }

    query = SegmentQuery(**purification(args))
    return ask(args, list(errands), Question("segmenter", query, said, _lines))


def _lines(row: Row) -> Sequence[str]:
    return [", ".join(f"{entry['label']} {entry['share']:.1%}" for entry in row["classes"])]
