"""Colour profiles: whatever an image's ICC profile says its numbers mean, the models get sRGB, and the answer is given
in the profile again."""

from __future__ import annotations

import io
from functools import lru_cache
from types import MappingProxyType

import numpy as np
from PIL import Image, ImageCms

_SPACES = MappingProxyType({"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"})
_BROKEN = (ImageCms.PyCMSError, OSError, ValueError, TypeError)


def to_srgb(image: Image.Image, profile: bytes | None) -> tuple[Image.Image, tuple[str, ...]]:
    """An L, RGB or CMYK image as sRGB, and notes for the log.

    Without a profile, or with one that is broken or of another colour space, the numbers are taken as sRGB.
    """
    if not profile:
        return _rgb(image), ()
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = str(source.profile.xcolor_space).strip()
        if space != _SPACES[image.mode]:
            return _rgb(image), (f"ICC profile is for {space}, image is {image.mode}; taken as sRGB",)
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), image.mode, "RGB")
        if image.mode == "RGB" and _changes_nothing(transform):
            return image, ()
        converted = ImageCms.applyTransform(image, transform)
    except _BROKEN as error:
        return _rgb(image), (f"ICC profile cannot be used ({' '.join(str(error).split())}); taken as sRGB",)
    return (image if converted is None else converted), ()


def from_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """An sRGB image in the space of a profile that ``can_hold_rgb``."""
    target = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    transform = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), target, "RGB", "RGB")
    if _changes_nothing(transform):
        return image
    converted = ImageCms.applyTransform(image, transform)
    return image if converted is None else converted


def can_hold_rgb(profile: bytes | None) -> bool:
    """Whether an RGB image can be given in this profile; many of scanners and cameras lead one way only."""
    if not profile:
        return False
    try:
        target = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if str(target.profile.xcolor_space).strip() != "RGB":
            return False
        ImageCms.buildTransform(ImageCms.createProfile("sRGB"), target, "RGB", "RGB")
    except _BROKEN:
        return False
    return True


def _rgb(image: Image.Image) -> Image.Image:
    """``convert`` would copy an RGB image."""
    return image if image.mode == "RGB" else image.convert("RGB")


def _changes_nothing(transform: ImageCms.ImageCmsTransform) -> bool:
    """True for sRGB to sRGB: a round trip through the profile space would only add rounding."""
    probe = _probe()
    after = ImageCms.applyTransform(probe, transform)
    difference = np.asarray(after, dtype=np.int16) - np.asarray(probe, dtype=np.int16)
    return int(np.abs(difference).max()) <= 1


@lru_cache(maxsize=1)
def _probe() -> Image.Image:
    """Every 15th level of each channel: 18 x 18 x 18 colours."""
    levels = np.arange(0, 256, 15, dtype=np.uint8)
    cube = np.stack(np.meshgrid(levels, levels, levels), axis=-1)
    return Image.fromarray(cube.reshape(len(levels), -1, 3))
