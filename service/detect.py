"""``POST /detect-robust``: an image in, the objects out that were found in the purified image."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from service.answers import DetectAnswer, ModeReport, SuspicionReport, detected
from service.documentation import image_body, image_problems
from service.downstream import AnyDownstream
from service.findings import detections_of
from service.negotiation import negotiate
from service.options import DetectQuery
from service.pipeline import Order, Outcome, answer_request, make_order
from service.purify import JSON, report_headers
from service.record import record_of
from service.state import ServiceState, state_of
from service.upload import read_upload

router = APIRouter(tags=["images"])


@router.post(
    "/detect-robust",
    summary="Find objects in an image after purifying it",
    response_model=DetectAnswer,
    responses=image_problems(),
    openapi_extra=image_body(),
)
async def detect_robust(
    request: Request,
    query: Annotated[DetectQuery, Query()],
    state: Annotated[ServiceState, Depends(state_of)],
) -> Response:
    """Send a picture, get boxes with labels and scores, in pixels of the picture turned upright.

    Boxes of several noisy draws have no mean: the detector looks once, at the mean of the purified draws, which is the
    image that `/purify` returns (before it is rounded to levels).
    """
    negotiate(request.headers.get("accept"), [JSON])
    order = make_order(state.engine, state.settings.max_draws, query, task="detector")
    detector = state.engine.downstream("detector")
    data = await read_upload(request, state.settings.request_timeout_s)
    outcome = await answer_request(request, state, order, data)
    answer = _as_json(detector, query, order, outcome, record_of(request.scope).request_id)
    return Response(answer.model_dump_json(), media_type=JSON, headers=report_headers(order, outcome))


def _as_json(
    detector: AnyDownstream, query: DetectQuery, order: Order, outcome: Outcome, request_id: str
) -> DetectAnswer:
    defended, undefended = outcome.answer.defended, outcome.answer.undefended
    least = query.score_threshold
    return DetectAnswer(
        request_id=request_id,
        model=detector.name,
        purifier=order.card.name,
        mode=ModeReport.of(order.mode),
        width=outcome.width,
        height=outcome.height,
        objects=detected(detections_of(defended), detector.labels, least),
        undefended=detected(detections_of(undefended), detector.labels, least) if query.compare else None,
        suspicion=SuspicionReport.of(outcome.suspicion),
        timings_ms=outcome.timings.stages,
    )
