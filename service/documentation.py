"""What OpenAPI cannot work out from the routes: two ways to send an image, images as answers, problems."""

from __future__ import annotations

from typing import Any

from service.problems import MEDIA_TYPE

_OF_MANY = frozenset({"X-Request-ID", "X-NRP-Purifier"})


def image_body() -> dict[str, Any]:
    """The request body of every route that takes an image."""
    form = {"type": "object", "required": ["file"], "properties": {"file": _binary()["schema"]}}
    raw = [*(f"image/{kind}" for kind in ("jpeg", "png", "webp", "bmp", "gif")), "application/octet-stream"]
    return {
        "requestBody": {
            "required": True,
            "description": "A still JPEG, PNG, WebP, BMP or GIF image: as the body itself, or as `file` in a form.",
            "content": {"multipart/form-data": {"schema": form}, **{kind: _binary() for kind in raw}},
        }
    }


def problems(**reasons: str) -> dict[int | str, dict[str, Any]]:
    """Problem answers for ``responses=``, by status: ``problems(s404="no such model")``."""
    content = {MEDIA_TYPE: {"schema": _problem_schema()}}
    return {int(status.removeprefix("s")): {"description": why, "content": content} for status, why in reasons.items()}


def image_problems() -> dict[int | str, dict[str, Any]]:
    """What can go wrong with an image."""
    return problems(
        s404="unknown purifier or model, or this service has no model for the task",
        s406="none of the media types in Accept can be made",
        s408="the body did not arrive in time",
        s413="the body is longer than the limit",
        s415="not an image of a supported format",
        s422="a query parameter is wrong, or the image is broken, animated or too large",
        s429="too much in flight; see Retry-After",
        s502="a remote model answered otherwise than it should",
        s503="the engine is not running, or is out of memory, or a remote model is not to be had; see Retry-After",
        s504="no answer before the deadline",
    )


def batch_body() -> dict[str, Any]:
    """The request body of the route that takes many images."""
    files = {"type": "array", "items": _binary()["schema"], "minItems": 1}
    form = {"type": "object", "required": ["files"], "properties": {"files": files}}
    return {
        "requestBody": {
            "required": True,
            "description": "Still JPEG, PNG, WebP, BMP or GIF images, each a part named `files` with a file name.",
            "content": {"multipart/form-data": {"schema": form}},
        }
    }


def batch_problems() -> dict[int | str, dict[str, Any]]:
    """What can go wrong with a request of many images as a whole."""
    return problems(
        s404="unknown purifier",
        s406="none of the media types in Accept can be made",
        s408="the body did not arrive in time",
        s413="the body is longer than the limit, or holds more files than the limit",
        s415="the body is compressed",
        s422="a query parameter is wrong, or the body is no form with files",
        s429="too many body bytes in flight; see Retry-After",
    )


def batch_answer() -> dict[str, Any]:
    """The answer that holds many purified images."""
    return {
        "description": "a zip archive, its files stored: the purified images, and `report.json`, which is the JSON "
        "answer without the images; or that JSON, where Accept asks for it. Each item has its own `status`: 200, or "
        "that of its `problem`",
        "content": {"application/zip": _binary()},
        "headers": {name: header for name, header in _report_headers().items() if name in _OF_MANY},
    }


def image_answer() -> dict[str, Any]:
    """The answer that is a purified image."""
    return {
        "description": "the purified image, of the same size; PNG unless Accept says otherwise. PNG and WebP are "
        "lossless and keep the image's alpha; JPEG drops it; PNG keeps 16 bits a channel where the image has them",
        "content": {f"image/{kind}": _binary() for kind in ("png", "jpeg", "webp")},
        "headers": _report_headers(),
    }


def certify_events() -> dict[str, Any]:
    """The answer that classifies or certifies: JSON, or a certificate as the last of a stream of events."""
    return {
        "description": "labels; with certify=true a certificate, which comes with Accept: text/event-stream as "
        "server-sent events: `progress` (done, of, seconds_left), then one `result`, the same JSON, or one `problem`, "
        "a problem document, where it fails on the way",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }


def mask_answer() -> dict[str, Any]:
    """The answer that is a mask."""
    return {
        "description": "a palette PNG of the image's size whose pixel values are class numbers, unless Accept or "
        "compare=true ask for JSON",
        "content": {"image/png": _binary()},
        "headers": _report_headers(),
    }


def _report_headers() -> dict[str, Any]:
    headers = {
        "X-Request-ID": "the client's own where it sent one, else a fresh one",
        "X-NRP-Purifier": "the purifier used",
        "X-NRP-Linf": "greatest change of a channel value, in levels of 255",
        "X-NRP-Suspicion": "the report's score: calibrated where the purifier's card has a calibration, else the root "
        "mean square change in levels of 255",
        "X-NRP-Suspicion-Threshold": "the score from which an image is suspicious; absent where there is none",
        "Server-Timing": "milliseconds in decode, queue, purify, downstream, encode",
    }
    return {name: {"description": what, "schema": {"type": "string"}} for name, what in headers.items()}


def _binary() -> dict[str, Any]:
    return {"schema": {"type": "string", "format": "binary"}}


def _problem_schema() -> dict[str, Any]:
    members = {name: {"type": "string"} for name in ("type", "title", "detail", "instance", "request_id")}
    return {
        "type": "object",
        "required": [*members, "status"],
        "properties": {**members, "status": {"type": "integer"}},
        "example": {
            "type": "urn:nrp:problem:unreadable-image",
            "title": "Unreadable image",
            "status": 422,
            "detail": "the body is empty; send an image file",
            "instance": "/purify",
            "request_id": "3f0a5c0e5b0b4a51a4c4a5c0e5b0b4a5",
        },
    }
