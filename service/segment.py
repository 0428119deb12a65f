"""``POST /segment-robust``: an image in, a class for each of its pixels out, decided on the purified image."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from service.answers import ModeReport, SegmentAnswer, Segmentation, SuspicionReport, segmented
from service.documentation import image_body, image_problems, mask_answer
from service.downstream import AnyDownstream
from service.masks import MaskFile
from service.negotiation import negotiate
from service.options import SegmentQuery
from service.pipeline import Order, Outcome, answer_request, make_order
from service.purify import JSON, report_headers
from service.record import record_of
from service.state import ServiceState, state_of
from service.upload import read_upload

router = APIRouter(tags=["images"])

PNG = "image/png"


@router.post(
    "/segment-robust",
    summary="Say what each pixel of an image shows, after purifying it",
    response_model=SegmentAnswer,
    responses={**image_problems(), 200: mask_answer()},
    openapi_extra=image_body(),
)
async def segment_robust(
    request: Request,
    query: Annotated[SegmentQuery, Query()],
    state: Annotated[ServiceState, Depends(state_of)],
) -> Response:
    """Send a picture, get a PNG of its size, upright, whose pixel values are class numbers (the palette is for eyes).

    Class probabilities are averaged over the mode's draws, pixel by pixel; a remote segmenter is asked once, about the
    mean of the purified draws. With `Accept: application/json` the answer holds the mask as base64 PNG, the share of
    each class and the report. A PNG holds one mask, so `compare=true` is always answered in JSON.
    """
    offers = [JSON] if query.compare else [PNG, JSON]
    media_type = negotiate(request.headers.get("accept"), offers)
    order = make_order(state.engine, state.settings.max_draws, query, task="segmenter")
    segmenter = state.engine.downstream("segmenter")
    data = await read_upload(request, state.settings.request_timeout_s)
    outcome = await answer_request(request, state, order, data)
    headers = report_headers(order, outcome)
    if media_type == PNG:
        return Response(_present(outcome.mask).file, media_type=PNG, headers=headers)
    answer = _as_json(segmenter, query, order, outcome, record_of(request.scope).request_id)
    return Response(answer.model_dump_json(), media_type=JSON, headers=headers)


def _as_json(
    segmenter: AnyDownstream, query: SegmentQuery, order: Order, outcome: Outcome, request_id: str
) -> SegmentAnswer:
    def report(mask: MaskFile | None) -> Segmentation:
        return segmented(_present(mask), segmenter.labels, outcome.width, outcome.height)

    return SegmentAnswer(
        request_id=request_id,
        model=segmenter.name,
        purifier=order.card.name,
        mode=ModeReport.of(order.mode),
        defended=report(outcome.mask),
        undefended=report(outcome.undefended_mask) if query.compare else None,
        suspicion=SuspicionReport.of(outcome.suspicion),
        timings_ms=outcome.timings.stages,
    )


def _present(mask: MaskFile | None) -> MaskFile:
    """A segmenter's answer is a mask; anything else is a defect."""
    if mask is None:
        raise AssertionError("the engine returned no mask for a segmentation")
    return mask
