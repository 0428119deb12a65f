"""Another instance of this service as the remote model, over a socket: the same answers as of a model at home."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image

from service.app import create_app


@pytest.fixture
def url(running: Callable[..., Any], settings_for: Any, until: Any) -> str:
    app = create_app(settings_for())
    server = running(app, lifespan="on")
    until(lambda: app.state.service.warm)
    return f"http://127.0.0.1:{server.port}"


@pytest.mark.parametrize("protocol", ["open inference protocol", "image in, JSON out"])
def test_it_answers_as_the_classifier_at_home_does_in_the_static_mode(
    url: str, protocol: str, client_for: Any, photo: Callable[..., Image.Image], file_of: Callable[..., bytes]
) -> None:
    plain = f"{url}/classify-robust?mode=static&top_k=3"
    address = f"oip+{url}/models/tiny?mode=static" if protocol == "open inference protocol" else plain
    home, away = client_for(), client_for(classifier=address)
    for seed in range(4):
        content = file_of(photo(40, 33, seed))
        here, there = (
            client.post("/classify-robust?mode=static&compare=true", content=content).json() for client in (home, away)
        )
        assert [p["label"] for p in there["predictions"]] == [p["label"] for p in here["predictions"]]
        for theirs, ours in zip(there["predictions"], here["predictions"], strict=True):
            assert theirs["probability"] == pytest.approx(ours["probability"], abs=1e-5)
        assert len(there["undefended"]) == 3
    assert away.get("/models").json()["labels"] == 3
    assert away.get("/models").json()["remotes"][0]["breaker"] == "closed"


def test_what_it_does_not_serve_is_a_bad_gateway_with_its_status(url: str, client_for: Any, file_of: Any) -> None:
    away = client_for(classifier=f"oip+{url}/models/nope")
    told = away.post("/classify-robust", content=file_of(Image.new("RGB", (20, 20))))
    assert (told.status_code, "remote:nope answered 404" in told.json()["detail"]) == (502, True)
