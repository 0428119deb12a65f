"""What a request for a certificate amounts to, and whether it can be had here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from model_store.card import Card
from model_store.certification import Smoothing
from service.downstream import Classifier, Downstream
from service.engine import Engine
from service.errors import InvalidParameterError, TooManyPixelsError, UnknownNameError
from service.images import charge
from service.options import ClassifyQuery, choose_seed
from service.settings import Settings

DEFAULT_N0 = 100
DEFAULT_N = 1000
DEFAULT_ALPHA = 0.001
# By default a certification may take this many runs of ``batch_pixels``.
MOST_RUNS = 256

CERTIFYING = ("sigma", "n", "n0", "alpha")
_WHY_NOT: Mapping[str, str] = MappingProxyType(
    {
        "mode": "the noise of a certificate is that of sigma",
        "dynamic": "the noise of a certificate is that of sigma",
        "samples": "n says how many noisy copies there are",
        "compare": "there is no certificate without the purifier",
        "top_k": "a certificate is of one label",
    }
)


@dataclass(frozen=True)
class CertifyOrder:
    """A certificate to be made of one image, by which models and from which noise; ``model`` is the classifier."""

    card: Card
    model: Downstream
    smoothing: Smoothing
    seed: int


def make_certify_order(engine: Engine, settings: Settings, query: ClassifyQuery) -> CertifyOrder:
    """Resolve a query. Raises UnknownNameError, NoDownstreamError or InvalidParameterError."""
    for name, why in _WHY_NOT.items():
        if getattr(query, name) is not None and (name != "compare" or query.compare):
            raise InvalidParameterError(f"{name}: {why}; leave out {name}, or certify")
    model = certifiable(engine.downstream("classifier"))
    if query.model is not None and query.model != model.name:
        raise UnknownNameError(f"model: there is no classifier {query.model[:80]!r} here; there is: {model.name}")
    card = _smoothing_card(engine, settings, query.purifier)
    return CertifyOrder(card, model, _smoothing(card, settings, query), choose_seed(query.seed))


def check_certifies(query: ClassifyQuery) -> None:
    """Raises InvalidParameterError for a query that says how to certify but not that it should be done."""
    given = [name for name in CERTIFYING if getattr(query, name) is not None]
    if given:
        raise InvalidParameterError(f"{given[0]}: it belongs to a certificate; add certify=true")


def certifiable(model: Downstream) -> Downstream:
    """The model, where a certificate can be had of it: a classifier that runs in this process.

    Raises InvalidParameterError.
    """
    if not isinstance(model, Classifier):
        raise InvalidParameterError(
            f"certify: {model.name} cannot be certified; only a classifier that runs in this service can "
            "(NRP_CLASSIFIER)"
        )
    return model


def own_sigma(card: Card) -> float | None:
    """The plain Gaussian noise that a purifier's card runs it on by default; None where it does not.

    A certificate knows nothing of JPEG before the noise, nor of noise that is kept inside a ball.
    """
    if card.inference is None:
        return None
    mode = card.inference.modes[card.inference.default]
    return None if mode.static or mode.jpeg is not None or mode.ball is not None else mode.noise_std


def copy_weight(order: CertifyOrder, width: int, height: int) -> int:
    """What one noisy copy counts for in budgets of pixels: the most that either model looks at."""
    return max(charge(width, height), order.model.extent(height, width))


def check_certify_size(engine: Engine, settings: Settings, order: CertifyOrder, width: int, height: int) -> None:
    """Raises TooManyPixelsError where the copies of such an image are more than one certification may take."""
    if charge(width, height) > engine.tile_pixels:
        raise TooManyPixelsError(
            f"the image is {width}x{height} pixels; a certificate needs whole noisy copies and takes "
            f"{engine.tile_pixels} in all (NRP_TILE_PIXELS): make it smaller"
        )
    limit = settings.max_certify_pixels or MOST_RUNS * engine.batch_pixels
    weight, copies = copy_weight(order, width, height), order.smoothing.n0 + order.smoothing.n
    if weight * copies > limit:
        raise TooManyPixelsError(
            f"{copies} noisy copies of {width}x{height} pixels are {weight * copies} pixels to run; the limit is "
            f"{limit}, {limit // weight} copies of this image (NRP_MAX_CERTIFY_PIXELS): ask for a smaller n or send a "
            "smaller image"
        )


def _smoothing_card(engine: Engine, settings: Settings, asked: str | None) -> Card:
    name = settings.smoothing_purifier if asked is None else asked
    card = engine.purifiers.get(name)
    if card is None:
        known = ", ".join(sorted(engine.purifiers))
        where = " that NRP_SMOOTHING_PURIFIER names" if asked is None else ""
        raise UnknownNameError(f"purifier: there is no purifier {name[:80]!r}{where}; name one of: {known}")
    return card


def _smoothing(card: Card, settings: Settings, query: ClassifyQuery) -> Smoothing:
    sigma = own_sigma(card) if query.sigma is None else query.sigma
    if sigma is None:
        raise InvalidParameterError(
            f"sigma: the card of {card.name} names no plain noise that it was made for; give sigma, or the purifier "
            f"{settings.smoothing_purifier}"
        )
    n0 = DEFAULT_N0 if query.n0 is None else query.n0
    n = DEFAULT_N if query.n is None else query.n
    alpha = DEFAULT_ALPHA if query.alpha is None else query.alpha
    for name, count in (("n0", n0), ("n", n)):
        if count > settings.max_certify_samples:
            raise InvalidParameterError(
                f"{name}: {count} noisy copies, but this service allows {settings.max_certify_samples} "
                "(NRP_MAX_CERTIFY_SAMPLES)"
            )
    least = math.floor(math.log(alpha) / math.log(0.5)) + 1
    if n < least:
        raise InvalidParameterError(f"n: {n} copies can show nothing at alpha {alpha:g}; ask for {least} or more")
    return Smoothing(sigma, n0, n, alpha)
