"""What machines and operators see: probes, cards, metrics, request ids, logs, OpenAPI, the page."""

from __future__ import annotations

import asyncio
import re
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import structlog
from PIL import Image

from service.bench.errors import BenchError
from service.engine import Engine
from service.errors import HTTP_MEANINGS, UNEXPECTED, ServiceError, http_meaning


def until(condition: Any) -> None:
    give_up = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.002)


def test_live_answers_while_the_device_is_busy(
    client_for: Any, gated_engine: Any, photo: Callable[..., Image.Image], file_of: Callable[..., bytes]
) -> None:
    client = client_for(gated_engine)
    busy = client.sending("POST", "/purify", content=file_of(photo()))
    assert client.state.engine.entered.wait(10)
    assert client.get("/health/live").json() == {"status": "live"}
    assert client.get("/health/ready").status_code == 200
    client.state.engine.gate.set()
    assert busy.result(20).status_code == 200


def test_it_is_ready_only_once_warm(client_for: Any) -> None:
    gate = threading.Event()

    class Slow(Engine):
        def warm_up(self) -> None:
            gate.wait(10)
            super().warm_up()

    class Broken(Engine):
        def warm_up(self) -> None:
            raise RuntimeError("kernel missing")

    broken = client_for(Broken)
    assert "warm-up failed" in broken.get("/health/ready").json()["detail"]
    threading.Timer(0.2, gate.set).start()
    client = client_for(Slow)
    assert client.get("/health/ready").status_code == 200


def test_a_service_still_warming_up_says_so(client: Any) -> None:
    client.state.warm = False
    answer = client.get("/health/ready")
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert "warming up" in answer.json()["detail"]


def test_when_the_loop_has_died_readiness_is_false_and_callers_are_answered(
    client_for: Any, gated_engine: Any, photo: Callable[..., Image.Image], file_of: Callable[..., bytes]
) -> None:
    client = client_for(gated_engine)
    waiting = [client.sending("POST", "/purify", content=file_of(photo()))]
    assert client.state.engine.entered.wait(10)
    waiting += [client.sending("POST", "/purify", content=file_of(photo())) for _ in range(2)]
    until(lambda: client.state.batcher.depth == 2)

    async def kill() -> None:
        next(task for task in asyncio.all_tasks() if task.get_name() == "batcher").cancel()

    client.run(kill())
    assert [answer.result(10).status_code for answer in waiting] == [503] * 3
    assert client.post("/purify", content=file_of(photo())).json()["type"] == "urn:nrp:problem:engine-stopped"
    ready = client.get("/health/ready")
    assert ready.status_code == 503
    assert "batch loop" in ready.json()["detail"]
    assert client.get("/health/live").status_code == 200
    client.state.engine.gate.set()


def test_a_device_that_hangs_turns_readiness_false(
    client_for: Any, gated_engine: Any, photo: Callable[..., Image.Image], file_of: Callable[..., bytes]
) -> None:
    client = client_for(gated_engine, request_timeout_s=0.05)
    assert client.post("/purify", content=file_of(photo())).status_code == 504
    until(lambda: client.get("/health/ready").status_code == 503)
    client.state.engine.gate.set()
    until(lambda: client.get("/health/ready").status_code == 200)


def test_models_are_cards(client: Any) -> None:
    listed = client.get("/models").json()
    assert listed["purifier"] == "plain"
    assert listed["classifier"] == "tiny"
    assert [model["card"]["name"] for model in listed["models"]] == ["noise", "plain", "tiny"]
    one = client.get("/models/plain").json()
    assert one["loaded"] is True
    assert one["card"]["sha256"]
    assert one["card"]["figures"][0]["command"] == "none"
    assert client.get("/models/noise").json()["loaded"] is False
    unknown = client.get("/models/nope")
    assert unknown.status_code == 404
    assert "plain" in unknown.json()["detail"]


def test_another_purifier_is_loaded_on_demand(
    client: Any, photo: Callable[..., Image.Image], file_of: Callable[..., bytes]
) -> None:
    assert client.post("/purify?purifier=noise", content=file_of(photo())).status_code == 200
    assert client.get("/models/noise").json()["loaded"] is True


