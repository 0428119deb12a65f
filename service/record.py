"""The record of one request: what its log line will say. Made outside the application, filled in on the way."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass, field
from typing import Any

from starlette.types import Scope

_SANE = re.compile(rb"^[A-Za-z0-9._-]{1,64}$")
_KEY = "record"


@dataclass
class RequestRecord:
    """``facts`` are further fields of the log line: pixels, purifier, mode, seed, problem."""

    request_id: str
    facts: dict[str, Any] = field(default_factory=dict)


def begin_record(scope: Scope) -> RequestRecord:
    """Start the record of a request: the client's X-Request-ID where it is harmless, else a fresh one."""
    given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
    record = RequestRecord(given.decode() if _SANE.fullmatch(given) else uuid.uuid4().hex)
    scope.setdefault("state", {})[_KEY] = record
    return record


def record_of(scope: Scope) -> RequestRecord:
    """The record of the request with this scope."""
    record: RequestRecord = scope["state"][_KEY]
    return record
