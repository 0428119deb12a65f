"""Errors as RFC 9457 ``application/problem+json``, for the service's own errors and the framework's alike.

Under ``/v2`` the Open Inference Protocol's own form, ``{"error": "..."}``, which is all its clients can read.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Scope

from model_store.errors import NrpError
from service.errors import (
    HTTP_MEANINGS,
    IMAGE_ERRORS,
    UNEXPECTED,
    ClientDisconnectedError,
    HttpMeaning,
    InvalidParameterError,
    OverloadedError,
    http_meaning,
)
from service.metrics import Metrics
from service.record import record_of

MEDIA_TYPE = "application/problem+json"


def problem(
    scope: Scope, meaning: HttpMeaning, detail: str, headers: Mapping[str, str] | None = None, **members: Any
) -> JSONResponse:
    """A problem document; ``members`` are its extension members."""
    record = record_of(scope)
    record.facts["problem"] = meaning.slug
    if f"{scope['path']}/".startswith("/v2/"):
        return JSONResponse({"error": detail}, meaning.status, headers)
    return JSONResponse({**_content(scope, meaning, detail), **members}, meaning.status, headers, MEDIA_TYPE)


def error_problem(scope: Scope, error: NrpError) -> JSONResponse:
    """The problem that a purposely raised error is, counted in the metrics."""
    meaning = http_meaning(error)
    _count(scope["app"].state.service.metrics, error, meaning)
    record_of(scope).facts["reason"] = str(error)
    headers = {}
    if isinstance(error, OverloadedError):
        headers["Retry-After"] = str(error.retry_after)
    return problem(scope, meaning, str(error) if meaning.public else _PRIVATE, headers)


def item_problem(scope: Scope, error: Exception) -> dict[str, Any]:
    """The members of the problem that one image of several has, counted in the metrics; the request has none."""
    meaning = http_meaning(error)
    if not isinstance(error, NrpError):
        return _content(scope, UNEXPECTED, _PRIVATE)
    _count(scope["app"].state.service.metrics, error, meaning)
    later = {"retry_after": error.retry_after} if isinstance(error, OverloadedError) else {}
    return {**_content(scope, meaning, str(error) if meaning.public else _PRIVATE), **later}


def _content(scope: Scope, meaning: HttpMeaning, detail: str) -> dict[str, Any]:
    return {
        "type": f"urn:nrp:problem:{meaning.slug}",
        "title": meaning.title,
        "status": meaning.status,
        "detail": detail,
        "instance": scope["path"],
        "request_id": record_of(scope).request_id,
    }


def unexpected_problem(scope: Scope) -> JSONResponse:
    """The problem that a defect of ours is: nothing about it leaves the process but the request id."""
    return problem(scope, UNEXPECTED, _PRIVATE)


def install_problem_handlers(app: FastAPI) -> None:
    """Answer every error of ``app`` with a problem document."""
    app.add_exception_handler(NrpError, _on_nrp_error)
    app.add_exception_handler(ClientDisconnect, _on_client_disconnect)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_invalid_query)


_PRIVATE = "the cause is in the service's log under this request_id"


def _count(metrics: Metrics, error: NrpError, meaning: HttpMeaning) -> None:
    if isinstance(error, IMAGE_ERRORS):
        metrics.image_errors.labels(meaning.slug).inc()
    elif isinstance(error, OverloadedError):
        metrics.rejected.labels(error.reason).inc()
    elif meaning.status in {408, 413, 503, 504}:
        metrics.rejected.labels(meaning.slug.replace("-", "_")).inc()


async def _on_nrp_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, NrpError)  # noqa: S101 - what the handler was registered for
    return error_problem(request.scope, error)


async def _on_client_disconnect(request: Request, _: Exception) -> JSONResponse:
    return error_problem(request.scope, ClientDisconnectedError("the client went away during the upload"))


async def _on_http_exception(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101
    phrase = HTTPStatus(error.status_code).phrase
    meaning = HttpMeaning(error.status_code, phrase.lower().replace(" ", "-"), phrase)
    detail = error.detail
    if error.status_code == HTTPStatus.NOT_FOUND:
        detail = f"there is nothing at {request.url.path}; /docs lists what there is"
    elif error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = (error.headers or {}).get("Allow", "")
        detail = f"{request.method} is not possible here; use {allowed}"
    return problem(request.scope, meaning, detail, error.headers)


async def _on_invalid_query(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    faults = [{"parameter": str(fault["loc"][-1]), "message": _plain(fault)} for fault in error.errors()]
    detail = "; ".join(f"query parameter {fault['parameter']!r}: {fault['message']}" for fault in faults)
    return problem(request.scope, HTTP_MEANINGS[InvalidParameterError], detail, errors=faults)


def _plain(fault: Mapping[str, Any]) -> str:
    if fault["type"] == "extra_forbidden":
        return "there is no such parameter"
    return str(fault["msg"])
