from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
import torch

from model_store.store import SHIPPED, ModelStore
from service.device import choose_batch_pixels, choose_precision, choose_purifier
from service.errors import SettingsError
from service.logs import configure_logs
from service.settings import Settings, load_settings


def test_defaults_are_those_of_the_contract() -> None:
    settings = Settings()
    assert (settings.host, settings.port, settings.device) == ("127.0.0.1", 8000, "auto")
    assert (settings.purifier, settings.classifier) == ("auto", "efficientnet-lite0")
    assert settings.model_store == SHIPPED
    assert settings.max_body_bytes == 20 * 2**20


def test_the_environment_is_read_when_asked_and_options_go_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NRP_PORT", "9001")
    monkeypatch.setenv("NRP_PURIFIER", "other")
    settings = load_settings(port=9002, purifier=None)
    assert (settings.port, settings.purifier) == (9002, "other")


@pytest.mark.parametrize(
    ("variable", "value"),
    [("NRP_PORT", "eighty"), ("NRP_PORT", "70000"), ("NRP_DEVICE", "abacus"), ("NRP_MAX_DRAWS", "0")],
)
def test_a_wrong_value_is_one_line_that_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=variable) as failure:
        load_settings()
    assert "\n" not in str(failure.value)


def test_limits_leave_room_for_the_largest_request() -> None:
    with pytest.raises(SettingsError, match="max_pixels_in_flight"):
        load_settings(max_pixels_in_flight=10)
    with pytest.raises(SettingsError, match="max_body_bytes_in_flight"):
        load_settings(max_body_bytes_in_flight=10)


def test_a_photo_of_24_megapixels_is_within_the_default_limits() -> None:
    settings = Settings()
    assert settings.tile_pixels < 6000 * 4000 <= settings.max_pixels <= settings.max_pixels_in_flight


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().port = 1


def test_device_and_precision_follow_the_hardware() -> None:
    cpu = torch.device("cpu")
    assert choose_precision("float32", cpu) is torch.float32
    assert choose_precision("bfloat16", cpu) is torch.bfloat16
    assert choose_precision("auto", cpu) in {torch.float32, torch.bfloat16}
    assert choose_batch_pixels(7, cpu, 2) == 7
    assert choose_batch_pixels(0, cpu, 1) < choose_batch_pixels(0, torch.device("cuda"), 1)


def test_a_cpu_gets_the_fast_purifier_and_anyone_the_one_they_name() -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert [choose_purifier("auto", device) for device in (cpu, cuda)] == ["nrp-fast", "nrp-strong"]
    assert choose_purifier("mine", cpu) == "mine"


@pytest.mark.parametrize("name", ["nrp-fast", "nrp-strong"])
def test_the_purifiers_that_auto_takes_are_shipped(name: str) -> None:
    assert ModelStore().card(name).task == "purifier"


@pytest.fixture
def logging_put_back() -> Iterator[Any]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    logging.captureWarnings(capture=False)
    root.handlers = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def test_log_lines_are_json_with_the_request_id_and_other_libraries_too(
    logging_put_back: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logs(Settings(log_format="json"))
    with structlog.contextvars.bound_contextvars(request_id="abc"):
        structlog.get_logger().info("request", status=200)
        logging.getLogger("uvicorn.error").info("started %s", "well")
        structlog.get_logger().debug("too quiet to be written")
    first, second = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert (first["event"], first["status"], first["request_id"], first["level"]) == ("request", 200, "abc", "info")
    assert second["event"] == "started well"
    assert first["timestamp"].endswith("Z")


def test_what_a_client_library_says_of_each_url_is_not_logged(
    logging_put_back: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logs(Settings(log_format="json", log_level="debug"))
    for name in ("httpx", "httpcore.connection"):
        logging.getLogger(name).info("HTTP Request: POST http://host/x?key=secret")
    assert capsys.readouterr().err == ""


def test_console_format_is_for_people(logging_put_back: Any, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(Settings(log_format="console"))
    structlog.get_logger().info("hello", answer=42)
    line = capsys.readouterr().err
    assert "hello" in line
    assert not line.startswith("{")
