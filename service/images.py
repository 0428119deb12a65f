"""Image files to pixels and back: what is accepted, and in which state it reaches the models.

Only still JPEG, PNG, WebP, BMP and GIF images are opened. The header's size is checked before anything is decoded;
then the image is turned upright (EXIF), brought to sRGB (ICC) and to 8 bits a channel, and its alpha and its profile
kept aside. A PNG of 16 bits a channel can keep them; its numbers then stay in its own colour space.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from model_store.pixels import bytes_to_image, image_to_bytes
from service.colour import can_hold_rgb, from_srgb, to_srgb
from service.errors import (
    AnimatedImageError,
    TooManyPixelsError,
    UnencodableImageError,
    UnreadableImageError,
    UnsupportedImageError,
)
from service.sixteen_bit import is_sixteen_bit, read_sixteen_bit, to_eight, upright, write_sixteen_bit

ImageFormat = Literal["PNG", "JPEG", "WEBP"]

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")
# Networks pad each side to a multiple of their stride, so a sliver costs as much as a strip this wide.
LEAST_SIDE = 16
LONGEST_SIDE: Mapping[ImageFormat, int] = MappingProxyType({"PNG": 2**31 - 1, "JPEG": 65_500, "WEBP": 16_383})

_MAGIC = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM")
_ORIENTATION_TAG = 0x0112
_UPRIGHT = MappingProxyType(
    {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
)
# What Pillow's parsers are known to raise on malformed bytes; Warning is for interpreters that turn those into errors.
_PARSER_FAILURES = (
    OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, AttributeError, ArithmeticError, struct.error,
    zlib.error, Warning,
)  # fmt: skip


@dataclass(frozen=True)
class OpenedImage:
    """An image whose header is read and within the limits, its pixels not yet decoded. Sides as stored, in pixels."""

    image: Image.Image
    width: int
    height: int
    data: bytes

    @property
    def charge(self) -> int:
        """What this image counts for in every pixel budget."""
        return charge(self.width, self.height)


@dataclass(frozen=True)
class DecodedImage:
    """Upright ``pixels``, uint8 sRGB or uint16 (3, H, W); ``alpha`` (mode L or I;16, H x W) or None; ``notes`` for the
    log. ``profile``: the ICC profile that the image came in, where an answer can be given in it."""

    pixels: Tensor
    alpha: Image.Image | None = None
    profile: bytes | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def height(self) -> int:
        return int(self.pixels.shape[-2])

    @property
    def width(self) -> int:
        return int(self.pixels.shape[-1])


def charge(width: int, height: int) -> int:
    """Pixels that an image of this size is charged: its own, but each side counts as LEAST_SIDE at the least."""
    return max(width, LEAST_SIDE) * max(height, LEAST_SIDE)


def open_image(data: bytes, max_pixels: int) -> OpenedImage:
    """Read the header of an image file and refuse what must not be decoded.

    Raises UnsupportedImageError, UnreadableImageError, TooManyPixelsError or AnimatedImageError.
    """
    if not data:
        raise UnreadableImageError("the body is empty; send an image file")
    if not (data.startswith(_MAGIC) or (data[:4] == b"RIFF" and data[8:12] == b"WEBP")):
        raise UnsupportedImageError(f"the bytes are no {_listed(FORMATS)} image, whatever the file's name says")
    if data[:4] == b"\x89PNG" and data[12:16] == b"IHDR" and len(data) >= 24:
        # Pillow reads on to the pixel data before it tells the size; a bare header should be refused for what it says.
        width, height = struct.unpack(">II", data[16:24])
        _check_size(width, height, max_pixels)
    with _parsing("its header cannot be read", max_pixels):
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        # A phone's JPEG with an embedded preview (MPO) has several pictures but is one still image.
        moving = image.format != "MPO" and bool(getattr(image, "is_animated", False))
    _check_size(image.width, image.height, max_pixels)
    if moving:
        raise AnimatedImageError(f"the {image.format} image is animated; send a still image")
    return OpenedImage(image, *image.size, data)


def decode(opened: OpenedImage, *, deep: bool = False) -> DecodedImage:
    """Decode an opened image; ``deep``: keep 16 bits where it has them.

    Raises UnreadableImageError where its data is broken or truncated.
    """
    image = opened.image
    if deep and is_sixteen_bit(image):
        return _decode_deep(opened)
    with _parsing("its data is broken or truncated"):
        image.load()
        base, alpha = _split_alpha(image)
    icc = image.info.get("icc_profile")
    rgb, notes = to_srgb(base, icc)
    turn = _UPRIGHT.get(_orientation(image))
    if turn is not None:
        rgb = rgb.transpose(turn)
        alpha = None if alpha is None else alpha.transpose(turn)
    kept = icc if base.mode == "RGB" and not notes and can_hold_rgb(icc) else None
    return DecodedImage(image_to_bytes(rgb), alpha, kept, notes)


def _decode_deep(opened: OpenedImage) -> DecodedImage:
    with _parsing("its data is broken or truncated"):
        levels = read_sixteen_bit(opened.data)
        opened.image.load()  # what comes after the pixels: EXIF may
    levels = upright(levels, _orientation(opened.image))
    icc = opened.image.info.get("icc_profile")
    kept = icc if can_hold_rgb(icc) else None
    notes = ("ICC profile is of no RGB space; dropped",) if icc and kept is None else ()
    pixels = torch.from_numpy(np.ascontiguousarray(levels[..., :3].transpose(2, 0, 1)))
    alpha = Image.fromarray(np.ascontiguousarray(levels[..., 3])) if levels.shape[-1] == 4 else None
    return DecodedImage(pixels, alpha, kept, notes)


def read(data: bytes, max_pixels: int, *, deep: bool = False) -> DecodedImage:
    """``decode(open_image(...))``, for callers that need no admission in between."""
    return decode(open_image(data, max_pixels), deep=deep)


def encode(pixels: Tensor, alpha: Image.Image | None, image_format: ImageFormat, profile: bytes | None = None) -> bytes:
    """Encode (3, H, W): uint8 sRGB, converted to ``profile`` where given, or uint16 in the space of ``profile``.

    PNG and WebP are lossless and carry ``alpha``; JPEG (quality 95, 4:4:4) drops it. Only PNG keeps 16 bits. Raises
    UnencodableImageError where a side is longer than the format can hold.
    """
    height, width = pixels.shape[-2:]
    if max(width, height) > LONGEST_SIDE[image_format]:
        raise UnencodableImageError(
            f"{image_format} holds at most {LONGEST_SIDE[image_format]} pixels a side, the image is "
            f"{width}x{height}; ask for PNG"
        )
    if pixels.dtype == torch.uint16:
        return _encode_deep(pixels, alpha, image_format, profile)
    image = bytes_to_image(pixels)
    return _encode_image(image if profile is None else from_srgb(image, profile), alpha, image_format, profile)


def _encode_deep(pixels: Tensor, alpha: Image.Image | None, image_format: ImageFormat, profile: bytes | None) -> bytes:
    levels = pixels.numpy().transpose(1, 2, 0)
    if image_format != "PNG":
        small = None if alpha is None else Image.fromarray(to_eight(np.asarray(alpha, dtype=np.uint16)))
        return _encode_image(Image.fromarray(to_eight(levels)), small, image_format, profile)
    if alpha is not None:
        levels = np.concatenate([levels, np.asarray(alpha, dtype=np.uint16)[..., None]], axis=-1)
    return write_sixteen_bit(levels, profile)


def _encode_image(
    image: Image.Image, alpha: Image.Image | None, image_format: ImageFormat, profile: bytes | None
) -> bytes:
    if alpha is not None and image_format != "JPEG":
        image.putalpha(alpha)
    out = io.BytesIO()
    if image_format == "PNG":
        image.save(out, "PNG", compress_level=1, icc_profile=profile)  # more barely shrinks a photo, only slower
    elif image_format == "JPEG":
        image.save(out, "JPEG", quality=95, subsampling=0, icc_profile=profile)
    else:  # here quality means effort
        image.save(out, "WEBP", lossless=True, quality=20, method=1, exact=True, icc_profile=profile or b"")
    return out.getvalue()


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if charge(width, height) > max_pixels:
        counted = "" if min(width, height) >= LEAST_SIDE else f" (each side counts as {LEAST_SIDE} at the least)"
        raise TooManyPixelsError(
            f"the image is {width}x{height} pixels; the limit is {max_pixels} in all{counted}; "
            "make it smaller, or raise NRP_MAX_PIXELS"
        )


def _split_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """The image as L, RGB or CMYK, and its transparency as an L image where it has any."""
    if image.mode.startswith("I"):
        return _sixteen_bit(image)
    if image.mode == "LA":
        return image.getchannel("L"), image.getchannel("A")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return rgba.convert("RGB"), rgba.getchannel("A")
    if image.mode in {"L", "RGB", "CMYK"}:
        return image, None
    return image.convert("L" if image.mode == "1" else "RGB"), None


def _sixteen_bit(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Grey of 16 bits to the nearest of 256 levels (Pillow's own conversion clips at 255)."""
    levels = np.asarray(image).astype(np.int64).clip(0, 65_535)
    grey = Image.fromarray(((levels + 128) // 257).astype(np.uint8))
    clear = image.info.get("transparency")
    if not isinstance(clear, int):
        return grey, None
    return grey, Image.fromarray(np.where(levels == clear, 0, 255).astype(np.uint8))


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1 to 8; 1 where EXIF is absent or broken, as every viewer has it."""
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except _PARSER_FAILURES:
        return 1
    return value if isinstance(value, int) else 1


@contextmanager
def _parsing(what: str, max_pixels: int = 0) -> Iterator[None]:
    """Turn whatever a parser trips over into one error that says ``what`` is wrong."""
    try:
        yield
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise TooManyPixelsError(f"the image has more pixels than the limit of {max_pixels} in all") from error
    except UnidentifiedImageError as error:
        raise UnreadableImageError(f"the image cannot be read: {what}") from error
    except MemoryError as error:
        raise UnreadableImageError("the image cannot be read: decoding it takes more memory than there is") from error
    except _PARSER_FAILURES as error:
        detail = " ".join(str(error).split())[:200]
        raise UnreadableImageError(f"the image cannot be read: {what} ({detail})") from error


def _listed(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"
