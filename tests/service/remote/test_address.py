from __future__ import annotations

from typing import Any

import pytest

from service.errors import SettingsError
from service.remote.address import is_remote, parse_address
from service.remote.model import remote_models


def test_a_plain_url_is_kept_whole_and_named_after_its_task() -> None:
    address = parse_address("classifier", "https://models.example:8443/predict?key=abc&top_k=3")
    assert address.url == "https://models.example:8443/predict?key=abc&top_k=3"
    assert (address.protocol, address.name) == ("image-in-json-out", "remote:classifier")


@pytest.mark.parametrize(
    ("text", "server", "url"),
    [
        ("oip+http://host:8000/models/net", "http://host:8000/v2", "http://host:8000/v2/models/net"),
        ("oip+https://host/v2/models/net/", "https://host/v2", "https://host/v2/models/net"),
        ("oip+http://host/a/b/models/net", "http://host/a/b/v2", "http://host/a/b/v2/models/net"),
        ("oip+http://h/a/v2/models/net/versions/7", "http://h/a/v2", "http://h/a/v2/models/net/versions/7"),
        ("OIP+HTTP://[::1]:9/models/net", "http://[::1]:9/v2", "http://[::1]:9/v2/models/net"),
    ],
)
def test_a_model_of_the_inference_protocol_is_found_under_its_server(text: str, server: str, url: str) -> None:
    address = parse_address("detector", text)
    assert (address.server, address.url) == (server, url)
    assert (address.protocol, address.name) == ("open-inference-protocol", "remote:net")


def test_a_query_becomes_the_requests_parameters() -> None:
    address = parse_address("classifier", "oip+http://h/models/n?mode=static&samples=2&dynamic=false&x=&y=[1]&z=NaN")
    assert dict(address.parameters) == {
        "mode": "static", "samples": 2, "dynamic": False, "x": "", "y": "[1]", "z": "NaN",
    }  # fmt: skip
    assert "?" not in address.url


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("ftp://host/x", "http://"),
        ("oip://host/models/x", "oip+http://"),
        ("http://", "no host"),
        ("http://user:secret@host/x", "NRP_REMOTE_AUTHORIZATION"),
        ("http://host:99999/x", "Port"),
        ("http://host:eighty/x", "Port"),
        ("http://host/x#part", "fragment"),
        ("http://host/a b", "spaces"),
        ("http://host/a\nb", "spaces"),
        ("oip+http://host:8000", "/models/NAME"),
        ("oip+http://host/models/a/infer", "/models/NAME"),
        ("oip+http://host/models/../x", "/models/NAME"),
    ],
)
def test_a_wrong_url_is_one_line_that_names_the_setting_and_no_secret(settings_for: Any, text: str, named: str) -> None:
    assert is_remote(text)
    with pytest.raises(SettingsError, match="NRP_SEGMENTER: ") as failure:
        remote_models(settings_for(segmenter=text), ["segmenter"])
    assert named in str(failure.value)
    assert "\n" not in str(failure.value)
    assert "secret" not in str(failure.value)


def test_names_of_the_store_and_of_torchvision_are_not_remote(settings_for: Any) -> None:
    assert not any(map(is_remote, ("imagenette-resnet", "torchvision:resnet50", "none", "auto")))
    assert remote_models(settings_for(), ["classifier", "segmenter", "detector"]) == {}


def test_only_the_tasks_asked_for_are_looked_at(settings_for: Any) -> None:
    settings = settings_for(classifier="http://h/", detector="oip+http://h/models/d")
    assert [model.name for model in remote_models(settings, ["detector"]).values()] == ["remote:d"]
