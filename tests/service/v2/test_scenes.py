"""``/v2`` for the segmenter and the detector: as the routes for images answer, in tensors of one shape."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.service.scenes import SHADES, SIDE, Blackout, SceneEngine

HEADER_LENGTH = "inference-header-content-length"
KINDS = {"UINT8": "u1", "FP32": "<f4", "INT64": "<i8"}


@pytest.fixture
def scene_client(client_for: Callable[..., Any]) -> Any:
    return client_for(SceneEngine)


def scenes() -> NDArray[Any]:
    """Three images: nothing, one white box, and grey on the right."""
    images = np.zeros((3, SIDE, 32, 3), np.uint8)
    images[1, 4:12, 8:20] = 255
    images[2, :, 16:] = 128
    return images


def ask(client: Any, model: str, array: NDArray[Any], *, binary: bool = True, **members: Any) -> httpx.Response:
    raw = array.tobytes()
    parameters = {**members.pop("parameters", {}), "binary_data_output": binary}
    sent = {"name": "image", "shape": list(array.shape), "parameters": {"binary_data_size": len(raw)}}
    sent["datatype"] = "UINT8" if array.dtype == np.uint8 else "FP32"
    head = json.dumps({"inputs": [sent], "parameters": parameters, **members}).encode()
    headers = {HEADER_LENGTH: str(len(head))}
    answer: httpx.Response = client.post(f"/v2/models/{model}/infer", content=head + raw, headers=headers)
    return answer


def outputs_of(answer: httpx.Response) -> dict[str, NDArray[Any]]:
    """The outputs of an answer in their order, whichever of them follow as bytes."""
    assert answer.status_code == 200, answer.text
    split = int(answer.headers.get(HEADER_LENGTH, len(answer.content)))
    rest, arrays = answer.content[split:], {}
    for output in json.loads(answer.content[:split])["outputs"]:
        kind = KINDS[output["datatype"]]
        if "data" in output:
            flat = np.array(output["data"], kind)
        else:
            size = output["parameters"]["binary_data_size"]
            flat, rest = np.frombuffer(rest[:size], kind), rest[size:]
        arrays[output["name"]] = flat.reshape(output["shape"])
    assert not rest
    return arrays


def test_the_segmenter_gives_a_mask_of_each_image_s_size(scene_client: Any) -> None:
    for array in (scenes(), (scenes().transpose(0, 3, 1, 2) / 255).astype(np.float32)):
        (mask,) = outputs_of(ask(scene_client, "shades", array)).values()
        assert (mask.dtype, mask.shape) == (np.uint8, (3, SIDE, 32))
        assert np.array_equal(mask, np.select([scenes()[..., 0] == 255, scenes()[..., 0] == 128], [2, 1]))


def test_the_mask_is_that_of_the_purified_image(scene_client: Any) -> None:
    scene_client.state.engine._loaded["plain"] = Blackout()
    assert not outputs_of(ask(scene_client, "shades", scenes()))["mask"].any()


def test_a_mask_agrees_with_the_route_for_images(
    scene_client: Any, photo: Callable[..., Image.Image], file_of: Callable[..., bytes], image_of: Any
) -> None:
    images = [photo(50, 40, seed) for seed in range(2)]
    stacked = np.stack([np.asarray(image) for image in images])
    masks = outputs_of(ask(scene_client, "shades", stacked, parameters={"mode": "noisy", "seed": 5}))["mask"]
    for place, image in enumerate(images):
        answer = scene_client.post(f"/segment-robust?mode=noisy&seed={5 + place}", content=file_of(image))
        assert np.array_equal(masks[place], np.asarray(image_of(answer.content)))


@pytest.mark.parametrize("binary", [True, False])
def test_the_detector_pads_to_the_image_with_most_objects_and_counts_them(scene_client: Any, binary: bool) -> None:
    answer = ask(scene_client, "spots", scenes(), binary=binary, parameters={"score_threshold": 0.2})
    found = outputs_of(answer)
    assert list(found) == ["boxes", "scores", "labels", "counts"]
    assert found["counts"].tolist() == [0, 2, 2]
    assert np.allclose(found["boxes"], [np.zeros((2, 4)), [[8, 4, 20, 12]] * 2, [[16, 0, 32, SIDE]] * 2])
    assert np.allclose(found["scores"], [[0, 0], [0.9, 0.3], [0.9, 0.3]])
    assert found["labels"].tolist() == [[-1, -1], [1, 0], [1, 0]]
    assert {name: array.dtype.str for name, array in found.items()} == {
        "boxes": "<f4", "scores": "<f4", "labels": "<i8", "counts": "<i8",
    }  # fmt: skip


def test_the_threshold_is_that_of_the_route_and_nothing_found_still_has_a_shape(scene_client: Any) -> None:
    assert outputs_of(ask(scene_client, "spots", scenes()))["counts"].tolist() == [0, 1, 1]
    none = outputs_of(ask(scene_client, "spots", scenes(), parameters={"score_threshold": 0.95}))
    assert none["counts"].tolist() == [0, 0, 0]
    assert (none["boxes"].shape, none["labels"].tolist()) == ((3, 1, 4), [[-1]] * 3)


def test_outputs_come_as_they_are_asked_for_each_in_its_form(scene_client: Any) -> None:
    wanted = [{"name": "counts", "parameters": {"binary_data": False}}, {"name": "scores"}]
    answer = ask(scene_client, "spots", scenes(), outputs=wanted)
    found = outputs_of(answer)
    assert list(found) == ["counts", "scores"]
    assert found["scores"].shape == (3, 1)
    assert b'"data":[0,1,1]' in answer.content
    assert b"boxes" not in answer.content


@pytest.mark.parametrize(
    ("model", "members", "named"),
    [
        ("shades", {"outputs": [{"name": "boxes"}]}, "'mask'"),
        ("spots", {"outputs": [{"name": "mask"}]}, "'boxes', 'scores', 'labels', 'counts'"),
        ("spots", {"outputs": [{"name": "boxes"}, {"name": "boxes"}]}, "twice"),
        ("spots", {"parameters": {"score_threshold": 2}}, "score_threshold"),
        ("spots", {"parameters": {"compare": True}}, "compare"),
        ("spots", {"parameters": {"model": "spots"}}, "model"),
        ("shades", {"parameters": {"score_threshold": 0.5}}, "score_threshold"),
        ("plain", {"parameters": {"score_threshold": 0.5}}, "score_threshold"),
    ],
)
def test_what_a_model_does_not_have_is_malformed(
    scene_client: Any, model: str, members: dict[str, Any], named: str
) -> None:
    answer = ask(scene_client, model, scenes(), **members)
    assert answer.status_code == 400
    assert named in answer.json()["error"]


def test_metadata_names_every_output_and_its_shape(scene_client: Any) -> None:
    segmenter, detector = (scene_client.get(f"/v2/models/{name}").json() for name in ("shades", "spots"))
    assert segmenter["outputs"] == [{"name": "mask", "datatype": "UINT8", "shape": [-1, -1, -1]}]
    assert segmenter["parameters"]["labels"] == list(SHADES)
    assert detector["outputs"] == [
        {"name": "boxes", "datatype": "FP32", "shape": [-1, -1, 4]},
        {"name": "scores", "datatype": "FP32", "shape": [-1, -1]},
        {"name": "labels", "datatype": "INT64", "shape": [-1, -1]},
        {"name": "counts", "datatype": "INT64", "shape": [-1]},
    ]
    assert detector["parameters"]["labels"] == ["faint", "bright"]
    assert "0.5" in detector["parameters"]["score_threshold"]
    assert "score_threshold" not in segmenter["parameters"]
    assert detector["versions"] == ["1"]
    assert scene_client.get("/v2/models/spots/ready").json() == {"name": "spots", "ready": True}


def test_values_that_are_too_many_for_json_are_refused(scene_client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.v2.envelope.MOST_JSON_VALUES", 11)
    ran = len(scene_client.state.engine.spots.seen)
    for model, status in (("shades", 422), ("spots", 422)):
        answer = ask(scene_client, model, scenes(), binary=False)
        assert (answer.status_code, "binary_data" in answer.json()["error"]) == (status, True)
    assert len(scene_client.state.engine.spots.seen) > ran  # how much a detector finds is not known before
    assert ask(scene_client, "shades", scenes()).status_code == 200
