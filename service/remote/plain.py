"""Image in, JSON out: a PNG is posted, and the answer has the form of this service's own routes.

A classifier's is that of ``/classify-robust``, a segmenter's of ``/segment-robust``, a detector's of
``/detect-robust``; members other than those below are not looked at.
"""

from __future__ import annotations

import base64
import binascii
import io
import struct
import zlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Annotated

import numpy as np
import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from model_store.official import Kind
from service.findings import ClassMask, Detections, scaled_back
from service.remote.attempt import Call, MalformedReplyError, Reply
from service.remote.labels import LONGEST_LABEL, MOST_LABELS
from service.remote.parsing import parsed
from service.remote.said import Said

MOST_OBJECTS = 10_000
MOST_CLASSES = 256
# Rounding may carry a sum of probabilities so far beyond 1.
SLACK = 1e-2
_BROKEN = (
    binascii.Error, OSError, SyntaxError, ValueError, EOFError, LookupError, struct.error, zlib.error, Warning,
    Image.DecompressionBombError,
)  # fmt: skip

Index = Annotated[int, Field(ge=0, lt=MOST_LABELS)]
Label = Annotated[str, Field(max_length=LONGEST_LABEL)]
Share = Annotated[float, Field(ge=0, le=1 + SLACK)]


class _Member(BaseModel):
    model_config = ConfigDict(allow_inf_nan=False, strict=True)


class _Prediction(_Member):
    label: Label
    index: Index
    probability: Share


class _Classified(_Member):
    predictions: list[_Prediction] = Field(min_length=1, max_length=MOST_LABELS)


class _Box(_Member):
    x0: float
    y0: float
    x1: float
    y1: float


class _Object(_Member):
    label: Label
    index: Index
    score: Share
    box: _Box


class _Detected(_Member):
    objects: list[_Object] = Field(max_length=MOST_OBJECTS)


class _Class(_Member):
    label: Label
    index: int = Field(ge=0, lt=MOST_CLASSES)


class _Mask(_Member):
    base64: str


class _Segmentation(_Member):
    classes: list[_Class] = Field(default=[], max_length=MOST_CLASSES)
    mask: _Mask


class _Segmented(_Member):
    defended: _Segmentation


def asking(url: str, png: bytes) -> Call:
    """The request about one image."""
    return Call("POST", url, png, {"Content-Type": "image/png", "Accept": "application/json"})


def read_plain(kind: Kind, height: int, width: int, reply: Reply) -> Said:
    """What ``reply`` says of an image of that height and width. Raises MalformedReplyError."""
    return _READERS[kind](reply.body, height, width)


def _classified(body: bytes, height: int, width: int) -> Said:  # noqa: ARG001 - one signature for all kinds
    predictions = parsed(_Classified, body).predictions
    named = {prediction.index: prediction.label for prediction in predictions}
    if len(named) != len(predictions):
        raise MalformedReplyError("predictions: a class appears twice")
    probabilities = torch.zeros(max(named) + 1)
    for prediction in predictions:
        probabilities[prediction.index] = min(1.0, prediction.probability)
    if not 0 < float(probabilities.sum()) <= 1 + SLACK:
        raise MalformedReplyError("predictions: the probabilities add up to nothing, or to more than 1")
    return Said(probabilities, len(probabilities), named)


def _detected(body: bytes, height: int, width: int) -> Said:
    objects = parsed(_Detected, body).objects
    boxes = torch.tensor([[one.box.x0, one.box.y0, one.box.x1, one.box.y1] for one in objects]).reshape(-1, 4)
    scores = torch.tensor([min(1.0, one.score) for one in objects])
    labels = torch.tensor([one.index for one in objects], dtype=torch.int64)
    named = {one.index: one.label for one in objects}
    found = scaled_back(Detections(boxes, scores, labels), (height, width), (height, width))
    return Said(found, max(named, default=-1) + 1, named)


def _segmented(body: bytes, height: int, width: int) -> Said:
    answer = parsed(_Segmented, body).defended
    classes = _read_mask(answer.mask.base64, height, width)
    named = {one.index: one.label for one in answer.classes}
    return Said(ClassMask(classes), max(int(classes.max()), *named, 0) + 1, named)


def _read_mask(text: str, height: int, width: int) -> torch.Tensor:
    """uint8 (height, width) of a PNG of one byte a pixel in base64."""
    try:
        image = Image.open(io.BytesIO(base64.b64decode(text, validate=True)), formats=("PNG",))
        if image.mode not in {"P", "L"} or image.size != (width, height):
            raise MalformedReplyError(
                f"the mask is {image.width}x{image.height} pixels of mode {image.mode}; it must be {width}x{height} "
                "with a byte each"
            )
        return torch.from_numpy(np.array(image, dtype=np.uint8))
    except _BROKEN as error:
        raise MalformedReplyError("the mask is no PNG in base64") from error


_READERS: Mapping[Kind, Callable[[bytes, int, int], Said]] = MappingProxyType(
    {"classifier": _classified, "segmenter": _segmented, "detector": _detected}
)
