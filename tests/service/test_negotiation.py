from __future__ import annotations

import pytest

from service.errors import NotAcceptableError
from service.negotiation import negotiate

OFFERS = ("image/png", "image/webp", "image/jpeg", "application/json")


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, "image/png"),
        ("", "image/png"),
        ("*/*", "image/png"),
        ("image/*", "image/png"),
        ("image/jpeg", "image/jpeg"),
        ("IMAGE/JPEG", "image/jpeg"),
        ("application/json", "application/json"),
        ("image/jpeg, */*", "image/jpeg"),
        ("image/jpeg;q=0.5, image/webp;q=0.9", "image/webp"),
        ("image/*;q=0.2, application/json;q=0.1", "image/png"),
        ("image/png;q=0, image/*", "image/webp"),
        ("text/html, application/xml;q=0.9, */*;q=0.1", "image/png"),
        ("nonsense, image/webp", "image/webp"),
        ("image/jpeg;q=oops, image/webp", "image/webp"),
    ],
)
def test_the_best_liked_offer_is_chosen(accept: str | None, expected: str) -> None:
    assert negotiate(accept, OFFERS) == expected


@pytest.mark.parametrize("accept", ["text/html", "image/avif", "*/*;q=0", "image/png;q=0", "nonsense"])
def test_nothing_acceptable_is_said_so(accept: str | None) -> None:
    with pytest.raises(NotAcceptableError, match="image/png"):
        negotiate(accept, OFFERS)
