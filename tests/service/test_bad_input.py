"""Everything that people send by mistake or malice, through the whole service."""

from __future__ import annotations

import resource
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image


def png_header(width: int, height: int) -> bytes:
    data = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + data + struct.pack(">I", zlib.crc32(data)) + b"\0" * 64


def assert_problem(answer: Any, status: int, slug: str, *named: Any) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["type"] == f"urn:nrp:problem:{slug}"
    assert problem["status"] == status
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert problem["instance"].startswith("/")
    assert problem["title"]
    for name in named:
        assert name in problem["detail"]


@pytest.fixture
def bodies(photo: Callable[..., Image.Image], file_of: Callable[..., bytes]) -> dict[str, bytes]:
    """What must not be taken for an image, by what is wrong with it."""
    return {
        "empty": b"",
        "text": b"just text, renamed to .png",
        "zeros": b"\0" * 100_000,
        "tiff": file_of(photo(), "TIFF"),
        "truncated": file_of(photo(200, 200), "JPEG")[:2000],
        "bomb": png_header(60_000, 60_000),
        "large": png_header(5200, 5100),
        "animated": file_of(photo(), "GIF", save_all=True, append_images=[photo(seed=1)]),
    }


REFUSALS = (
    ("empty", 422, "unreadable-image", "empty"),
    ("text", 415, "unsupported-image", "no JPEG, PNG"),
    ("zeros", 415, "unsupported-image", "PNG"),
    ("tiff", 415, "unsupported-image", "PNG"),
    ("truncated", 422, "unreadable-image", "truncated"),
    ("bomb", 422, "too-many-pixels", "60000x60000"),
    ("large", 422, "too-many-pixels", "5200x5100"),
    ("animated", 422, "animated-image", "GIF"),
)


@pytest.mark.parametrize("route", ["/purify", "/classify-robust"])
@pytest.mark.parametrize("refusal", REFUSALS, ids=[case[0] for case in REFUSALS])
@pytest.mark.parametrize("multipart", [False, True])
def test_what_is_no_acceptable_image_is_a_problem_that_names_why(
    client: Any, bodies: dict[str, bytes], route: str, refusal: tuple[str, int, str, str], multipart: bool
) -> None:
    case, status, slug, named = refusal
    data = bodies[case]
    sent: Any = {"files": {"file": ("photo.png", data, "image/png")}} if multipart else {"content": data}
    assert_problem(client.post(route, **sent), status, slug, named)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_every_kind_of_png_comes_back_exactly_through_the_identity(
    client: Any,
    photo: Callable[..., Image.Image],
    file_of: Callable[..., bytes],
    image_of: Callable[[bytes], Image.Image],
    mode: str,
) -> None:
    image = photo().convert(mode)
    answer = client.post("/purify", content=file_of(image))
    assert answer.status_code == 200
    back = image_of(answer.content)
    wanted = image.convert("RGBA" if mode in {"LA", "RGBA"} else "RGB")
    assert back.mode == wanted.mode
    assert np.array_equal(np.asarray(back), np.asarray(wanted))


def test_one_pixel_is_purified_and_classified(
    client: Any,
    photo: Callable[..., Image.Image],
    file_of: Callable[..., bytes],
    image_of: Callable[[bytes], Image.Image],
) -> None:
    data = file_of(photo(1, 1))
    assert image_of(client.post("/purify", content=data).content).size == (1, 1)
    assert client.post("/classify-robust", content=data).status_code == 200


def test_a_cmyk_jpeg_and_a_sixteen_bit_png_come_back_as_images(
    client: Any, file_of: Callable[..., bytes], image_of: Callable[[bytes], Image.Image]
) -> None:
    cmyk = file_of(Image.new("CMYK", (20, 10), (0, 255, 255, 0)), "JPEG")
    assert image_of(client.post("/purify", content=cmyk).content).size == (20, 10)
    deep = file_of(Image.fromarray(np.full((10, 20), 257 * 77, dtype=np.uint16)))
    assert np.asarray(image_of(client.post("/purify", content=deep).content)).max() == 77


