"""Tensors of the protocol and the engine's images: two layouts in, the same two out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model_store.pixels import to_bytes, to_float
from service.errors import MalformedInferenceError

IMAGE = "image"
BINARY_SIZE = "binary_data_size"
LONGEST_SIDE = 1 << 31
INTEGERS = "INT64"
# The protocol's name of an array's type; bytes are little-endian.
DATATYPES: Mapping[str, str] = MappingProxyType({"uint8": "UINT8", "float32": "FP32", "int64": INTEGERS})

Array = NDArray[Any]


@dataclass(frozen=True)
class Layout:
    """How images lie in a tensor. ``stored``: numpy's type of the bytes, little-endian; ``axes``: to N, 3, H, W."""

    datatype: str
    stored: str
    shape: tuple[int, int, int, int]
    axes: tuple[int, int, int, int]
    in_words: str


LEVELS = Layout("UINT8", "|u1", (-1, -1, -1, 3), (0, 3, 1, 2), "UINT8 [N, H, W, 3], levels 0 to 255")
FLOATS = Layout(
    "FP32", "<f4", (-1, 3, -1, -1), (0, 1, 2, 3), "FP32 [N, 3, H, W] in [0, 1], rounded to the nearest of 256 levels"
)
LAYOUTS: Mapping[str, Layout] = MappingProxyType({layout.datatype: layout for layout in (LEVELS, FLOATS)})


@dataclass(frozen=True)
class Images:
    """Images of one size as they were sent: ``values`` of ``layout``, not yet converted."""

    layout: Layout
    values: Array

    @property
    def count(self) -> int:
        return len(self.values)

    @property
    def height(self) -> int:
        return int(self.values.shape[self.layout.axes[2]])

    @property
    def width(self) -> int:
        return int(self.values.shape[self.layout.axes[3]])

    def pixels(self) -> Tensor:
        """uint8 (N, 3, H, W), a copy. Raises MalformedInferenceError for what is no image."""
        if self.layout is LEVELS:
            return torch.from_numpy(self.values.transpose(self.layout.axes).copy())
        low, high = float(self.values.min()), float(self.values.max())
        if not (low >= 0 and high <= 1):  # in this form NaN is refused too
            raise MalformedInferenceError(f"{IMAGE}: FP32 values lie in [0, 1]; these reach from {low:g} to {high:g}")
        return to_bytes(torch.from_numpy(self.values.astype(np.float32)))


def layout_of(datatype: str, shape: list[int]) -> Layout:
    """The layout of an image tensor. Raises MalformedInferenceError where it has none."""
    layout = LAYOUTS.get(datatype)
    wanted = " or ".join(known.in_words for known in LAYOUTS.values())
    if layout is None:
        raise MalformedInferenceError(f"{IMAGE}: datatype {datatype[:20]!r} is not taken; send {wanted}")
    fits = len(shape) == len(layout.shape) and all(
        0 < side <= LONGEST_SIDE and expected in (-1, side) for side, expected in zip(shape, layout.shape, strict=True)
    )
    if not fits:
        raise MalformedInferenceError(
            f"{IMAGE}: shape {str(shape[:8])[:80]} is not taken for {datatype}; send {wanted}"
        )
    return layout


def from_bytes(layout: Layout, shape: list[int], data: memoryview) -> Images:
    """Images of bytes. Raises MalformedInferenceError where there are not as many as the shape takes."""
    wanted = math.prod(shape) * np.dtype(layout.stored).itemsize
    if len(data) != wanted:
        raise MalformedInferenceError(f"{IMAGE}: shape {shape} takes {wanted} bytes, but {len(data)} came")
    return Images(layout, np.frombuffer(data, layout.stored).reshape(shape))


def from_values(layout: Layout, shape: list[int], data: object) -> Images:
    """Images of numbers, flat or nested. Raises MalformedInferenceError."""
    try:
        values = np.asarray(data)
    except ValueError as error:
        raise MalformedInferenceError(f"{IMAGE}: data is no array; its rows are not of one length") from error
    kinds = "iu" if layout is LEVELS else "iuf"
    if values.dtype.kind not in kinds:
        raise MalformedInferenceError(f"{IMAGE}: data must hold numbers that {layout.datatype} can")
    if values.size != math.prod(shape) or (values.ndim > 1 and values.shape != tuple(shape)):
        raise MalformedInferenceError(f"{IMAGE}: data is of shape {list(values.shape)[:8]}, not {shape} or flat")
    if layout is LEVELS and not (values.min() >= 0 and values.max() <= 255):
        raise MalformedInferenceError(f"{IMAGE}: UINT8 values lie in 0 to 255")
    return Images(layout, values.astype(layout.stored).reshape(shape))


def laid_out(purified: Tensor, layout: Layout) -> Array:
    """Purified images, uint8 (N, 3, H, W), as they were sent."""
    if layout is FLOATS:
        return to_float(purified).numpy().astype(layout.stored)
    return purified.permute(0, 2, 3, 1).contiguous().numpy()
