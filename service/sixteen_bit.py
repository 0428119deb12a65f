"""PNG of 16 bits a channel, both ways without losing the lower eight, for which Pillow has no colour image.

Pillow decodes all the same, with its checks and at its speed: its PNG decoder can be told to keep the upper byte of
each value or the lower one, so two passes give both. A pixel of grey and alpha is four bytes, as one of 8-bit RGBA is,
and is read as such. Encoding needs no more than zlib.
"""

from __future__ import annotations

import io
import struct
import zlib
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Levels = NDArray[np.uint16]

# What the decoder is told for each kind of 16-bit PNG: once, or once for the upper and once for the lower bytes.
PASSES = MappingProxyType(
    {
        "I;16B": ("I;16B",),
        "LA;16B": ("RGBA",),
        "RGB;16B": ("RGB;16B", "RGB;16L"),
        "RGBA;16B": ("RGBA;16B", "RGBA;16L"),
    }
)
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_STRIP_BYTES = 1 << 23
_LEVEL = 3  # as for 8 bits: a purified photo barely shrinks further, only slower
_SUB = 1  # each byte minus that of the pixel before
_COLOUR_TYPES = MappingProxyType({3: 2, 4: 6})


def is_sixteen_bit(image: Image.Image) -> bool:
    """Whether an opened image, its pixels not loaded yet, is a PNG of 16 bits a channel."""
    return image.format == "PNG" and _kind(image) in PASSES


def read_sixteen_bit(data: bytes) -> Levels:
    """The levels (H, W, C) of a 16-bit PNG, C 3 or 4 with alpha; grey is repeated, a transparent colour becomes alpha.

    Raises what Pillow raises for broken or truncated data.
    """
    with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
        kind, clear = _kind(image), image.info.get("transparency")
    passes = [_pass(data, each) for each in PASSES[kind]]
    if kind == "I;16B":
        levels = passes[0].astype(np.uint16)[..., None]
    elif kind == "LA;16B":
        levels = passes[0].view(">u2").astype(np.uint16)
    else:
        levels = np.left_shift(passes[0], 8, dtype=np.uint16)
        levels |= passes[1]
    channels = levels.shape[-1]
    if clear is not None and channels in (1, 3):
        opaque = (levels != np.asarray(clear)).any(axis=-1, keepdims=True)
        levels = np.concatenate([levels, np.where(opaque, 65_535, 0).astype(np.uint16)], axis=-1)
    return levels if channels >= 3 else levels[..., [0, 0, 0, *range(1, levels.shape[-1])]]


def write_sixteen_bit(levels: Levels, profile: bytes | None = None) -> bytes:
    """A PNG of levels (H, W, C), C 3 or 4 with alpha, with an ICC profile if given."""
    height, width, channels = levels.shape
    header = struct.pack(">IIBBBBB", width, height, 16, _COLOUR_TYPES[channels], 0, 0, 0)
    parts = [_SIGNATURE, *_chunk(b"IHDR", header)]
    if profile is not None:
        parts += _chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(profile))
    squeeze = zlib.compressobj(_LEVEL)
    step = max(1, _STRIP_BYTES // (2 * width * channels))
    for top in range(0, height, step):
        parts += _chunk(b"IDAT", squeeze.compress(_filtered(levels[top : top + step])))
    parts += _chunk(b"IDAT", squeeze.flush())
    parts += _chunk(b"IEND", b"")
    return b"".join(parts)


def upright(levels: Levels, orientation: int) -> Levels:
    """Levels (H, W, C) turned as EXIF ``orientation`` 1 to 8 asks for; others leave them."""
    if orientation in {5, 6, 7, 8}:
        levels = levels.swapaxes(0, 1)
    if orientation in {3, 4, 7, 8}:
        levels = levels[::-1]
    if orientation in {2, 3, 6, 7}:
        levels = levels[:, ::-1]
    return levels


def to_eight(levels: Levels) -> NDArray[np.uint8]:
    """To the nearest of 256 levels."""
    return ((levels.astype(np.int32) + 128) // 257).astype(np.uint8)


def _kind(image: Image.Image) -> str:
    tile = getattr(image, "tile", None)
    return str(tile[0].args) if tile else ""


def _pass(data: bytes, raw: str) -> NDArray[Any]:
    with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
        image.tile = [image.tile[0]._replace(args=raw)]
        image.load()
        return np.array(image)


def _filtered(levels: Levels) -> bytes:
    """Rows as PNG stores them: a byte that names the filter, then big-endian values, filtered."""
    rows, bytes_a_pixel = len(levels), 2 * levels.shape[-1]
    raw = np.ascontiguousarray(levels.astype(">u2")).view(np.uint8).reshape(rows, -1)
    out = np.empty((rows, raw.shape[1] + 1), dtype=np.uint8)
    out[:, 0] = _SUB
    out[:, 1 : 1 + bytes_a_pixel] = raw[:, :bytes_a_pixel]
    np.subtract(raw[:, bytes_a_pixel:], raw[:, :-bytes_a_pixel], out=out[:, 1 + bytes_a_pixel :])
    return out.tobytes()


def _chunk(kind: bytes, data: bytes) -> tuple[bytes, bytes, bytes]:
    return struct.pack(">I", len(data)) + kind, data, struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))
