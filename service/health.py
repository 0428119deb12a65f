"""Probes for machines: is the process alive, is it ready, what does it measure."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Response
from prometheus_client import CONTENT_TYPE_LATEST

from service.answers import Health
from service.documentation import problems
from service.errors import NotReadyError
from service.state import ServiceState, state_of

router = APIRouter(tags=["operations"])


@router.get("/health/live", summary="Is the process alive?")
async def live() -> Health:
    """Answers while the event loop turns; never waits for the device."""
    return Health(status="live")


@router.get("/health/ready", summary="Can it take requests?", responses=problems(s503="not ready, and why"))
async def ready(state: Annotated[ServiceState, Depends(state_of)]) -> Health:
    """Ready: weights verified, models warmed up, the batch loop alive, not shutting down."""
    reasons = state.reasons_not_ready()
    if reasons:
        raise NotReadyError("; ".join(reasons))
    return Health(status="ready")


@router.get("/metrics", summary="Prometheus metrics", response_class=Response)
async def metrics(state: Annotated[ServiceState, Depends(state_of)]) -> Response:
    """The exposition format of Prometheus."""
    return Response(state.metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})
