"""The service with a remote model behind it, on a socket."""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
from typing import Any

import numpy as np
import pytest
import structlog
from PIL import Image

from service.commands.classify import configure_classify, run_classify
from service.errors import CommandInputError, SettingsError
from tests.service.remote.answers import QUICK, by_brightness, classified, mean_level


def test_a_remote_classifier_answers_for_the_purified_image_and_the_original(
    remote_client: Any, fake: Any, image: bytes
) -> None:
    client = remote_client(remote_authorization="Bearer s3cret")
    fake.respond = by_brightness
    answer = client.post("/classify-robust?mode=noisy&seed=1", content=image)
    assert answer.status_code == 200, answer.text
    said = answer.json()
    assert (said["model"], said["purifier"], said["undefended"]) == ("remote:classifier", "plain", None)
    assert [p["label"] for p in said["predictions"]] == ["dog", "cat"]
    assert said["suspicion"]["prediction_shift"] is not None
    assert list(said["timings_ms"]) == ["decode", "queue", "purify", "downstream", "encode"]
    assert len(fake.bodies) == 2  # once about the mean of three draws, once about the original
    assert all(Image.open(io.BytesIO(body)).size == (30, 20) for body in fake.bodies)
    assert sorted(mean_level(body) == 200 / 255 for body in fake.bodies) == [False, True]
    assert all(headers["authorization"] == "Bearer s3cret" for headers in fake.sent)
    assert {headers["x-request-id"] for headers in fake.sent} == {said["request_id"]}
    compared = client.post("/classify-robust?compare=true&top_k=1", content=image).json()
    assert len(compared["undefended"]) == len(compared["predictions"]) == 1


def test_partial_predictions_of_unequal_width_are_compared_all_the_same(
    remote_client: Any, fake: Any, image: bytes
) -> None:
    client = remote_client()
    answers = [classified(1.0), {"predictions": [{"label": "owl", "index": 3, "probability": 0.5}]}]

    async def one_of_two(path: str, body: bytes) -> Any:
        return answers[len(fake.bodies) % 2]

    fake.respond = one_of_two
    answer = client.post("/classify-robust?compare=true&top_k=9", content=image).json()
    assert len(answer["predictions"]) == len(answer["undefended"]) == 4
    assert answer["suspicion"]["prediction_shift"] > 0.5


def test_a_remote_detector_is_asked_about_the_original_only_to_compare(
    remote_client: Any, fake: Any, image: bytes
) -> None:
    client = remote_client("detector")
    box = {"x0": -1, "y0": 2, "x1": 300, "y1": 9}
    fake.answer = {"objects": [{"label": "cell", "index": 2, "score": 0.9, "box": box}]}
    answer = client.post("/detect-robust", content=image).json()
    assert answer["objects"] == [
        {"label": "cell", "index": 2, "score": pytest.approx(0.9), "box": {"x0": 0, "y0": 2, "x1": 30, "y1": 9}}
    ]
    assert (answer["model"], len(fake.bodies)) == ("remote:detector", 1)
    assert client.post("/detect-robust?compare=true", content=image).json()["undefended"]
    assert len(fake.bodies) == 3


def test_a_remote_segmenter_gives_a_mask(remote_client: Any, fake: Any, image: bytes, image_of: Any) -> None:
    client = remote_client("segmenter")
    out = io.BytesIO()
    Image.fromarray(np.full((20, 30), 3, np.uint8)).save(out, "PNG")
    mask = {"base64": base64.b64encode(out.getvalue()).decode()}
    fake.answer = {"defended": {"mask": mask, "classes": [{"label": "road", "index": 3}]}}
    assert (np.asarray(image_of(client.post("/segment-robust", content=image).content)) == 3).all()
    answer = client.post("/segment-robust?compare=true", content=image).json()
    assert answer["defended"]["classes"] == [{"label": "road", "index": 3, "share": 1.0}]
    assert answer["undefended"]["classes"] == answer["defended"]["classes"]
    assert len(fake.bodies) == 3


def test_connections_are_kept_and_used_again(remote_client: Any, fake: Any, image: bytes) -> None:
    client = remote_client()
    fake.connections.clear()
    for _ in range(5):
        assert client.post("/classify-robust", content=image).status_code == 200
    assert len(fake.bodies) == 10
    assert len(fake.connections) <= 2


def test_the_start_does_not_need_the_model_and_the_log_says_how_it_is(client_for: Any, fake: Any) -> None:
    fake.stop()
    with structlog.testing.capture_logs() as lines:
        client = client_for(classifier=fake.url + "/predict?key=k3y", remote_authorization="Bearer s3cret")
    assert client.get("/health/ready").status_code == 200
    (line,) = (line for line in lines if line["event"] == "remote_does_not_answer")
    assert (line["model"], line["task"]) == ("remote:classifier", "classifier")
    assert "cannot be reached" in line["reason"]
    assert "k3y" not in str(lines)
    assert "s3cret" not in str(lines)
    models = client.get("/models")
    assert (models.json()["classifier"], models.json()["labels"]) == ("remote:classifier", 0)
    assert models.json()["remotes"] == [
        {"task": "classifier", "name": "remote:classifier", "protocol": "image-in-json-out", "breaker": "closed"}
    ]
    assert "k3y" not in models.text
    assert str(fake.url) not in models.text
    assert client.get("/v2/models/remote:classifier").json()["outputs"][0]["shape"] == [-1, -1]