def test_a_photo_rotated_by_exif_comes_back_upright(
    client: Any,
    photo: Callable[..., Image.Image],
    file_of: Callable[..., bytes],
    image_of: Callable[[bytes], Image.Image],
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    back = image_of(client.post("/purify", content=file_of(photo(30, 20), exif=exif)).content)
    assert back.size == (20, 30)
    assert back.getexif().get(0x0112, 1) == 1


@pytest.mark.parametrize("route", ["/purify", "/classify-robust"])
@pytest.mark.parametrize(
    "refusal",
    [
        ("colour=red", 422, "invalid-parameter", "'colour'"),
        ("seed=-1", 422, "invalid-parameter", "'seed'"),
        ("seed=9223372036854775808", 422, "invalid-parameter", "'seed'"),
        ("seed=tomorrow", 422, "invalid-parameter", "'seed'"),
        ("dynamic=perhaps", 422, "invalid-parameter", "'dynamic'"),
        ("samples=0", 422, "invalid-parameter", "'samples'"),
        ("mode=noisy&samples=65", 422, "invalid-parameter", "samples: 65"),
        ("samples=4", 422, "invalid-parameter", "samples"),
        ("mode=wild", 422, "invalid-parameter", "'wild'"),
        ("mode=noisy&dynamic=true", 422, "invalid-parameter", "mode and dynamic"),
        ("purifier=nope", 404, "unknown-model", "noise, plain"),
        ("purifier=tiny", 404, "unknown-model", "noise, plain"),
        ("purifier=../../etc", 404, "unknown-model", "noise, plain"),
    ],
)
def test_wrong_query_values_are_named(
    client: Any,
    photo: Callable[..., Image.Image],
    file_of: Callable[..., bytes],
    route: str,
    refusal: tuple[str, int, str, str],
) -> None:
    query, status, slug, named = refusal
    assert_problem(client.post(f"{route}?{query}", content=file_of(photo())), status, slug, named)


@pytest.mark.parametrize(
    ("query", "status", "named"),
    [
        ("model=resnet", 404, "tiny"),
        ("top_k=4", 422, "3 labels"),
        ("top_k=0", 422, "'top_k'"),
        ("compare=x", 422, "'compare'"),
    ],
)
def test_wrong_classification_queries_are_named(
    client: Any, photo: Callable[..., Image.Image], file_of: Callable[..., bytes], query: str, status: int, named: Any
) -> None:
    answer = client.post(f"/classify-robust?{query}", content=file_of(photo()))
    assert answer.status_code == status
    assert named in answer.json()["detail"]


def test_classification_parameters_are_unknown_to_purify(
    client: Any, photo: Callable[..., Image.Image], file_of: Callable[..., bytes]
) -> None:
    assert_problem(client.post("/purify?top_k=1", content=file_of(photo())), 422, "invalid-parameter", "'top_k'")


@pytest.mark.parametrize(("method", "route", "allowed"), [("GET", "/purify", "POST"), ("POST", "/models", "GET")])
def test_a_wrong_method_is_told_which_is_right(client: Any, method: str, route: str, allowed: str) -> None:
    answer = client.sending(method, route).result(10)
    assert_problem(answer, 405, "method-not-allowed", allowed)
    assert answer.headers["allow"] == allowed


def test_an_unknown_path_is_a_problem(client: Any) -> None:
    assert_problem(client.get("/nowhere"), 404, "not-found", "/nowhere")
    assert_problem(client.post("/purify/"), 404, "not-found", "/purify/")


@pytest.mark.parametrize(
    "options",
    [
        {"files": {"picture": ("a.png", b"x", "image/png")}},
        {"files": [("file", ("a.png", b"x")), ("file", ("b.png", b"y"))]},
        {"data": {"file": "not a file"}, "files": {}},
        {"content": b"--x\r\nbroken", "headers": {"content-type": "multipart/form-data; boundary=x"}},
        {"content": b"whatever", "headers": {"content-type": "multipart/form-data"}},
        {"content": b"--x\r\n\r\n\r\n--x--", "headers": {"content-type": "multipart/form-data; boundary=x"}},
    ],
    ids=["other-field", "two-files", "urlencoded", "broken", "no-boundary", "no-name"],
)
def test_a_malformed_form_is_a_problem(client: Any, options: Any) -> None:
    answer = client.post("/purify", **options)
    assert answer.status_code in {415, 422}
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_compressed_body_is_refused_rather_than_taken_for_an_image(
    client: Any, photo: Callable[..., Image.Image], file_of: Callable[..., bytes]
) -> None:
    answer = client.post("/purify", content=file_of(photo()), headers={"content-encoding": "gzip"})
    assert_problem(answer, 415, "unsupported-image", "gzip")


def test_a_bomb_moves_no_memory(client: Any) -> None:
    client.post("/purify", content=png_header(100, 100))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(20):
        client.post("/purify", content=png_header(60_000, 60_000))
        client.post("/purify", content=png_header(9_000, 9_000))
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert (after - before) * 1024 < 32 << 20


def test_neighbours_of_bad_requests_get_their_own_images(
    client: Any,
    photo: Callable[..., Image.Image],
    file_of: Callable[..., bytes],
    image_of: Callable[[bytes], Image.Image],
) -> None:
    good = [photo(seed=n) for n in range(12)]
    bad = [b"", b"text", png_header(60_000, 60_000), file_of(photo(99, 99), "JPEG")[:900]]
    sent = []
    for number, image in enumerate(good):
        sent.append(client.sending("POST", "/purify", content=file_of(image)))
        client.sending("POST", "/purify", content=bad[number % 4])
    for image, answer in zip(good, sent, strict=True):
        assert np.array_equal(np.asarray(image_of(answer.result(20).content)), np.asarray(image))
    assert client.get("/health/ready").status_code == 200