def test_metrics_count_what_happened(
    client_for: Any, photo: Callable[..., Image.Image], file_of: Callable[..., bytes]
) -> None:
    client = client_for(suspicion_threshold=1.0)
    client.post("/purify", content=file_of(photo()))
    client.post("/purify?mode=noisy", content=file_of(photo()))
    client.post("/classify-robust", content=file_of(photo()))
    client.post("/purify", content=b"text")
    client.get("/models/plain")
    client.get("/somewhere/else")
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    for series in (
        'nrp_requests_total{route="/purify",status="200"} 2.0',
        'nrp_requests_total{route="/purify",status="415"} 1.0',
        'nrp_requests_total{route="/classify-robust",status="200"} 1.0',
        'nrp_requests_total{route="/models/{name}",status="200"} 1.0',
        'nrp_requests_total{route="unmatched",status="404"} 1.0',
        'nrp_request_seconds_count{route="/purify"} 3.0',
        'nrp_stage_seconds_count{stage="decode"} 3.0',
        'nrp_stage_seconds_count{stage="queue"} 3.0',
        'nrp_stage_seconds_count{stage="purify"} 3.0',
        'nrp_stage_seconds_count{stage="downstream"} 1.0',
        'nrp_stage_seconds_count{stage="encode"} 3.0',
        "nrp_queue_depth 0.0",
        "nrp_pixels_in_flight 0.0",
        "nrp_batch_images_sum 3.0",
        'nrp_image_errors_total{type="unsupported-image"} 1.0',
        'nrp_suspicion_count{calibrated="false"} 3.0',
        "nrp_suspicious_total 1.0",
        'nrp_model_info{name="plain",sha256="',
        'nrp_model_info{name="tiny",sha256="',
        "nrp_device_memory_bytes ",
        "# TYPE nrp_rejected_total counter",
    ):
        assert series in answer.text, series


def test_two_applications_do_not_share_metrics(
    client_for: Any, photo: Callable[..., Image.Image], file_of: Callable[..., bytes]
) -> None:
    first, second = client_for(), client_for()
    first.post("/purify", content=file_of(photo()))
    assert 'route="/purify"' not in second.get("/metrics").text


def test_without_a_threshold_nothing_is_called_suspicious(
    client: Any, photo: Callable[..., Image.Image], file_of: Callable[..., bytes]
) -> None:
    client.post("/purify?mode=noisy", content=file_of(photo()))
    assert "nrp_suspicious_total 0.0" in client.get("/metrics").text


@pytest.mark.parametrize("given", ["abc-123_X.y", "a" * 64])
def test_a_sane_request_id_is_kept(client: Any, given: str) -> None:
    assert client.get("/health/live", headers={"x-request-id": given}).headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["", "a" * 65, "with space", "<script>", "ü", "new\tline"])
def test_another_request_id_is_replaced(client: Any, given: str) -> None:
    answer = client.get("/nowhere", headers={"x-request-id": given.encode()})
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


def lines_of(captured: Any, event: Any = "request") -> Any:
    return [line for line in captured if line["event"] == event]


def test_each_request_is_one_log_line(
    client: Any, photo: Callable[..., Image.Image], file_of: Callable[..., bytes]
) -> None:
    with structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as captured:
        answer = client.post("/purify?seed=77", content=file_of(photo()), headers={"x-request-id": "mine"})
        client.post("/purify", content=b"text")
    good, bad = lines_of(captured)
    assert answer.status_code == 200
    assert good["request_id"] == "mine"
    assert (good["route"], good["status"], good["pixels"], good["seed"]) == ("/purify", 200, 24 * 16, 77)
    assert good["ms"] > 0
    assert good["log_level"] == "info"
    assert (bad["status"], bad["problem"]) == (415, "unsupported-image")


def test_a_secret_seed_is_in_the_log(
    client: Any, photo: Callable[..., Image.Image], file_of: Callable[..., bytes]
) -> None:
    with structlog.testing.capture_logs() as captured:
        client.post("/purify?mode=noisy", content=file_of(photo()))
    assert 0 <= lines_of(captured)[0]["seed"] < 2**63


