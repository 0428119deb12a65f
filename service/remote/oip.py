"""The Open Inference Protocol, version 2 (REST), from the client's side: KServe's, Triton's, TorchServe's, our own.

The model's metadata says what tensor it takes and in which layout, and what it gives:

* a classifier one tensor (1, classes), or among several one called ``probabilities`` or ``logits``;
* a segmenter one tensor, logits or probabilities (1, classes, h, w), or integer class numbers (1, h, w);
* a detector ``boxes`` (1, K, 4) in pixels of the image as it was sent, ``scores`` (1, K) and ``labels`` (1, K), where a
  label below 0 is padding.

The leading 1 may be missing. Values in [0,1] that add up to 1 over the classes are probabilities, others logits.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, Field
from torch import Tensor

from model_store.card import InputConvention
from model_store.official import Kind
from model_store.pixels import fit, to_bytes, to_float
from model_store.scenes import SceneScale
from service.findings import ClassMask, Detections, likeliest, scaled_back
from service.remote.address import Parameters
from service.remote.attempt import Call, MalformedReplyError, Reply
from service.remote.labels import MOST_LABELS
from service.remote.parsing import parsed
from service.remote.plain import MOST_CLASSES, MOST_OBJECTS, SLACK
from service.remote.said import Said
from service.remote.signature import SENT, Signature, seen_size

HEADER_LENGTH = "Inference-Header-Content-Length"
READ: Mapping[str, str] = MappingProxyType(
    {**SENT, "FP64": "<f8", "INT8": "|i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8", "UINT16": "<u2"}
)

Array = NDArray[Any]


class _Output(BaseModel):
    name: str
    datatype: str
    shape: list[Annotated[int, Field(ge=0)]]
    parameters: dict[str, Any] | None = None
    data: Any = None


class _Answer(BaseModel):
    outputs: list[_Output]


def asking(url: str, kind: Kind, signature: Signature, parameters: Parameters, pixels: Tensor) -> Call:
    """The request about one image, uint8 (3, H, W)."""
    array = _array(kind, signature, pixels)
    raw = array.tobytes() if signature.binary else b""
    tensor: dict[str, Any] = {"name": signature.input, "datatype": signature.datatype, "shape": list(array.shape)}
    if signature.binary:
        tensor["parameters"] = {"binary_data_size": len(raw)}
    else:
        tensor["data"] = array.ravel().tolist()
    outputs = [{"name": name, "parameters": {"binary_data": signature.binary}} for name in signature.outputs]
    if not signature.binary:
        outputs = [{"name": name} for name in signature.outputs]
    head = json.dumps({"inputs": [tensor], "outputs": outputs, "parameters": dict(parameters)}).encode()
    headers = {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(len(head))}
    return Call("POST", f"{url}/infer", head + raw, headers if raw else {"Content-Type": "application/json"})


def read_answer(kind: Kind, signature: Signature, height: int, width: int, reply: Reply) -> Said:
    """What ``reply`` says of an image of that height and width. Raises MalformedReplyError."""
    tensors = _tensors(reply, signature.outputs)
    if kind == "detector":
        return _detections(tensors, seen_size(signature, height, width), (height, width))
    (array,) = tensors.values()
    if kind == "classifier":
        return _probabilities(_without_batch(array, 1, "classes"))
    return _mask(array, height, width)


def _array(kind: Kind, signature: Signature, pixels: Tensor) -> Array:
    images = to_float(pixels).unsqueeze(0)
    if signature.size is not None:
        side, other = signature.size
        if kind == "classifier" and side == other:
            images = fit(images, InputConvention(short_side=side, crop=side))
        else:
            images = SceneScale(exact=signature.size)(images)
    values = to_bytes(images) if signature.datatype == "UINT8" else images
    laid_out = values.permute(0, 2, 3, 1) if signature.channels_last else values
    array: Array = laid_out.contiguous().numpy().astype(SENT[signature.datatype])
    return array if signature.batched else array[0]


def _tensors(reply: Reply, wanted: Sequence[str]) -> dict[str, Array]:
    """The outputs by name, from JSON or from the bytes behind it."""
    length = reply.headers.get(HEADER_LENGTH.lower())
    if length is not None and not (length.isascii() and length.isdigit() and len(length) < 12):
        raise MalformedReplyError(f"{HEADER_LENGTH} is no length")
    split = len(reply.body) if length is None else int(length)
    rest = memoryview(reply.body)[split:]
    found: dict[str, Array] = {}
    for output in parsed(_Answer, reply.body[:split]).outputs:
        size = (output.parameters or {}).get("binary_data_size")
        if size is None:
            data: Any = output.data
        elif isinstance(size, int) and 0 <= size <= len(rest):
            data, rest = rest[:size], rest[size:]
        else:
            raise MalformedReplyError(f"output {output.name[:40]!r} has fewer bytes than it says")
        if output.name in wanted:
            found[output.name] = _values(output, data)
    missing = [name for name in wanted if name not in found]
    if missing:
        raise MalformedReplyError(f"output {missing[0][:40]!r} is missing")
    return found


def _values(output: _Output, data: Any) -> Array:
    stored = READ.get(output.datatype)
    if stored is None:
        raise MalformedReplyError(f"output {output.name[:40]!r} is of datatype {output.datatype[:20]!r}, no numbers")
    try:
        if isinstance(data, memoryview):
            array: Array = np.frombuffer(data, stored)
        else:
            array = np.asarray(data, dtype=np.float64).ravel()
        if array.size != math.prod(output.shape):
            raise MalformedReplyError(f"output {output.name[:40]!r} has {array.size} values, not {output.shape}")
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is told below
            array = array.reshape(output.shape).astype(np.float32)
    except (ValueError, TypeError, OverflowError) as error:
        raise MalformedReplyError(f"output {output.name[:40]!r} holds no numbers of its shape") from error
    if not np.isfinite(array).all():
        raise MalformedReplyError(f"output {output.name[:40]!r} holds NaN or infinity")
    return array


def _without_batch(array: Array, rank: int, what: str) -> Array:
    """The one image's part, of ``rank``; its batch's 1 may be missing."""
    if array.ndim == rank + 1 and len(array) == 1:
        array = array[0]
    if array.ndim != rank:
        raise MalformedReplyError(f"the {what} of one image have the shape {list(array.shape)}")
    return array


def _probabilities(values: Array) -> Said:
    """(classes, ...): probabilities as they are, logits by way of the softmax."""
    if not 0 < len(values) <= MOST_LABELS or not values.size:
        raise MalformedReplyError(f"there are {len(values)} classes")
    tensor = torch.from_numpy(values.copy())
    normal = bool((tensor >= 0).all()) and bool(((tensor.sum(dim=0) - 1).abs() < SLACK).all())
    return Said(tensor if normal else tensor.softmax(dim=0), len(tensor))


def _mask(array: Array, height: int, width: int) -> Said:
    while array.ndim > 2 and len(array) == 1:  # one image of one class would be no segmentation
        array = array[0]
    if array.ndim == 2:
        if not array.size or (array < 0).any() or (array >= MOST_CLASSES).any() or (array % 1).any():
            raise MalformedReplyError("the mask holds other values than class numbers from 0 to 255")
        classes = torch.from_numpy(array.copy())[None, None]
        mask = torch.nn.functional.interpolate(classes, size=(height, width), mode="nearest-exact")[0, 0]
        return Said(ClassMask(mask.to(torch.uint8)), int(mask.max()) + 1)
    said = _probabilities(_without_batch(array, 3, "class maps"))
    if said.classes > MOST_CLASSES or not isinstance(said.finding, Tensor):
        raise MalformedReplyError(f"there are {said.classes} classes; a mask holds {MOST_CLASSES}")
    return Said(likeliest(said.finding, height, width), said.classes)


def _detections(tensors: Mapping[str, Array], seen: tuple[int, int], size: tuple[int, int]) -> Said:
    boxes = _without_batch(tensors["boxes"], 2, "boxes")
    scores, labels = (_without_batch(tensors[name], 1, name) for name in ("scores", "labels"))
    if boxes.shape != (len(scores), 4) or len(labels) != len(scores) or len(scores) > MOST_OBJECTS:
        raise MalformedReplyError("boxes, scores and labels are not of one number of objects")
    real = labels >= 0
    boxes, scores, labels = boxes[real], scores[real], labels[real]
    if (scores < 0).any() or (scores > 1).any() or (labels >= MOST_LABELS).any() or (labels % 1).any():
        raise MalformedReplyError("scores lie in 0 to 1, and labels are class numbers")
    numbers = torch.from_numpy(labels).long()
    found = Detections(torch.from_numpy(boxes), torch.from_numpy(scores), numbers)
    return Said(scaled_back(found, seen, size), int(numbers.max()) + 1 if len(numbers) else 0)
