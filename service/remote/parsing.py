"""JSON of remote models, checked against what it should be."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, ValidationError

from service.remote.attempt import MalformedReplyError

M = TypeVar("M", bound=BaseModel)


def parsed(model: type[M], body: bytes) -> M:
    """``body`` as ``model``. Raises MalformedReplyError, which names the first member at fault, not its value."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        fault = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, fault["loc"])) or "the body"
        raise MalformedReplyError(f"{where}: {fault['msg']}"[:200]) from error
