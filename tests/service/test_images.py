from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from service.errors import (
    AnimatedImageError,
    TooManyPixelsError,
    UnencodableImageError,
    UnreadableImageError,
    UnsupportedImageError,
)
from service.images import charge, encode, open_image, read

LIMIT = 1 << 20


def array(decoded: Any) -> np.ndarray:
    return decoded.pixels.permute(1, 2, 0).numpy()


def png(width: int, height: int, depth: int, colour: int, raw: bytes, *, extra: bytes = b"") -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("image_format", ["PNG", "BMP", "WEBP"])
def test_lossless_formats_decode_to_their_exact_levels(
    photo: Callable[..., Image.Image], file_of: Callable[..., bytes], image_format: str
) -> None:
    image = photo()
    options = {"lossless": True} if image_format == "WEBP" else {}
    assert np.array_equal(array(read(file_of(image, image_format, **options), LIMIT)), np.asarray(image))


def test_jpeg_decodes_as_pillow_does(photo: Callable[..., Image.Image], file_of: Callable[..., bytes]) -> None:
    data = file_of(photo(), "JPEG")
    assert np.array_equal(array(read(data, LIMIT)), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    levels = np.array([[0, 257, 256 * 100, 65535]], dtype=">u2")
    decoded = read(png(4, 1, 16, 0, b"\0" + levels.tobytes()), LIMIT)
    assert array(decoded)[0, :, 0].tolist() == [0, 1, 100, 255]


def test_sixteen_bit_grey_keeps_its_transparent_level() -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    levels = np.array([[0, 300, 65535]], dtype=">u2")
    data = png(3, 1, 16, 0, b"\0" + levels.tobytes(), extra=chunk(b"tRNS", struct.pack(">H", 300)))
    assert np.asarray(read(data, LIMIT).alpha).tolist() == [[255, 0, 255]]


def test_sixteen_bit_colour_is_reduced_to_its_upper_bits() -> None:
    levels = np.array([[[0x1234, 0x80FF, 0xFFFF]]], dtype=">u2")
    assert array(read(png(1, 1, 16, 2, b"\0" + levels.tobytes()), LIMIT)).tolist() == [[[0x12, 0x80, 0xFF]]]


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_grey_bilevel_and_palette_become_rgb(
    photo: Callable[..., Image.Image], file_of: Callable[..., bytes], mode: str
) -> None:
    image = photo().convert(mode)
    assert np.array_equal(array(read(file_of(image), LIMIT)), np.asarray(image.convert("RGB")))


def test_palette_transparency_is_kept_as_alpha(file_of: Callable[..., bytes]) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putdata([0, 1])
    decoded = read(file_of(image, transparency=b"\x40\xff"), LIMIT)
    assert array(decoded).tolist() == [[[255, 0, 0], [0, 255, 0]]]
    assert np.asarray(decoded.alpha).tolist() == [[0x40, 255]]


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_alpha_is_kept_aside_and_put_back(
    photo: Callable[..., Image.Image],
    file_of: Callable[..., bytes],
    image_of: Callable[[bytes], Image.Image],
    mode: str,
) -> None:
    image = photo().convert(mode[:-1])
    image.putalpha(photo(seed=1).convert("L"))
    decoded = read(file_of(image), LIMIT)
    for image_format in ("PNG", "WEBP"):
        back = image_of(encode(decoded.pixels, decoded.alpha, image_format))
        assert np.array_equal(np.asarray(back), np.asarray(image.convert("RGBA")))
    assert image_of(encode(decoded.pixels, decoded.alpha, "JPEG")).mode == "RGB"


def test_cmyk_becomes_rgb(photo: Callable[..., Image.Image], file_of: Callable[..., bytes]) -> None:
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    red = array(read(file_of(image, "JPEG", quality=100), LIMIT))[4, 4]
    assert red[0] > 230
    assert red[1] < 25
    assert red[2] < 25


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_turned_upright(
    photo: Callable[..., Image.Image], file_of: Callable[..., bytes], orientation: int
) -> None:
    image = photo()
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = read(file_of(image, exif=exif), LIMIT)
    turns = {
        1: image,
        2: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: image.transpose(Image.Transpose.ROTATE_180),
        4: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: image.transpose(Image.Transpose.TRANSPOSE),
        6: image.transpose(Image.Transpose.ROTATE_270),
        7: image.transpose(Image.Transpose.TRANSVERSE),
        8: image.transpose(Image.Transpose.ROTATE_90),
    }
    assert np.array_equal(array(decoded), np.asarray(turns[orientation]))
    assert (decoded.width, decoded.height) == turns[orientation].size


def test_an_srgb_profile_changes_no_pixel(photo: Callable[..., Image.Image], file_of: Callable[..., bytes]) -> None:
    image = photo()
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert np.array_equal(array(read(file_of(image, icc_profile=profile), LIMIT)), np.asarray(image))


def test_another_profile_is_converted_to_srgb(file_of: Callable[..., bytes]) -> None:
    decoded = read(file_of(Image.new("RGB", (2, 2), (255, 0, 0)), icc_profile=swapped_primaries()), LIMIT)
    assert array(decoded)[0, 0].tolist()[1] > 200
    assert decoded.notes == ()


def swapped_primaries() -> bytes:
    """A valid profile of another RGB space: sRGB's with the red and the green primary exchanged."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, green = profile.index(b"rXYZ", 128), profile.index(b"gXYZ", 128)
    profile[red : red + 4], profile[green : green + 4] = b"gXYZ", b"rXYZ"
    return bytes(profile)


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP"])
def test_an_answer_is_given_in_the_profile_that_came(
    file_of: Callable[..., bytes], image_of: Callable[[bytes], Image.Image], image_format: Any
) -> None:
    profile = swapped_primaries()
    image = Image.new("RGB", (8, 8), (200, 120, 60))
    decoded = read(file_of(image, icc_profile=profile), LIMIT)
    assert array(decoded)[0, 0].tolist() != [200, 120, 60]
    back = image_of(encode(decoded.pixels, None, image_format, decoded.profile))
    assert back.info["icc_profile"] == profile
    assert np.abs(np.asarray(back).astype(int) - np.asarray(image)).max() <= 4


def test_an_srgb_profile_comes_back_with_the_exact_levels(
    photo: Callable[..., Image.Image], file_of: Callable[..., bytes], image_of: Callable[[bytes], Image.Image]
) -> None:
    image, profile = photo(), ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    decoded = read(file_of(image, icc_profile=profile), LIMIT)
    back = image_of(encode(decoded.pixels, None, "PNG", decoded.profile))
    assert back.info["icc_profile"] == profile
    assert np.array_equal(np.asarray(back), np.asarray(image))


def test_a_profile_that_an_rgb_answer_cannot_be_in_is_not_put_on_it(
    photo: Callable[..., Image.Image], file_of: Callable[..., bytes], image_of: Callable[[bytes], Image.Image]
) -> None:
    for profile in (b"broken", ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()):
        decoded = read(file_of(photo(), icc_profile=profile), LIMIT)
        assert decoded.profile is None
        assert "icc_profile" not in image_of(encode(decoded.pixels, None, "PNG", decoded.profile)).info
    assert read(file_of(photo()), LIMIT).profile is None


@pytest.mark.parametrize("profile", [b"no profile at all", b"\0" * 200])
def test_a_broken_profile_is_noted_and_taken_as_srgb(
    photo: Callable[..., Image.Image], file_of: Callable[..., bytes], profile: bytes
) -> None:
    image = photo()
    decoded = read(file_of(image, icc_profile=profile), LIMIT)
    assert np.array_equal(array(decoded), np.asarray(image))
    assert "ICC" in decoded.notes[0]


def test_a_profile_of_another_colour_space_is_noted(
    photo: Callable[..., Image.Image], file_of: Callable[..., bytes]
) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    assert "ICC" in read(file_of(photo(), icc_profile=profile), LIMIT).notes[0]


def test_a_phones_jpeg_with_a_preview_is_one_still_image(
    photo: Callable[..., Image.Image], file_of: Callable[..., bytes]
) -> None:
    image = photo(32, 32)
    data = file_of(image, "MPO", save_all=True, append_images=[photo(8, 8)])
    decoded = read(data, LIMIT)
    assert (decoded.width, decoded.height) == (32, 32)


@pytest.mark.parametrize("image_format", ["GIF", "PNG", "WEBP"])
def test_animated_images_are_refused(
    photo: Callable[..., Image.Image], file_of: Callable[..., bytes], image_format: str
) -> None:
    data = file_of(photo(), image_format, save_all=True, append_images=[photo(seed=1)])
    with pytest.raises(AnimatedImageError, match=image_format):
        read(data, LIMIT)


def test_a_still_gif_is_accepted(photo: Callable[..., Image.Image], file_of: Callable[..., bytes]) -> None:
    image = photo().convert("P")
    assert np.array_equal(array(read(file_of(image, "GIF"), LIMIT)), np.asarray(image.convert("RGB")))


def test_too_many_pixels_are_refused_by_the_header_alone() -> None:
    with pytest.raises(TooManyPixelsError, match="60000x60000"):
        open_image(png(60_000, 60_000, 8, 2, b""), LIMIT)
    with pytest.raises(TooManyPixelsError, match="1025x1024"):
        open_image(png(1025, 1024, 8, 2, b""), LIMIT)


def test_the_limit_itself_is_allowed(photo: Callable[..., Image.Image], file_of: Callable[..., bytes]) -> None:
    data = file_of(photo(64, 64))
    assert read(data, 64 * 64).width == 64
    with pytest.raises(TooManyPixelsError):
        read(data, 64 * 64 - 1)


def test_a_sliver_is_charged_as_a_strip() -> None:
    assert charge(1, 1000) == 16_000
    with pytest.raises(TooManyPixelsError, match="counts as 16"):
        open_image(png(100_000, 1, 8, 2, b""), LIMIT)


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "BMP"])
def test_truncated_images_are_refused(
    photo: Callable[..., Image.Image], file_of: Callable[..., bytes], image_format: str, keep: float
) -> None:
    data = file_of(photo(64, 64), image_format)
    with pytest.raises(UnreadableImageError):
        read(data[: int(len(data) * keep)], LIMIT)


def test_empty_bytes_are_unreadable_and_text_is_unsupported() -> None:
    with pytest.raises(UnreadableImageError, match="empty"):
        read(b"", LIMIT)
    with pytest.raises(UnsupportedImageError, match="JPEG, PNG, WEBP, BMP or GIF"):
        read(b"hello, I am not an image", LIMIT)


def test_a_format_that_pillow_could_read_but_is_not_listed_is_unsupported(
    photo: Callable[..., Image.Image], file_of: Callable[..., bytes]
) -> None:
    with pytest.raises(UnsupportedImageError):
        read(file_of(photo(), "TIFF"), LIMIT)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
def test_damaged_bytes_give_an_image_or_one_of_our_errors(
    photo: Callable[..., Image.Image], file_of: Callable[..., bytes], image_format: str
) -> None:
    good = file_of(photo(40, 30), image_format)
    random = np.random.default_rng(7)
    for _ in range(150):
        data = bytearray(good)
        for position in random.integers(0, len(data), 6):
            data[position] = random.integers(0, 256)
        try:
            decoded = read(bytes(data), LIMIT)
        except (UnreadableImageError, UnsupportedImageError, TooManyPixelsError, AnimatedImageError):
            continue
        assert decoded.pixels.dtype is torch.uint8


def test_a_side_longer_than_the_format_holds_is_refused() -> None:
    strip = torch.zeros(3, 1, 16_384, dtype=torch.uint8)
    with pytest.raises(UnencodableImageError, match="16383"):
        encode(strip, None, "WEBP")
    assert encode(strip, None, "PNG").startswith(b"\x89PNG")
