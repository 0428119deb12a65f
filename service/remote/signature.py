"""What a model of the Open Inference Protocol takes and gives, as its metadata says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import BaseModel, Field

from model_store.official import Kind
from service.remote.attempt import MalformedReplyError, Reply
from service.remote.labels import LONGEST_LABEL, MOST_LABELS
from service.remote.parsing import parsed

BINARY = "binary_tensor_data"
SENT: Mapping[str, str] = MappingProxyType({"UINT8": "|u1", "FP16": "<f2", "FP32": "<f4"})
WANTED: Mapping[Kind, tuple[str, ...]] = MappingProxyType(
    {"classifier": ("probabilities", "logits"), "segmenter": ("probabilities", "logits", "mask")}
)
BOXES = ("boxes", "scores", "labels")
LARGEST_SIDE = 4096


class _Tensor(BaseModel):
    name: Annotated[str, Field(min_length=1, max_length=200)]
    datatype: str
    shape: list[int]


class _Metadata(BaseModel):
    inputs: list[_Tensor]
    outputs: list[_Tensor] = Field(min_length=1)
    parameters: dict[str, Any] | None = None


class _Server(BaseModel):
    extensions: list[str] = []


@dataclass(frozen=True)
class Signature:
    """What a model takes and gives. ``channels_last``: (H, W, 3) rather than (3, H, W); ``batched``: with a 1 before
    that. ``size``: the only (height, width) that it takes. ``binary``: tensors travel as bytes behind the JSON."""

    input: str
    datatype: str
    batched: bool
    channels_last: bool
    size: tuple[int, int] | None
    outputs: tuple[str, ...]
    labels: tuple[str, ...]
    binary: bool


def read_extensions(reply: Reply) -> bool:
    """Whether the server takes tensors as bytes. Raises MalformedReplyError."""
    return BINARY in parsed(_Server, reply.body).extensions


def read_signature(kind: Kind, binary: bool, reply: Reply) -> Signature:
    """The model's metadata. Raises MalformedReplyError for a model that cannot be asked about an image."""
    said = parsed(_Metadata, reply.body)
    tensor = said.inputs[0] if len(said.inputs) == 1 else None
    if tensor is None or tensor.datatype not in SENT or len(tensor.shape) not in {3, 4}:
        given = ", ".join(f"{one.name} {one.datatype} {one.shape}" for one in said.inputs)[:120] or "nothing"
        raise MalformedReplyError(f"the model takes {given}; an image is one tensor of {', '.join(SENT)}")
    batched, shape = len(tensor.shape) == 4, tensor.shape[-3:]
    channels_last = shape[2] == 3 and (shape[0] != 3 or tensor.datatype == "UINT8")
    height, width = shape[:2] if channels_last else shape[1:]
    fixed = height > 0 and width > 0
    if not (channels_last or shape[0] == 3) or (fixed and max(height, width) > LARGEST_SIDE):
        raise MalformedReplyError(f"the model takes {tensor.name[:40]} {tensor.shape}, which is no RGB image")
    return Signature(
        input=tensor.name,
        datatype=tensor.datatype,
        batched=batched,
        channels_last=channels_last,
        size=(height, width) if fixed else None,
        outputs=_chosen(kind, [output.name for output in said.outputs]),
        labels=_labels(said.parameters),
        binary=binary,
    )


def seen_size(signature: Signature, height: int, width: int) -> tuple[int, int]:
    """Height and width that an image is sent in."""
    return signature.size or (height, width)


def _chosen(kind: Kind, names: Sequence[str]) -> tuple[str, ...]:
    if kind == "detector":
        if not set(BOXES) <= set(names):
            raise MalformedReplyError(f"a detector gives boxes, scores and labels; it gives {', '.join(names)[:80]}")
        return BOXES
    known = [name for name in WANTED[kind] if name in names]
    if len(names) > 1 and not known:
        raise MalformedReplyError(
            f"it gives {', '.join(names)[:80]}; of several outputs one must be called {' or '.join(WANTED[kind])}"
        )
    return (known[0] if known else names[0],)


def _labels(parameters: Mapping[str, Any] | None) -> tuple[str, ...]:
    """The labels that our own service's metadata lists; other servers' has none."""
    labels = (parameters or {}).get("labels")
    if not isinstance(labels, list) or len(labels) > MOST_LABELS:
        return ()
    return tuple(str(label)[:LONGEST_LABEL] for label in labels)
