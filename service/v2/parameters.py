"""The parameters of an inference request, which are the query parameters of the routes for images."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from pydantic import ValidationError

from model_store.official import Kind
from service.errors import MalformedInferenceError
from service.options import DetectQuery, PurifyQuery
from service.pipeline import Order, make_order
from service.state import ServiceState
from service.v2.catalogue import InferenceModel
from service.v2.messages import Parameters

TIMEOUT = "timeout"
LONGEST_TIMEOUT = 10**12
THRESHOLD = "score_threshold"
# What a task takes beside the parameters of every model.
OWN: Mapping[Kind | None, frozenset[str]] = MappingProxyType({"detector": frozenset({THRESHOLD})})


@dataclass(frozen=True)
class Wish:
    """What the parameters amount to. ``score_threshold``: least score of an object that is returned."""

    order: Order
    score_threshold: float


def read_wish(state: ServiceState, model: InferenceModel, parameters: Parameters) -> Wish:
    """Resolve the parameters. Raises MalformedInferenceError, and what ``make_order`` raises."""
    asked: dict[str, object] = {name: value for name, value in parameters.items() if name != TIMEOUT}
    known = PurifyQuery.model_fields.keys() | OWN.get(model.task, frozenset())
    unknown = asked.keys() - known
    if unknown:
        raise MalformedInferenceError(f"parameter {min(unknown)[:40]!r}: there is no such parameter")
    if model.purifier is not None:
        if "purifier" in asked:
            raise MalformedInferenceError(f"parameter 'purifier': {model.name} is the purifier")
        asked["purifier"] = model.name
    try:
        query = (DetectQuery if model.task == "detector" else PurifyQuery).model_validate(asked)
    except ValidationError as error:
        fault = error.errors(include_input=False, include_url=False)[0]
        raise MalformedInferenceError(f"parameter {str(fault['loc'][0])[:40]!r}: {fault['msg']}") from error
    order = make_order(state.engine, state.settings.max_draws, query, task=model.task)
    return Wish(order, query.score_threshold if isinstance(query, DetectQuery) else 0.0)


def patience(parameters: Mapping[str, object]) -> float:
    """When the client will no longer wait, in event loop time: ``timeout`` is in microseconds."""
    microseconds = parameters.get(TIMEOUT)
    if microseconds is None:
        return float("inf")
    if isinstance(microseconds, bool) or not isinstance(microseconds, int) or microseconds < 1:
        raise MalformedInferenceError(f"parameter {TIMEOUT!r} is a whole number of microseconds, 1 at the least")
    return asyncio.get_running_loop().time() + min(microseconds, LONGEST_TIMEOUT) / 1e6
