"""``/v2`` as its clients use it: JSON and binary tensors, every model, every error in the protocol's form."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

HEADER_LENGTH = "inference-header-content-length"


def until(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.002)


def levels(count: int = 2, height: int = 5, width: int = 7) -> NDArray[Any]:
    return np.random.default_rng(count).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def floats(count: int = 2, height: int = 5, width: int = 7) -> NDArray[Any]:
    return (levels(count, height, width).transpose(0, 3, 1, 2) / 255).astype(np.float32)


def tensor(array: NDArray[Any], **changes: Any) -> dict[str, Any]:
    datatype = "UINT8" if array.dtype == np.uint8 else "FP32"
    return {"name": "image", "datatype": datatype, "shape": list(array.shape), **changes}


def as_json(array: NDArray[Any], **members: Any) -> dict[str, Any]:
    return {"json": {"inputs": [tensor(array, data=array.ravel().tolist())], **members}}


def as_bytes(array: NDArray[Any], **members: Any) -> dict[str, Any]:
    """A request as ``tritonclient`` sends it by default: all tensors binary, both ways."""
    raw = array.tobytes()
    request = {
        "inputs": [tensor(array, parameters={"binary_data_size": len(raw)})],
        **members,
        "parameters": {"binary_data_output": True, **members.get("parameters", {})},
    }
    head = json.dumps(request).encode()
    return {"content": head + raw, "headers": {HEADER_LENGTH: str(len(head))}}


def output_of(answer: httpx.Response) -> NDArray[Any]:
    """The one output of an answer, from JSON or from the bytes behind it."""
    assert answer.status_code == 200, answer.text
    split = int(answer.headers.get(HEADER_LENGTH, len(answer.content)))
    (output,) = json.loads(answer.content[:split])["outputs"]
    kind = {"UINT8": "u1", "FP32": "<f4"}[output["datatype"]]
    if "data" in output:
        return np.array(output["data"], kind).reshape(output["shape"])
    assert output["parameters"]["binary_data_size"] == len(answer.content) - split
    return np.frombuffer(answer.content[split:], kind).reshape(output["shape"])


@pytest.mark.parametrize("sent", [as_json, as_bytes])
@pytest.mark.parametrize("made", [levels, floats])
def test_a_purifier_answers_in_the_layout_it_was_asked_in(client: Any, sent: Any, made: Any) -> None:
    array = made()
    answer = client.post("/v2/models/plain/infer", **sent(array))
    back = output_of(answer)
    assert back.dtype == array.dtype
    assert np.allclose(back, array, atol=1e-7)
    binary = sent is as_bytes
    assert answer.headers["content-type"] == ("application/octet-stream" if binary else "application/json")
    assert (HEADER_LENGTH in answer.headers) == binary


def test_the_answer_names_model_version_request_purifier_and_mode(client: Any) -> None:
    answer = client.post("/v2/models/noise/infer", **as_json(levels(), id="mine")).json()
    card = client.get("/models/noise").json()["card"]
    assert (answer["model_name"], answer["id"]) == ("noise", "mine")
    assert answer["model_version"] == card["sha256"][:12]
    assert answer["parameters"] == {"purifier": "noise", "mode": "noisy", "draws": 3}
    assert answer["outputs"][0]["name"] == "purified"
    assert "id" not in client.post("/v2/models/plain/infer", **as_json(levels())).json()


def test_nested_data_is_as_good_as_flat(client: Any) -> None:
    array = levels()
    request = {"inputs": [tensor(array, data=array.tolist())]}
    assert np.array_equal(output_of(client.post("/v2/models/plain/infer", json=request)), array)


def test_each_output_may_choose_its_form(client: Any) -> None:
    array = levels()
    wanted = [{"name": "purified", "parameters": {"binary_data": False}}]
    answer = client.post("/v2/models/plain/infer", **as_bytes(array, outputs=wanted))
    assert HEADER_LENGTH not in answer.headers
    assert np.array_equal(output_of(answer), array)
    wanted = [{"name": "purified", "parameters": {"binary_data": True}}]
    answer = client.post("/v2/models/plain/infer", **as_json(array, outputs=wanted))
    assert HEADER_LENGTH in answer.headers
    assert np.array_equal(output_of(answer), array)


def test_the_classifier_answers_as_the_route_for_images_does(
    client: Any, photo: Callable[..., Image.Image], file_of: Callable[..., bytes]
) -> None:
    images = [photo(24, 16, seed) for seed in range(3)]
    stacked = np.stack([np.asarray(image) for image in images])
    answer = client.post("/v2/models/tiny/infer", **as_bytes(stacked, parameters={"mode": "noisy", "seed": 40}))
    probabilities = output_of(answer)
    assert probabilities.shape == (3, 3)
    for place, image in enumerate(images):
        alone = client.post(f"/classify-robust?mode=noisy&seed={40 + place}", content=file_of(image)).json()
        for prediction in alone["predictions"]:
            assert probabilities[place, prediction["index"]] == pytest.approx(prediction["probability"], abs=1e-5)


def test_image_i_is_purified_with_seed_plus_i_whatever_its_neighbours(
    client: Any,
    photo: Callable[..., Image.Image],
    file_of: Callable[..., bytes],
    image_of: Callable[[bytes], Image.Image],
) -> None:
    image = photo(16, 16)
    stacked = np.stack([np.asarray(image)] * 3)
    back = output_of(client.post("/v2/models/noise/infer", **as_bytes(stacked, parameters={"seed": 2**63 - 2})))
    for place, seed in enumerate((2**63 - 2, 2**63 - 1, 0)):
        alone = image_of(client.post(f"/purify?purifier=noise&seed={seed}", content=file_of(image)).content)
        assert np.array_equal(back[place], np.asarray(alone))


def test_parameters_choose_purifier_mode_and_samples(client: Any) -> None:
    def said(model: str, **parameters: Any) -> Any:
        answer = client.post(f"/v2/models/{model}/infer", **as_json(levels(), parameters=parameters)).json()
        return answer["parameters"]

    assert said("tiny") == {"purifier": "plain", "mode": "static", "draws": 1}
    assert said("tiny", purifier="noise") == {"purifier": "noise", "mode": "noisy", "draws": 3}
    assert said("plain", dynamic=True, samples=2) == {"purifier": "plain", "mode": "published", "draws": 2}
    assert said("noise", dynamic=False) == {"purifier": "noise", "mode": "static", "draws": 1}
    assert said("plain", timeout=5_000_000) == {"purifier": "plain", "mode": "static", "draws": 1}


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


def test_a_versioned_path_serves_the_version_it_names(client: Any) -> None:
    (version,) = client.get("/v2/models/plain").json()["versions"]
    array = levels()
    base = f"/v2/models/plain/versions/{version}"
    assert np.array_equal(output_of(client.post(f"{base}/infer", **as_bytes(array))), array)
    assert client.get(base).json() == client.get("/v2/models/plain").json()
    assert client.get(f"{base}/ready").json() == {"name": "plain", "ready": True}


def test_metadata_tells_a_client_what_to_send(client: Any) -> None:
    assert client.get("/v2").json() == {"name": "nrp", "version": "0.1.0", "extensions": ["binary_tensor_data"]}
    purifier = client.get("/v2/models/noise").json()
    assert purifier["inputs"] == [{"name": "image", "datatype": "UINT8", "shape": [-1, -1, -1, 3]}]
    assert purifier["outputs"] == [{"name": "purified", "datatype": "UINT8", "shape": [-1, -1, -1, 3]}]
    assert "noisy by default" in purifier["parameters"]["mode"]
    assert "FP32 [N, 3, H, W]" in purifier["parameters"]["image"]
    classifier = client.get("/v2/models/tiny").json()
    assert classifier["outputs"] == [{"name": "probabilities", "datatype": "FP32", "shape": [-1, 3]}]
    assert classifier["parameters"]["labels"] == ["cat", "dog", "newt"]


def test_health_is_that_of_the_service(client: Any) -> None:
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    assert client.get("/v2/models/tiny/ready").json() == {"name": "tiny", "ready": True}
    client.state.draining = True
    for path in ("/v2/health/ready", "/v2/models/tiny/ready"):
        answer = client.get(path)
        assert answer.status_code == 503
        assert "draining" in answer.json()["error"]
    assert client.get("/v2/health/live").status_code == 200


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


def test_metrics_and_the_log_count_it_like_any_other_request(client: Any) -> None:
    client.post("/v2/models/tiny/infer", **as_bytes(levels(3)))
    text = client.get("/metrics").text
    for series in (
        'nrp_requests_total{route="/v2/models/{name}/infer",status="200"} 1.0',
        'nrp_stage_seconds_count{stage="downstream"} 1.0',
        "nrp_batch_images_sum 3.0",
        'nrp_suspicion_count{calibrated="false"} 3.0',
    ):
        assert series in text, series
