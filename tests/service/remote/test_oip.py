from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from service.findings import detections_of, mask_of, probabilities_of
from service.remote.attempt import MalformedReplyError, Reply
from service.remote.oip import asking, read_answer
from service.remote.signature import Signature, read_extensions, read_signature

OUTPUT = {"name": "out", "datatype": "FP32", "shape": [-1, 3]}
NAMES = [{**OUTPUT, "name": name} for name in ("boxes", "scores", "labels", "extra")]


def signature(kind: Any = "classifier", outputs: Any = None, binary: bool = True, **tensor: Any) -> Signature:
    given = {"name": "image", "datatype": "UINT8", "shape": [-1, -1, -1, 3], **tensor}
    answer = {"name": "net", "inputs": [given], "outputs": outputs or [OUTPUT], "parameters": {"labels": ["a", "b"]}}
    return read_signature(kind, binary, Reply(json.dumps(answer).encode(), {}))


def pixels() -> torch.Tensor:
    return torch.randint(0, 256, (3, 4, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def sent(call: Any) -> tuple[Any, Any]:
    """The request's JSON, and the bytes behind it."""
    length = int(call.headers.get("Inference-Header-Content-Length", len(call.content)))
    return json.loads(call.content[:length]), call.content[length:]


def test_the_metadata_says_what_to_send_and_what_comes_back() -> None:
    known = signature()
    assert (known.input, known.datatype, known.channels_last, known.batched) == ("image", "UINT8", True, True)
    assert (known.size, known.outputs, known.labels) == (None, ("out",), ("a", "b"))
    fixed = signature(datatype="FP32", shape=[3, 224, 192])
    assert (fixed.channels_last, fixed.batched, fixed.size) == (False, False, (224, 192))
    several = [{**OUTPUT, "name": name} for name in ("features", "logits")]
    assert signature(outputs=several).outputs == ("logits",)
    assert signature("detector", outputs=NAMES).outputs == ("boxes", "scores", "labels")


def test_an_image_is_sent_as_levels_in_bytes() -> None:
    image = pixels()
    call = asking("http://h/v2/models/n", "classifier", signature(), {"mode": "static"}, image)
    head, raw = sent(call)
    assert (call.method, call.url) == ("POST", "http://h/v2/models/n/infer")
    assert head["inputs"][0]["shape"] == [1, 4, 6, 3]
    assert head["inputs"][0]["parameters"] == {"binary_data_size": len(raw)}
    assert head["parameters"] == {"mode": "static"}
    assert head["outputs"] == [{"name": "out", "parameters": {"binary_data": True}}]
    assert np.array_equal(np.frombuffer(raw, np.uint8).reshape(4, 6, 3), image.permute(1, 2, 0).numpy())


def test_a_server_without_binary_tensors_is_sent_json() -> None:
    image = pixels()
    known = signature(binary=False, datatype="FP32", shape=[-1, 3, -1, -1])
    call = asking("http://h/v2/models/n", "classifier", known, {}, image)
    head, raw = sent(call)
    assert (raw, call.headers) == (b"", {"Content-Type": "application/json"})
    assert head["inputs"][0]["shape"] == [1, 3, 4, 6]
    assert np.allclose(head["inputs"][0]["data"], image.numpy().ravel() / 255)


@pytest.mark.parametrize(("kind", "side"), [("classifier", (8, 8)), ("classifier", (8, 10)), ("detector", (8, 8))])
def test_a_model_of_one_size_is_sent_that(kind: str, side: tuple[int, int]) -> None:
    image = torch.full((3, 4, 6), 100, dtype=torch.uint8)
    known = signature(kind, outputs=NAMES if kind == "detector" else None, shape=[1, *side, 3])
    head, raw = sent(asking("http://h/v2/models/n", kind, known, {}, image))
    assert head["inputs"][0]["shape"] == [1, *side, 3]
    assert set(raw) == {100}


def test_extensions_say_whether_bytes_are_taken() -> None:
    assert read_extensions(Reply(b'{"name": "x", "extensions": ["classification", "binary_tensor_data"]}', {}))
    assert not read_extensions(Reply(b"{}", {}))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"datatype": "BYTES"}, "BYTES"),
        ({"shape": [-1, 5]}, "one tensor of"),
        ({"shape": [-1, -1, -1, -1]}, "no RGB image"),
        ({"shape": [1, 8192, 8192, 3]}, "no RGB image"),
        ({"outputs": [OUTPUT, {**OUTPUT, "name": "other"}]}, "probabilities or logits"),
        ({"kind": "detector"}, "boxes, scores and labels"),
    ],
)
def test_a_model_that_cannot_be_asked_about_an_image_is_told(changes: Any, named: str) -> None:
    with pytest.raises(MalformedReplyError, match=named):
        signature(**changes)


def reply(*outputs: tuple[str, Any], binary: bool = False) -> Reply:
    listed, raw = [], b""
    for name, values in outputs:
        array = np.asarray(values)
        array = array.astype(np.int64 if array.dtype.kind == "i" else np.float32)
        entry: dict[str, Any] = {
            "name": name, "datatype": "INT64" if array.dtype.kind == "i" else "FP32", "shape": list(array.shape),
        }  # fmt: skip
        if binary:
            entry["parameters"] = {"binary_data_size": array.nbytes}
            raw += array.tobytes()
        else:
            entry["data"] = array.ravel().tolist()
        listed.append(entry)
    head = json.dumps({"model_name": "n", "outputs": listed}).encode()
    return Reply(head + raw, {"inference-header-content-length": str(len(head))} if binary else {})


