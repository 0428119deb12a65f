"""NVIDIA's own client of the protocol against the service on a socket."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import uvicorn
from fastapi import FastAPI
from tritonclient import http as triton
from tritonclient.utils import InferenceServerException

from service.app import create_app
from service.settings import Settings
from tests.service.scenes import SIDE, SceneEngine


@contextmanager
def served(app: FastAPI) -> Iterator[Any]:
    """A client of the application on a socket."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, lifespan="on"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.005)
    port = server.servers[0].sockets[0].getsockname()[1]
    client = triton.InferenceServerClient(f"127.0.0.1:{port}")
    give_up = time.monotonic() + 20
    while not client.is_server_ready():
        assert time.monotonic() < give_up
        time.sleep(0.01)
    yield client
    client.close()
    server.should_exit = True
    thread.join()


@pytest.fixture
def triton_client(settings_for: Callable[..., Settings]) -> Iterator[Any]:
    with served(create_app(settings_for())) as client:
        yield client


@pytest.fixture
def scene_client(settings_for: Callable[..., Settings]) -> Iterator[Any]:
    settings = settings_for()
    with served(create_app(settings, SceneEngine(settings))) as client:
        yield client


def tensor(array: Any, *, binary: bool = True) -> Any:
    given = triton.InferInput("image", list(array.shape), "UINT8" if array.dtype == np.uint8 else "FP32")
    return given.set_data_from_numpy(array, binary_data=binary)


def test_it_finds_its_way_purifies_classifies_and_reads_our_errors(triton_client: Any) -> None:
    client = triton_client
    assert client.is_server_live()
    assert client.is_model_ready("plain")
    assert not client.is_model_ready("nope")
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    (version,) = client.get_model_metadata("plain")["versions"]

    images = np.random.default_rng(0).integers(0, 256, (2, 16, 24, 3), dtype=np.uint8)
    for array in (images, (images.transpose(0, 3, 1, 2) / 255).astype(np.float32)):
        for binary in (True, False):
            wanted = [None, [triton.InferRequestedOutput("purified", binary_data=binary)]]
            for outputs in wanted:
                result = client.infer("plain", [tensor(array, binary=binary)], outputs=outputs, model_version=version)
                assert np.allclose(result.as_numpy("purified"), array, atol=1e-7)

    seeded = {"mode": "noisy", "samples": 2, "seed": 5}
    first, second = (client.infer("tiny", [tensor(images)], request_id="mine", parameters=seeded) for _ in range(2))
    assert first.get_response()["id"] == "mine"
    assert np.allclose(first.as_numpy("probabilities").sum(axis=1), 1, atol=1e-5)
    assert np.array_equal(first.as_numpy("probabilities"), second.as_numpy("probabilities"))

    with pytest.raises(InferenceServerException, match="there is no model 'nope'"):
        client.infer("nope", [tensor(images)])
    with pytest.raises(InferenceServerException, match="there is no such parameter") as refused:
        client.infer("plain", [tensor(images)], parameters={"sed": 1})
    assert refused.value.status() == "400"
    later = client.async_infer("plain", [tensor(images)])
    assert np.array_equal(later.get_result().as_numpy("purified"), images)


@pytest.mark.parametrize("binary", [True, False])
def test_it_reads_masks_and_objects(scene_client: Any, binary: bool) -> None:
    images = np.zeros((2, SIDE, 32, 3), np.uint8)
    images[0, 4:12, 8:20] = 255
    mask = scene_client.infer(
        "shades", [tensor(images)], outputs=[triton.InferRequestedOutput("mask", binary_data=binary)]
    ).as_numpy("mask")
    assert (mask.dtype, mask.shape) == (np.uint8, (2, SIDE, 32))
    assert np.array_equal(mask, images[..., 0] // 255 * 2)

    names = [entry["name"] for entry in scene_client.get_model_metadata("spots")["outputs"]]
    outputs = [triton.InferRequestedOutput(name, binary_data=binary) for name in names]
    found = scene_client.infer("spots", [tensor(images)], outputs=outputs)
    assert {name: found.as_numpy(name).dtype.name for name in names} == {
        "boxes": "float32", "scores": "float32", "labels": "int64", "counts": "int64",
    }  # fmt: skip
    assert found.as_numpy("counts").tolist() == [1, 0]
    assert np.allclose(found.as_numpy("boxes"), [[[8, 4, 20, 12]], [[0, 0, 0, 0]]])
    assert found.as_numpy("labels").tolist() == [[1], [-1]]

    nothing = scene_client.infer("spots", [tensor(images[1:])])
    assert nothing.as_numpy("boxes").shape == (1, 1, 4)
    alone = scene_client.infer("spots", [tensor(images)], outputs=[triton.InferRequestedOutput("scores")])
    assert alone.as_numpy("boxes") is None
    assert np.allclose(alone.as_numpy("scores"), [[0.9], [0]])
