"""What the tests of ``POST /purify/batch`` send, and how they read what comes back."""

from __future__ import annotations

import io
import time
import zipfile
from collections.abc import Callable
from typing import Any

import httpx

from service.bulk.answers import BatchAnswer

URL = "/purify/batch"
AS_JSON = {"accept": "application/json"}


def form(*files: tuple[str, bytes]) -> list[tuple[str, tuple[str, bytes, str]]]:
    return [("files", (name, data, "image/png")) for name, data in files]


def opened(answer: httpx.Response) -> tuple[dict[str, bytes], BatchAnswer]:
    """The archive's images and its report."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        files = {name: archive.read(name) for name in archive.namelist()}
    return files, BatchAnswer.model_validate_json(files.pop("report.json"))


def wait_for(condition: Callable[[], Any]) -> None:
    give_up = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.002)
