"""``nrp classify --certify``: files through certification, one after the other, with the copies counted in a bar."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from model_store.errors import NrpError
from service.certification import Certification
from service.certify_answers import Certified
from service.certify_order import CertifyOrder, check_certify_size, make_certify_order
from service.commands.arguments import positive
from service.engine import Engine
from service.images import decode, open_image
from service.options import MOST_SIGMA, ClassifyQuery, choose_seed
from service.settings import Settings
from service.workbench import Failed


def configure_certify(parser: argparse.ArgumentParser) -> None:
    """The options of a certificate, for ``nrp classify``."""
    group = parser.add_argument_group("certificates", "many noisy copies of each image; takes seconds to minutes")
    add = group.add_argument
    add("--certify", action="store_true", help="a label, and the L2 radius within which no change turns it")
    add(
        "--sigma",
        type=_sigma,
        metavar="S",
        help="std of the noise, on values in [0,1] (default: the card's)",
    )
    add("--n", type=positive, metavar="N", help="noisy copies that bound the label's share (default 1000)")
    add("--n0", type=positive, metavar="N", help="noisy copies that choose the label (default 100)")
    add("--alpha", type=_fraction, metavar="A", help="chance that a certificate is wrong (default 0.001)")


def certify_files(
    sources: Sequence[Path], settings: Settings, query: ClassifyQuery
) -> tuple[dict[Path, dict[str, Any]], list[Failed]]:
    """The certificates by file, and what failed. Raises NrpError for what no file can be certified with."""
    purifier = settings.smoothing_purifier if query.purifier is None else query.purifier
    settings = settings.model_copy(update={"purifier": purifier})
    engine = Engine(settings, tasks=["classifier"])
    order = make_certify_order(engine, settings, query)
    rows: dict[Path, dict[str, Any]] = {}
    failures = []
    copies = order.smoothing.n0 + order.smoothing.n
    with tqdm(total=len(sources) * copies, unit="copy") as bar:
        for number, source in enumerate(sources):
            bar.set_description(source.name)
            own = CertifyOrder(order.card, order.model, order.smoothing, choose_seed(query.seed))
            try:
                rows[source] = {"file": str(source), **_certified(source, settings, engine, own, bar)}
            except OSError as error:
                failures.append(Failed(source, error.strerror or type(error).__name__))
            except NrpError as error:
                failures.append(Failed(source, str(error)))
            bar.update((number + 1) * copies - bar.n)
    return rows, failures


def certificate_line(row: dict[str, Any]) -> str:
    """One file's certificate for a person."""
    share = f"{row['count']} of {row['n']} noisy copies"
    if row["abstained"]:
        return f"abstained ({share} agree)"
    return f"{row['label']}, L2 radius {row['radius']:.3f} ({share}, alpha {row['alpha']:g})"


def _certified(source: Path, settings: Settings, engine: Engine, order: CertifyOrder, bar: tqdm) -> dict[str, Any]:
    opened = open_image(source.read_bytes(), settings.max_pixels)
    check_certify_size(engine, settings, order, opened.width, opened.height)
    image = decode(opened)
    certification = Certification(image.pixels, order)
    while not certification.finished:
        before = certification.done
        certification.advance(engine)
        bar.update(certification.done - before)
    return Certified.of(order, certification).model_dump()


def _sigma(text: str) -> float:
    number = float(text)
    if not 0 < number <= MOST_SIGMA:
        raise ValueError(text)
    return number


def _fraction(text: str) -> float:
    number = float(text)
    if not 0 < number < 1:
        raise ValueError(text)
    return number
