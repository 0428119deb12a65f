from __future__ import annotations

import base64
import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from service.errors import UnreadableImageError
from service.images import encode, read
from service.sixteen_bit import read_sixteen_bit, to_eight, upright, write_sixteen_bit
from tests.service.scenes import SceneEngine

LIMIT = 1 << 20


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(levels: Any, *, extra: bytes = b"", filters: Any = None) -> bytes:
    """A 16-bit PNG written the plain way, each row with its own filter where ``filters`` names them."""
    height, width, channels = levels.shape
    raw = levels.astype(">u2").tobytes()
    stride, step = width * channels * 2, channels * 2
    before, rows = bytes(stride), b""
    for number in range(height):
        row = raw[number * stride : (number + 1) * stride]
        kind = filters[number % len(filters)] if filters else 0
        rows += bytes([kind]) + filtered(row, before, kind, step)
        before = row
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    parts = [chunk(b"IHDR", header), extra, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def filtered(row: bytes, above: bytes, kind: int, step: int) -> bytes:
    out = bytearray()
    for place, value in enumerate(row):
        left = row[place - step] if place >= step else 0
        corner = above[place - step] if place >= step else 0
        nearest = min((left, above[place], corner), key=lambda near: abs(left + above[place] - corner - near))
        out.append((value - (0, left, above[place], (left + above[place]) // 2, nearest)[kind]) % 256)
    return bytes(out)


def interlaced(levels: Any) -> bytes:
    """A 16-bit PNG in the seven passes of Adam7."""
    height, width, channels = levels.shape
    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    parts = [levels[y::down, x::across].astype(">u2") for y, x, down, across in passes]
    rows = b"".join(b"\0" + row.tobytes() for part in parts if part.size for row in part)
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 1)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def random_levels(height: int, width: int, channels: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 65_536, (height, width, channels), dtype=np.uint16)


def spread(levels: Any) -> Any:
    """Grey as RGB, alpha behind."""
    return levels if levels.shape[-1] > 2 else levels[..., [0, 0, 0, *range(1, levels.shape[-1])]]


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("filters", [None, (1, 2, 3, 4)])
def test_every_level_is_read(channels: int, filters: Any) -> None:
    levels = random_levels(9, 7, channels)
    assert np.array_equal(read_sixteen_bit(png(levels, filters=filters)), spread(levels))
    assert np.array_equal(read_sixteen_bit(interlaced(levels)), spread(levels))


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("strip_bytes", [1, 100, 1 << 20])
def test_every_level_is_written(channels: int, strip_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.sixteen_bit._STRIP_BYTES", strip_bytes)
    levels = random_levels(9, 7, channels)
    data = write_sixteen_bit(levels)
    assert np.array_equal(read_sixteen_bit(data), levels)
    with Image.open(io.BytesIO(data)) as image:  # what another reader makes of it
        image.load()
        assert (image.size, image.mode) == ((7, 9), "RGB" if channels == 3 else "RGBA")
        assert np.array_equal(np.asarray(image), levels >> 8)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_transparent_colour_becomes_alpha(channels: int) -> None:
    levels = random_levels(4, 5, channels)
    clear = levels[1, 2].tolist()
    got = read_sixteen_bit(png(levels, extra=chunk(b"tRNS", struct.pack(f">{channels}H", *clear))))
    assert got[1, 2, 3] == 0
    assert (got[..., 3] == 0).sum() == 1
    assert np.array_equal(got[..., :3], spread(levels)[..., :3])


@pytest.mark.parametrize("orientation", [0, *range(1, 9)])
def test_levels_are_turned_as_eight_bit_images_are(orientation: int, photo: Any, file_of: Any) -> None:
    image = photo()
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = read(file_of(image, exif=exif), LIMIT).pixels.permute(1, 2, 0).numpy()
    assert np.array_equal(upright(np.asarray(image).astype(np.uint16), orientation), turned)


def test_reduced_to_eight_bits_each_level_is_the_nearest() -> None:
    levels = np.arange(65_536, dtype=np.uint16)
    assert np.array_equal(to_eight(levels), np.round(levels / 257).astype(np.uint8))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_deep_image_comes_back_deep_with_its_alpha(channels: int) -> None:
    levels = random_levels(6, 8, channels)
    decoded = read(png(levels), LIMIT, deep=True)
    assert (decoded.width, decoded.height) == (8, 6)
    assert np.array_equal(read_sixteen_bit(encode(decoded.pixels, decoded.alpha, "PNG")), spread(levels))


def test_a_deep_image_in_another_format_has_its_nearest_eight_bits(image_of: Any) -> None:
    levels = random_levels(6, 8, 4)
    levels[..., 3] |= 0x8000
    decoded = read(png(levels), LIMIT, deep=True)
    assert np.array_equal(np.asarray(image_of(encode(decoded.pixels, decoded.alpha, "WEBP"))), to_eight(levels))
    assert image_of(encode(decoded.pixels, decoded.alpha, "JPEG")).mode == "RGB"


def test_a_deep_image_is_as_deep_as_asked_for() -> None:
    assert str(read(png(random_levels(6, 8, 3)), LIMIT).pixels.dtype) == "torch.uint8"


@pytest.mark.parametrize("keep", [0.5, 0.9])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_truncated_deep_image_is_refused(channels: int, keep: float) -> None:
    data = png(random_levels(30, 30, channels))
    with pytest.raises(UnreadableImageError):
        read(data[: int(len(data) * keep)], LIMIT, deep=True)


def test_a_deep_image_keeps_its_profile_and_its_numbers() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    levels = random_levels(6, 8, 3)
    data = png(levels, extra=chunk(b"iCCP", b"a profile\0\0" + zlib.compress(profile)))
    decoded = read(data, LIMIT, deep=True)
    back = encode(decoded.pixels, decoded.alpha, "PNG", decoded.profile)
    assert np.array_equal(read_sixteen_bit(back), levels)
    with Image.open(io.BytesIO(back)) as image:
        assert image.info["icc_profile"] == profile


@pytest.mark.parametrize(("accept", "deep"), [("image/png", True), ("application/json", True), ("image/webp", False)])
def test_a_deep_upload_gets_a_deep_answer_where_the_format_can(client: Any, accept: str, deep: bool) -> None:
    levels = random_levels(6, 8, 3)
    answer = client.post("/purify", content=png(levels), headers={"accept": accept})
    assert answer.status_code == 200
    assert answer.headers["x-nrp-linf"] == "0"
    body = base64.b64decode(answer.json()["image"]["base64"]) if "json" in accept else answer.content
    if deep:
        assert np.array_equal(read_sixteen_bit(body), levels)
    else:
        with Image.open(io.BytesIO(body)) as image:
            assert np.array_equal(np.asarray(image), levels >> 8)


def test_a_deep_upload_is_given_to_downstream_models_as_eight_bits(client_for: Any) -> None:
    levels = np.full((24, 40, 3), 1000, dtype=np.uint16)
    levels[:, 20:] = 64_000
    client = client_for(SceneEngine)
    classes = client.post("/segment-robust", content=png(levels))
    assert classes.status_code == 200
    with Image.open(io.BytesIO(classes.content)) as mask:
        assert np.array_equal(np.asarray(mask), np.where(np.arange(40) < 20, 0, 2)[None].repeat(24, axis=0))
    found = client.post("/detect-robust", content=png(levels)).json()["objects"]
    assert [(each["label"], each["box"]["x0"], each["box"]["x1"]) for each in found] == [("bright", 20, 40)]
    assert client_for().post("/classify-robust", content=png(levels)).status_code == 200


def test_a_deep_answer_is_purified_and_its_change_told_in_levels_of_255(client: Any) -> None:
    levels = random_levels(16, 16, 3)
    answer = client.post("/purify?mode=published&seed=3", content=png(levels))
    change = np.abs(read_sixteen_bit(answer.content).astype(int) - levels) / 257
    assert 0 < change.max() <= 16.01
    assert int(answer.headers["x-nrp-linf"]) == round(change.max())
    assert float(answer.headers["x-nrp-suspicion"]) == pytest.approx(np.sqrt((change**2).mean()), abs=1e-3)
