"""Accept: which of the media types on offer the client likes best (RFC 9110, section 12.5.1)."""

from __future__ import annotations

from collections.abc import Sequence

from service.errors import NotAcceptableError


def negotiate(accept: str | None, offers: Sequence[str]) -> str:
    """The offer of the highest quality; among equals the one named most exactly, then the earlier in ``offers``.

    No Accept header, or an empty one, takes the first offer. Raises NotAcceptableError.
    """
    if accept is None or not accept.strip():
        return offers[0]
    ranges = [parsed for part in accept.split(",") if (parsed := _range(part)) is not None]
    ranked = [(*_quality(offer, ranges), -place, offer) for place, offer in enumerate(offers)]
    quality, _, _, best = max(ranked)
    if quality <= 0:
        raise NotAcceptableError(f"Accept {accept[:100]!r} allows none of {', '.join(offers)}")
    return best


def _range(part: str) -> tuple[str, float] | None:
    """A media range and its quality; None for what is no media range."""
    name, *parameters = (piece.strip().lower() for piece in part.split(";"))
    if "/" not in name:
        return None
    quality = 1.0
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.strip() == "q":
            try:
                quality = float(value)
            except ValueError:
                return None
    return name, quality if 0 <= quality <= 1 else 0.0


def _quality(offer: str, ranges: Sequence[tuple[str, float]]) -> tuple[float, int]:
    """Quality of ``offer`` by the most exact range that covers it, and how exact that is (2, 1 or 0; -1 none)."""
    kind = offer.split("/", 1)[0]
    exactness = {offer: 2, f"{kind}/*": 1, "*/*": 0}
    covering = [(exactness[name], quality) for name, quality in ranges if name in exactness]
    if not covering:
        return 0.0, -1
    exact, quality = max(covering)
    return quality, exact