def test_probes_are_logged_at_debug_only(client: Any) -> None:
    with structlog.testing.capture_logs() as captured:
        client.get("/health/live")
    assert lines_of(captured)[0]["log_level"] == "debug"


def test_an_unforeseen_error_leaks_nothing_and_is_logged_with_its_traceback(
    client_for: Any, photo: Callable[..., Image.Image], file_of: Callable[..., bytes]
) -> None:
    class Broken(Engine):
        def run(self, jobs: Any) -> Any:
            if jobs[0].pixels.shape[-1] == 24:
                raise KeyError("secret internal text")
            return super().run(jobs)

    client = client_for(Broken)
    with structlog.testing.capture_logs() as captured:
        answer = client.post("/purify", content=file_of(photo()))
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert "secret" not in answer.text
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert lines_of(captured, "request_failed")[0]["exc_info"]
    assert lines_of(captured)[0]["log_level"] == "warning"
    assert client.post("/purify", content=file_of(photo(8, 8))).status_code == 200


def test_a_broken_model_in_the_store_shows_no_path_to_the_client(
    client_for: Any, tmp_path: Path, store_root: Path, photo: Callable[..., Image.Image], file_of: Callable[..., bytes]
) -> None:
    root = shutil.copytree(store_root, tmp_path / "store")
    client = client_for(model_store=root)
    (root / "noise" / "weights.safetensors").write_bytes(b"!")
    answer = client.post("/purify?purifier=noise", content=file_of(photo()))
    assert answer.status_code == 503
    assert str(root) not in answer.text
    assert client.post("/purify", content=file_of(photo())).status_code == 200


def test_every_error_of_the_service_has_its_place_in_the_table() -> None:
    def concrete(kind: str) -> Any:
        return [kind] if not kind.__subclasses__() else [c for s in kind.__subclasses__() for c in concrete(s)]

    startup = {"SettingsError", "CommandInputError", BenchError.__name__}
    for kind in concrete(ServiceError):
        assert (kind in HTTP_MEANINGS) != (kind.__name__ in startup), kind
    slugs = [meaning.slug for meaning in HTTP_MEANINGS.values()]
    assert len(slugs) == len(set(slugs))
    assert http_meaning(ValueError("x")) is UNEXPECTED


def test_openapi_describes_both_ways_to_send_and_every_way_to_answer(client: Any) -> None:
    schema = client.get("/openapi.json").json()
    for path in ("/purify", "/classify-robust"):
        operation = schema["paths"][path]["post"]
        body = operation["requestBody"]["content"]
        assert body["multipart/form-data"]["schema"]["properties"]["file"]["format"] == "binary"
        assert body["image/jpeg"]["schema"]["format"] == "binary"
        for status in ("404", "406", "413", "415", "422", "429", "503", "504"):
            assert "application/problem+json" in operation["responses"][status]["content"], status
    purify = schema["paths"]["/purify"]["post"]
    assert {p["name"] for p in purify["parameters"]} == {"purifier", "mode", "dynamic", "samples", "seed"}
    assert set(purify["responses"]["200"]["content"]) == {"image/png", "image/jpeg", "image/webp", "application/json"}
    assert "X-NRP-Suspicion" in purify["responses"]["200"]["headers"]
    classify = {p["name"] for p in schema["paths"]["/classify-robust"]["post"]["parameters"]}
    assert classify >= {"model", "top_k", "compare", "seed"}
    assert set(schema["paths"]) >= {"/models", "/models/{name}", "/health/live", "/health/ready", "/metrics"}
    assert resolves(schema, schema)


def resolves(schema: Any, part: Any) -> Any:
    """Every $ref points at something."""
    if isinstance(part, list):
        return all(resolves(schema, item) for item in part)
    if not isinstance(part, dict):
        return True
    if isinstance(part.get("$ref"), str):
        place = schema
        for step in part["$ref"].removeprefix("#/").split("/"):
            place = place[step]
    return all(resolves(schema, value) for value in part.values())


def test_docs_and_the_page_are_there_and_the_page_loads_nothing_from_elsewhere(client: Any) -> None:
    assert client.get("/docs").status_code == 200
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert not re.search(r"(src|href)=[\"']?https?:", page.text)
    assert 'href="/docs"' in page.text
