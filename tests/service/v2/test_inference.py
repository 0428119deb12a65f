"""``/v2`` as its clients use it: JSON and binary tensors, every model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.service.v2.requests import HEADER_LENGTH, as_bytes, as_json, floats, levels, output_of, tensor


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
