"""``/v2`` where it refuses: every error in the protocol's form, and the limits."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from tests.service.v2.requests import HEADER_LENGTH, as_bytes, as_json, floats, levels, output_of, tensor, until


def request_with(**changes: Any) -> dict[str, Any]:
    array = levels()
    return {"json": {"inputs": [{**tensor(array, data=array.ravel().tolist()), **changes}]}}


def bytes_with(header_length: str | None = None, **changes: Any) -> dict[str, Any]:
    sent = as_bytes(levels())
    head = json.loads(sent["content"][: int(sent["headers"][HEADER_LENGTH])])
    head["inputs"][0].update(changes)
    text = json.dumps(head).encode()
    length = str(len(text)) if header_length is None else header_length
    return {"content": text + levels().tobytes(), "headers": {HEADER_LENGTH: length}}


MALFORMED: tuple[tuple[dict[str, Any], str], ...] = (
    ({"content": b""}, "the body"),
    ({"content": b"{"}, "the body"),
    ({"content": b"[" * 100_000}, "the body"),
    ({"content": b'{"inputs": 3}'}, "inputs"),
    ({"json": {"inputs": []}}, "inputs"),
    (as_json(levels(), parameters={"sed": 1}), "sed"),
    (as_json(levels(), parameters={"seed": -1}), "seed"),
    (as_json(levels(), parameters={"samples": 0}), "samples"),
    (as_json(levels(), parameters={"timeout": 0}), "timeout"),
    (as_json(levels(), parameters={"purifier": "noise"}), "purifier"),
    (as_json(levels(), parameters={"binary_data_output": 7}), "binary_data"),
    (as_json(levels(), outputs=[{"name": "probabilities"}]), "purified"),
    (as_json(levels(), outputs=[{"name": "purified", "parameters": {"classification": 3}}]), "classification"),
    (request_with(name="input"), "image"),
    (request_with(datatype="INT64"), "UINT8"),
    (request_with(datatype="FP32"), "shape"),
    (request_with(shape=[2, 5, 7]), "shape"),
    (request_with(shape=[2, 5, 0, 3]), "shape"),
    (request_with(shape=[-1, 5, 7, 3]), "shape"),
    (request_with(shape=[10**4000, 5, 7, 3]), "shape"),
    (request_with(shape=[2, 5, 6, 3]), "data"),
    (request_with(data=None), "data"),
    (request_with(data="text"), "numbers"),
    (request_with(data=[[1, 2], [3]]), "rows"),
    (request_with(data=[256] * 210), "0 to 255"),
    (request_with(data=[-1] * 210), "0 to 255"),
    (request_with(data=[0.5] * 210), "numbers"),
    (request_with(data=[True] * 210), "numbers"),
    (request_with(data=[10**30] * 210), "numbers"),
    (request_with(parameters={"shared_memory_region": "x"}), "shared_memory_region"),
    (as_json(floats() + 0.5), "[0, 1]"),
    (as_bytes(floats() - 0.5), "[0, 1]"),
    (as_bytes(np.where(floats() > 0.5, np.float32("nan"), floats())), "[0, 1]"),
    (bytes_with(header_length="-1"), HEADER_LENGTH),
    (bytes_with(header_length="1e3"), HEADER_LENGTH),
    (bytes_with(header_length="9" * 5000), HEADER_LENGTH),
    (bytes_with(header_length="99999"), HEADER_LENGTH),
    (bytes_with(header_length="5"), "the body"),
    (bytes_with(parameters={"binary_data_size": 209}), "209"),
    (bytes_with(parameters={}), "binary_data_size"),
    (bytes_with(data=[1]), "data"),
    (bytes_with(shape=[1, 5, 7, 3]), "105 bytes"),
)


@pytest.mark.parametrize(("sent", "named"), MALFORMED, ids=lambda part: part if isinstance(part, str) else "")
def test_a_malformed_request_is_told_what_is_wrong(client: Any, sent: dict[str, Any], named: str) -> None:
    answer = client.post("/v2/models/plain/infer", **sent)
    assert answer.status_code == 400, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert list(answer.json()) == ["error"]
    assert named.lower() in answer.json()["error"].lower()
    assert len(answer.json()["error"]) < 400
    assert client.state.pixels.held == 0


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/nothing", 404),
        ("GET", "/v2/models/nope", 404),
        ("GET", "/v2/models/nope/ready", 404),
        ("GET", "/v2/models/plain/versions/7", 404),
        ("GET", "/v2/models/plain/versions/7/ready", 404),
        ("POST", "/v2/models/nope/infer", 404),
        ("POST", "/v2/models/plain/versions/7/infer", 404),
        ("GET", "/v2/models/plain/infer", 405),
    ],
)
def test_what_is_not_there_is_told_in_the_protocol_s_form(client: Any, method: str, path: str, status: int) -> None:
    answer = client.sending(method, path).result(20)
    assert (answer.status_code, list(answer.json())) == (status, ["error"])


def test_what_cannot_be_honoured_is_told_too(client: Any) -> None:
    unknown = client.post("/v2/models/plain/infer", **as_json(levels(), parameters={"mode": "no-such"}))
    assert (unknown.status_code, "no-such" in unknown.json()["error"]) == (422, True)
    other = client.post("/v2/models/tiny/infer", **as_json(levels(), parameters={"purifier": "no-such"}))
    assert (other.status_code, "no-such" in other.json()["error"]) == (404, True)
    packed = as_bytes(levels())
    packed["headers"]["content-encoding"] = "gzip"
    assert client.post("/v2/models/plain/infer", **packed).status_code == 415


def test_the_limits_are_those_of_the_service(client_for: Any) -> None:
    client = client_for(max_pixels=400, max_pixels_in_flight=1024, max_waiting=3, max_body_bytes=4000)
    for array, why in (
        (levels(1, 21, 20), "400 pixels each"),
        (levels(3, 20, 20), "1024 in all"),
        (levels(4, 8, 8), "3 images"),
    ):
        answer = client.post("/v2/models/plain/infer", **as_bytes(array))
        assert (answer.status_code, why in answer.json()["error"]) == (422, True), answer.text
    assert client.post("/v2/models/plain/infer", **as_bytes(levels(1, 40, 40))).status_code == 413
    assert client.post("/v2/models/plain/infer", **as_bytes(levels(3, 8, 8))).status_code == 200
    assert client.state.pixels.held == 0


def test_long_json_is_refused_both_ways_and_binary_is_not(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.v2.envelope.MOST_JSON_BYTES", 2000)
    monkeypatch.setattr("service.v2.envelope.MOST_JSON_VALUES", 100)
    array = levels(2, 16, 16)
    assert client.post("/v2/models/plain/infer", **as_json(array)).status_code == 413
    answer = client.post("/v2/models/plain/infer", **as_bytes(array, parameters={"binary_data_output": False}))
    assert (answer.status_code, "binary_data" in answer.json()["error"]) == (422, True)
    assert client.post("/v2/models/plain/infer", **as_bytes(array)).status_code == 200


def test_every_image_of_a_request_takes_a_place_in_the_queue(client_for: Any, gated_engine: Any) -> None:
    client = client_for(gated_engine, max_waiting=5)
    busy = client.sending("POST", "/v2/models/plain/infer", **as_bytes(levels(1)))
    assert client.state.engine.entered.wait(10)
    four = client.sending("POST", "/v2/models/plain/infer", **as_bytes(levels(4)))
    until(lambda: client.state.batcher.depth == 4)
    answer = client.post("/v2/models/plain/infer", **as_bytes(levels(2)))
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) >= 1
    assert "waiting" in answer.json()["error"]
    assert client.state.batcher.depth == 4
    client.state.engine.gate.set()
    assert np.array_equal(output_of(busy.result(20)), levels(1))
    assert np.array_equal(output_of(four.result(20)), levels(4))
    assert client.state.engine.ran == [1, 4]
    assert client.state.pixels.held == 0


def test_a_request_s_own_timeout_drops_it_from_the_queue(client_for: Any, gated_engine: Any) -> None:
    client = client_for(gated_engine)
    busy = client.sending("POST", "/v2/models/plain/infer", **as_bytes(levels(1)))
    assert client.state.engine.entered.wait(10)
    late = client.sending("POST", "/v2/models/plain/infer", **as_bytes(levels(2), parameters={"timeout": 1}))
    until(lambda: client.state.batcher.depth == 2)
    client.state.engine.gate.set()
    assert late.result(20).status_code == 504
    assert busy.result(20).status_code == 200
    assert client.state.engine.ran == [1]