def test_a_model_that_answers_is_greeted_in_the_log(client_for: Any, fake: Any) -> None:
    fake.answer = classified(0.5, 0.5)
    with structlog.testing.capture_logs() as lines:
        client_for(classifier=fake.url)
    assert [line["model"] for line in lines if line["event"] == "remote_answers"] == ["remote:classifier"]


def test_a_model_that_hangs_holds_the_start_up_for_a_moment_only(
    client_for: Any, fake: Any, monkeypatch: pytest.MonkeyPatch, until: Any
) -> None:
    async def slow(path: str, body: bytes) -> Any:
        await asyncio.sleep(20)

    fake.respond = slow
    monkeypatch.setattr("service.remote.remotes.GREETING_S", 0.5)
    with structlog.testing.capture_logs() as lines:
        client = client_for(classifier=fake.url, detector=f"oip+{fake.url}/models/net")
    assert client.get("/health/ready").status_code == 200
    silent = [line["model"] for line in lines if line["event"] == "remote_does_not_answer"]
    assert sorted(silent) == ["remote:classifier", "remote:net"]
    until(lambda: fake.busy == 0)


def test_a_wrong_url_stops_the_start(client_for: Any) -> None:
    with pytest.raises(SettingsError, match="NRP_CLASSIFIER: "):
        client_for(classifier="http://")


def test_only_the_service_asks_remote_models(monkeypatch: pytest.MonkeyPatch, store_root: Any, tmp_path: Any) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    parser = argparse.ArgumentParser()
    configure_classify(parser)
    args = parser.parse_args([str(tmp_path), "--classifier", "http://host/x", "--store", str(store_root)])
    with pytest.raises(CommandInputError, match="nrp serve"):
        run_classify(args)


def test_more_classes_than_labels_in_the_file_is_a_bad_gateway(
    remote_client: Any, fake: Any, image: bytes, tmp_path: Any
) -> None:
    (tmp_path / "labels").write_text("Katze\nHund\n")
    client = remote_client(classifier_labels=tmp_path / "labels")
    answer = client.post("/classify-robust", content=image).json()
    assert [p["label"] for p in answer["predictions"]] == ["Hund", "Katze"]
    fake.answer = classified(0.2, 0.3, 0.5)
    told = client.post("/classify-robust", content=image)
    assert (told.status_code, "NRP_CLASSIFIER_LABELS has 2" in told.json()["detail"]) == (502, True)


def oip_of(fake: Any, *, binary: bool) -> None:
    """Make ``fake`` a server of the protocol whose classifier says how bright an image is."""

    async def respond(path: str, body: bytes) -> Any:
        if path == "/v2":
            return {"name": "triton", "extensions": ["binary_tensor_data"] if binary else []}
        if not path.endswith("/infer"):
            tensor = {"name": "x", "datatype": "FP32", "shape": [-1, 3, 8, 8]}
            return {"name": "net", "inputs": [tensor], "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}]}
        split = int(fake.sent[-1].get("inference-header-content-length", len(body)))
        head = json.loads(body[:split])
        values = np.frombuffer(body[split:], "<f4") if binary else np.array(head["inputs"][0]["data"])
        assert head["inputs"][0]["shape"] == [1, 3, 8, 8]
        level = float(values.mean())
        return {
            "model_name": "net",
            "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [0.0, 20 * (level - 0.5)]}],
        }

    fake.respond = respond


@pytest.mark.parametrize("binary", [True, False])
def test_a_server_of_the_inference_protocol_is_asked_in_its_own_terms(
    client_for: Any, fake: Any, file_of: Any, binary: bool
) -> None:
    oip_of(fake, binary=binary)
    client = client_for(**QUICK, classifier=f"oip+{fake.url}/models/net", classifier_labels=None)
    assert fake.paths == ["/v2", "/v2/models/net"]
    for level, index in ((250, 1), (5, 0)):
        content = file_of(Image.new("RGB", (30, 20), (level,) * 3))
        answer = client.post("/classify-robust?top_k=1", content=content).json()
        assert (answer["model"], answer["predictions"][0]["index"]) == ("remote:net", index)
    assert set(fake.paths[2:]) == {"/v2/models/net/infer"}  # the metadata is read once


def test_metadata_is_read_when_the_server_comes_up_later(client_for: Any, fake: Any, image: bytes) -> None:
    oip_of(fake, binary=True)
    fake.stop()
    client = client_for(**QUICK, classifier=f"oip+{fake.url}/models/net")
    assert client.post("/classify-robust", content=image).status_code == 503
    fake.start()
    assert client.post("/classify-robust", content=image).status_code == 200


def test_a_failure_about_one_image_of_an_inference_request_is_the_whole_requests(remote_client: Any, fake: Any) -> None:
    client = remote_client()
    fake.respond = by_brightness
    levels = np.stack([np.full((4, 4, 3), level, np.uint8) for level in (0, 255)])
    tensor = {"name": "image", "datatype": "UINT8", "shape": [2, 4, 4, 3], "data": levels.ravel().tolist()}
    request = {"inputs": [tensor]}
    answer = client.post("/v2/models/remote:classifier/infer", json=request).json()
    (output,) = answer["outputs"]
    assert (output["shape"], output["data"]) == ([2, 2], [1, 0, 0, 1])
    assert len(fake.bodies) == 4

    async def one_bad(path: str, body: bytes) -> Any:
        return await by_brightness(path, body) if mean_level(body) < 0.5 else b"nonsense"

    fake.respond = one_bad
    told = client.post("/v2/models/remote:classifier/infer", json=request)
    assert (told.status_code, list(told.json())) == (502, ["error"])
    assert client.state.pixels.held == 0
