"""What the tests of ``/v2`` send, and how they read what comes back."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

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
