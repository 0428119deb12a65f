from __future__ import annotations

import base64
import io
import json
from typing import Any

import numpy as np
import pytest
from PIL import Image

from service.findings import detections_of, mask_of, probabilities_of
from service.remote.attempt import MalformedReplyError, Reply
from service.remote.plain import asking, read_plain


def said(kind: Any, answer: Any, height: int = 4, width: int = 6) -> Any:
    body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    return read_plain(kind, height, width, Reply(body, {}))


def prediction(index: int, probability: float, label: str = "x") -> dict[str, Any]:
    return {"label": label, "index": index, "probability": probability}


def thing(index: int = 0, score: float = 0.5, box: tuple[float, ...] = (0, 0, 2, 2)) -> dict[str, Any]:
    return {
        "label": f"thing {index}",
        "index": index,
        "score": score,
        "box": dict(zip(("x0", "y0", "x1", "y1"), box, strict=False)),
    }


def png(mode: str = "P", size: tuple[int, int] = (6, 4), image_format: str = "PNG") -> str:
    out = io.BytesIO()
    image = Image.fromarray(np.arange(size[0] * size[1], dtype=np.uint8).reshape(size[::-1]) % 3)
    if mode == "P":
        image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    image.convert(mode).save(out, image_format)
    return base64.b64encode(out.getvalue()).decode()


def test_a_png_is_posted() -> None:
    call = asking("http://h/x", b"png")
    assert (call.method, call.content) == ("POST", b"png")
    assert call.headers == {"Content-Type": "image/png", "Accept": "application/json"}


def test_predictions_are_probabilities_and_names_and_what_is_left_out_is_nothing() -> None:
    found = said("classifier", {"predictions": [prediction(2, 0.75, "newt"), prediction(0, 0.25)], "more": 1})
    assert probabilities_of(found.finding).tolist() == [0.25, 0, 0.75]
    assert (found.classes, found.named) == (3, {2: "newt", 0: "x"})
    assert probabilities_of(found.as_wide_as(5)).tolist() == [0.25, 0, 0.75, 0, 0]


def test_objects_are_sorted_cut_to_the_image_and_named() -> None:
    answer = {"objects": [thing(1, 0.4, (-3, 1, 2, 9)), thing(0, 0.9), thing(2, 0.8, (7, 0, 9, 2))]}
    found = said("detector", answer)
    detections = detections_of(found.finding)
    assert detections.labels.tolist() == [0, 1]  # the third lies outside
    assert detections.boxes.tolist() == [[0, 0, 2, 2], [0, 1, 2, 4]]
    assert (found.classes, found.named[2]) == (3, "thing 2")
    assert detections_of(said("detector", {"objects": []}).finding).boxes.shape == (0, 4)


@pytest.mark.parametrize("mode", ["P", "L"])
def test_a_mask_is_its_pixels(mode: str) -> None:
    image = Image.open(io.BytesIO(base64.b64decode(png("P"))))
    given = png(mode)
    if mode == "L":
        out = io.BytesIO()
        Image.fromarray(np.asarray(image)).save(out, "PNG")
        given = base64.b64encode(out.getvalue()).decode()
    answer = {"defended": {"mask": {"base64": given}, "classes": [{"label": "road", "index": 1}]}}
    found = said("segmenter", answer)
    assert np.array_equal(mask_of(found.finding).classes.numpy(), np.asarray(image))
    assert (found.classes, found.named) == (3, {1: "road"})


MALFORMED: tuple[tuple[str, Any, str], ...] = (
    ("classifier", b"", "the body"),
    ("classifier", b"[" * 100_000, "the body"),
    ("classifier", b"\xff\xfe", "the body"),
    ("classifier", {"predictions": []}, "predictions"),
    ("classifier", {"objects": []}, "predictions"),
    ("classifier", {"predictions": [prediction(-1, 0.5)]}, "predictions.0.index"),
    ("classifier", {"predictions": [prediction(1 << 16, 0.5)]}, "predictions.0.index"),
    ("classifier", {"predictions": [prediction(10**30, 0.5)]}, "predictions.0.index"),
    ("classifier", {"predictions": [prediction(0, 1.5)]}, "predictions.0.probability"),
    ("classifier", b'{"predictions": [{"label": "a", "index": 0, "probability": NaN}]}', "predictions.0.probability"),
    ("classifier", {"predictions": [prediction(0, 0.5, "x" * 201)]}, "predictions.0.label"),
    ("classifier", {"predictions": [prediction(0, 0.5), prediction(0, 0.5)]}, "twice"),
    ("classifier", {"predictions": [prediction(0, 0.9), prediction(1, 0.9)]}, "more than 1"),
    ("classifier", {"predictions": [prediction(0, 0.0)]}, "nothing"),
    ("detector", {"predictions": []}, "objects"),
    ("detector", {"objects": [thing(0, 0.5, (0, 0, 1))]}, "objects.0.box.y1"),
    ("detector", {"objects": [thing(0, -0.5)]}, "objects.0.score"),
    (
        "detector",
        b'{"objects": [{"label":"a","index":0,"score":0.5,"box":{"x0":Infinity,"y0":0,"x1":1,"y1":1}}]}',
        "x0",
    ),
    ("segmenter", {"mask": {"base64": png()}}, "defended"),
    ("segmenter", {"defended": {"mask": {"base64": "!!!"}}}, "no PNG"),
    ("segmenter", {"defended": {"mask": {"base64": png()[:60]}}}, "no PNG"),
    ("segmenter", {"defended": {"mask": {"base64": png("L", image_format="BMP")}}}, "no PNG"),
    ("segmenter", {"defended": {"mask": {"base64": png("RGB")}}}, "mode RGB"),
    ("segmenter", {"defended": {"mask": {"base64": png(size=(4, 6))}}}, "4x6"),
    ("segmenter", {"defended": {"mask": {"base64": png()}, "classes": [{"label": "a", "index": 256}]}}, "index"),
)


@pytest.mark.parametrize(("kind", "answer", "named"), MALFORMED, ids=lambda part: part if isinstance(part, str) else "")
def test_a_malformed_answer_is_told_in_one_line(kind: str, answer: Any, named: str) -> None:
    with pytest.raises(MalformedReplyError) as failure:
        said(kind, answer)
    assert named in str(failure.value)
    assert "\n" not in str(failure.value)
    assert len(str(failure.value)) <= 200