def said(kind: Any, answer: Reply, known: Signature | None = None, size: tuple[int, int] = (4, 6)) -> Any:
    return read_answer(kind, known or signature(kind, outputs=NAMES if kind == "detector" else None), *size, answer)


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("values", [[0.25, 0.75, 0.0], [[0.25, 0.75, 0.0]]])
def test_probabilities_are_taken_as_they_are(binary: bool, values: Any) -> None:
    found = said("classifier", reply(("other", [1, 2]), ("out", values), binary=binary))
    assert probabilities_of(found.finding).tolist() == [0.25, 0.75, 0]
    assert found.classes == 3


def test_logits_become_probabilities() -> None:
    found = said("classifier", reply(("out", [[2.0, 1.0, -1.0]])))
    assert torch.allclose(probabilities_of(found.finding), torch.tensor([2.0, 1.0, -1.0]).softmax(0))


@pytest.mark.parametrize("values", [[[0, 1], [2, 0]], [[[0, 1], [2, 0]]], [[[[0, 1], [2, 0]]]]])
def test_a_mask_of_class_numbers_is_brought_to_the_images_size(values: Any) -> None:
    found = said("segmenter", reply(("out", values)))
    assert mask_of(found.finding).classes.tolist() == [[0, 0, 0, 1, 1, 1]] * 2 + [[2, 2, 2, 0, 0, 0]] * 2
    assert found.classes == 3


@pytest.mark.parametrize("batch", [True, False])
def test_class_maps_become_a_mask(batch: bool) -> None:
    maps = np.zeros((3, 4, 6))
    maps[1, :, :3], maps[2, :, 3:] = 5, 5
    found = said("segmenter", reply(("out", maps[None] if batch else maps)))
    assert mask_of(found.finding).classes.tolist() == [[1, 1, 1, 2, 2, 2]] * 4


@pytest.mark.parametrize("batch", [True, False])
def test_boxes_are_scaled_back_from_the_size_that_was_sent(batch: bool) -> None:
    boxes = np.array([[0.0, 0, 5, 5], [0, 0, 10, 10], [0, 0, 1, 1]])
    parts = [("boxes", boxes), ("scores", np.array([0.2, 0.9, 0.0])), ("labels", np.array([1, 0, -1]))]
    answer = reply(*((name, part[None] if batch else part) for name, part in parts), binary=True)
    found = said("detector", answer, signature("detector", outputs=NAMES, shape=[1, 10, 10, 3]), (20, 40))
    detections = detections_of(found.finding)
    assert detections.boxes.tolist() == [[0, 0, 40, 20], [0, 0, 20, 10]]
    assert (detections.labels.tolist(), found.classes) == ([0, 1], 2)
    nothing = [("boxes", np.zeros((1, 0, 4))), ("scores", np.zeros((1, 0))), ("labels", np.zeros((1, 0)))]
    assert said("detector", reply(*nothing)).classes == 0


def broken(**changes: Any) -> Reply:
    output = {"name": "out", "datatype": "FP32", "shape": [1, 3], "data": [0.1, 0.2, 0.7], **changes}
    return Reply(json.dumps({"outputs": [output]}).encode(), {})


@pytest.mark.parametrize(
    ("kind", "answer", "named"),
    [
        ("classifier", Reply(b"", {}), "the body"),
        ("classifier", Reply(b'{"outputs": 3}', {}), "outputs"),
        ("classifier", Reply(b"{}", {"inference-header-content-length": "-4"}), "no length"),
        ("classifier", Reply(b"{}", {"inference-header-content-length": "1"}), "the body"),
        ("classifier", broken(name="other"), "missing"),
        ("classifier", broken(datatype="BYTES"), "no numbers"),
        ("classifier", broken(data=["a", "b", "c"]), "no numbers"),
        ("classifier", broken(data=None), "values"),
        ("classifier", broken(data=[1, 2]), "2 values"),
        ("classifier", broken(shape=[1 << 40, 1 << 40]), "3 values"),
        ("classifier", broken(shape=[-1, 3]), "shape"),
        ("classifier", broken(shape=[3, 1]), "the shape"),
        ("classifier", broken(shape=[1, 0], data=[]), "0 classes"),
        ("classifier", broken(data=[0.1, float("nan"), 0.2]), "NaN"),
        ("classifier", broken(data=[0.1, 1e308, 0.2]), "infinity"),
        ("classifier", broken(data=[0.1, 10**400, 0.2]), "no numbers"),
        ("classifier", broken(data=None, parameters={"binary_data_size": 12}), "fewer bytes"),
        ("classifier", broken(data=None, parameters={"binary_data_size": -1}), "fewer bytes"),
        ("segmenter", reply(("out", [[0, 256]])), "0 to 255"),
        ("segmenter", reply(("out", [[0, -1]])), "0 to 255"),
        ("segmenter", reply(("out", [[0.5, 1.0]])), "0 to 255"),
        ("segmenter", reply(("out", np.zeros((2, 3, 4, 4)))), "class maps"),
        ("segmenter", reply(("out", np.zeros((257, 2, 2)))), "257 classes"),
        ("detector", reply(("boxes", np.zeros((1, 2, 4))), ("scores", [[0.5]]), ("labels", [[1]])), "one number"),
        ("detector", reply(("boxes", np.zeros((1, 1, 4))), ("scores", [[1.5]]), ("labels", [[1]])), "0 to 1"),
        ("detector", reply(("boxes", np.zeros((1, 1, 4))), ("scores", [[0.5]]), ("labels", [[0.5]])), "class numbers"),
    ],
)
def test_a_malformed_answer_is_told_in_one_line(kind: str, answer: Reply, named: str) -> None:
    with pytest.raises(MalformedReplyError, match=named) as failure:
        said(kind, answer)
    assert "\n" not in str(failure.value)
    assert len(str(failure.value)) <= 200
