"""The service with a remote model behind it, on a socket."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import structlog
from PIL import Image

from service.errors import CommandInputError, SettingsError

QUICK = {"remote_backoff_s": 0.001, "remote_retries": 1, "remote_breaker_failures": 50}


def classified(*probabilities: float) -> dict[str, Any]:
    labels = ("cat", "dog", "newt", "owl")
    rows = [{"label": labels[i], "index": i, "probability": p} for i, p in enumerate(probabilities)]
    return {"predictions": rows}


def mean_level(png: bytes) -> float:
    return float(np.asarray(Image.open(io.BytesIO(png))).mean()) / 255


async def by_brightness(path: str, body: bytes) -> Any:
    level = mean_level(body)
    return classified(1 - level, level)


@pytest.fixture
def remote_client(client_for: Callable[..., Any], fake: Any) -> Any:
    """A service whose classifier is ``fake``; what the start asked it is forgotten."""
    fake.answer = classified(0.25, 0.75)

    def make(task: str = "classifier", path: str = "/predict?key=k3y", **changes: Any) -> Any:
        others = {} if task == "classifier" else {"classifier": "none"}
        client = client_for(**{**QUICK, **others, task: fake.url + path, **changes})
        for seen in (fake.bodies, fake.paths, fake.sent):
            seen.clear()
        return client

    return make


@pytest.fixture
def image(file_of: Callable[..., bytes]) -> bytes:
    return file_of(Image.new("RGB", (30, 20), (200, 200, 200)))


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


@pytest.mark.parametrize(
    ("answer", "status", "reason"),
    [
        (b"no json", 200, "the body"),
        ({"predictions": []}, 200, "predictions"),
        (b"x" * 3000, 200, "2000 bytes"),
        ({"error": "s3cret of theirs"}, 500, "answered 500"),
        ({"error": "s3cret of theirs"}, 403, "answered 403"),
    ],
)
def test_an_answer_that_is_none_is_a_bad_gateway(
    remote_client: Any, fake: Any, image: bytes, answer: Any, status: int, reason: str
) -> None:
    client = remote_client(remote_max_answer_bytes=2000)
    fake.answer, fake.status = answer, status
    told = client.post("/classify-robust", content=image)
    assert told.status_code == 502
    assert told.headers["content-type"] == "application/problem+json"
    problem = told.json()
    assert problem["type"] == "urn:nrp:problem:bad-gateway"
    assert problem["detail"].startswith("remote:classifier")
    assert reason in problem["detail"]
    assert "s3cret" not in problem["detail"]
    assert client.state.pixels.held == 0


def test_a_slow_model_is_a_gateway_timeout(remote_client: Any, fake: Any, image: bytes, until: Any) -> None:
    client = remote_client(remote_timeout_s=0.1)

    async def slow(path: str, body: bytes) -> Any:
        await asyncio.sleep(20)

    fake.respond = slow
    told = client.post("/classify-robust", content=image)
    assert (told.status_code, told.json()["type"]) == (504, "urn:nrp:problem:remote-timeout")
    until(lambda: fake.left == 2)  # nobody asks on


def test_the_deadline_of_the_request_comes_first(remote_client: Any, fake: Any, image: bytes, until: Any) -> None:
    client = remote_client(request_timeout_s=0.3)

    async def slow(path: str, body: bytes) -> Any:
        await asyncio.sleep(20)

    fake.respond = slow
    told = client.post("/classify-robust", content=image)
    assert (told.status_code, told.json()["type"]) == (504, "urn:nrp:problem:deadline-exceeded")
    until(lambda: fake.left == 2)
    assert client.state.pixels.held == 0


def test_a_client_that_goes_away_ends_the_call(remote_client: Any, fake: Any, image: bytes, until: Any) -> None:
    client = remote_client()

    both = asyncio.Semaphore(0)

    async def slow(path: str, body: bytes) -> Any:
        client.begin(released())
        await asyncio.sleep(20)

    async def released() -> None:
        both.release()

    fake.respond = slow
    events = [{"type": "http.request", "body": image, "more_body": False}]

    async def receive() -> Any:
        if events:
            return events.pop()
        await both.acquire()
        await both.acquire()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        pass

    scope = {
        "type": "http", "method": "POST", "path": "/classify-robust", "raw_path": b"/classify-robust",
        "query_string": b"", "headers": [], "http_version": "1.1", "scheme": "http", "server": ("x", 80),
        "client": ("y", 1), "root_path": "",
    }  # fmt: skip
    client.run(client.app(scope, receive, send))
    until(lambda: fake.left == 2)
    until(lambda: client.state.pixels.held == 0)
    assert sample(client, "nrp_remote_requests_total", outcome="cancelled") == 2


def sample(client: Any, series: str, model: str = "remote:classifier", **labels: str) -> float | None:
    value: float | None = client.state.metrics.registry.get_sample_value(series, {"model": model, **labels})
    return value


def test_dead_then_back_the_breaker_opens_and_closes_and_readiness_never_falls(
    remote_client: Any, fake: Any, image: bytes, until: Any
) -> None:
    client = remote_client(remote_breaker_failures=3, remote_breaker_s=0.5, remote_retries=0)
    fake.stop()
    for _ in range(2):
        told = client.post("/classify-robust", content=image)
        assert (told.status_code, told.json()["type"]) == (503, "urn:nrp:problem:remote-unavailable")
    ran = client.state.metrics.registry.get_sample_value("nrp_batch_images_count")
    told = client.post("/classify-robust", content=image)
    assert (told.status_code, told.headers["retry-after"]) == (503, "1")
    assert client.state.metrics.registry.get_sample_value("nrp_batch_images_count") == ran  # the device did nothing
    assert "remote:classifier" in told.json()["detail"]
    assert "left alone" in told.json()["detail"]
    assert sample(client, "nrp_remote_breaker_state") == 2
    assert client.get("/health/ready").status_code == 200
    assert client.get("/models").json()["remotes"][0]["breaker"] == "open"
    assert client.post("/purify", content=image).status_code == 200
    fake.start()
    until(lambda: sample(client, "nrp_remote_breaker_state") == 1)
    assert client.post("/classify-robust", content=image).status_code == 200
    assert sample(client, "nrp_remote_breaker_state") == 0
    assert sample(client, "nrp_remote_requests_total", outcome="ok") >= 2


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
    monkeypatch.setattr("service.remote.remotes.GREETING_S", 0.1)
    with structlog.testing.capture_logs() as lines:
        client = client_for(classifier=fake.url, detector=f"oip+{fake.url}/models/net")
    assert client.get("/health/ready").status_code == 200
    silent = [line["model"] for line in lines if line["event"] == "remote_does_not_answer"]
    assert sorted(silent) == ["remote:classifier", "remote:net"]
    until(lambda: fake.left == 2)


def test_a_wrong_url_stops_the_start(client_for: Any) -> None:
    with pytest.raises(SettingsError, match="NRP_CLASSIFIER: "):
        client_for(classifier="http://")


def test_only_the_service_asks_remote_models(monkeypatch: pytest.MonkeyPatch, store_root: Any, tmp_path: Any) -> None:
    import argparse  # noqa: PLC0415

    from service.commands import configure_classify, run_classify  # noqa: PLC0415

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
