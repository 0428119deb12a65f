"""``POST /purify``: an image in, the purified image out."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from service.answers import EncodedImage, ModeReport, PurifyAnswer, SuspicionReport
from service.documentation import image_answer, image_body, image_problems
from service.images import ImageFormat
from service.negotiation import negotiate
from service.options import PurifyQuery
from service.pipeline import Order, Outcome, answer_request, make_order
from service.record import record_of
from service.state import ServiceState, state_of
from service.upload import read_upload

router = APIRouter(tags=["images"])

JSON = "application/json"
IMAGE_TYPES: Mapping[str, ImageFormat] = MappingProxyType(
    {"image/png": "PNG", "image/webp": "WEBP", "image/jpeg": "JPEG"}
)


@router.post(
    "/purify",
    summary="Purify an image",
    response_model=PurifyAnswer,
    responses={**image_problems(), 200: image_answer()},
    openapi_extra=image_body(),
)
async def purify(
    request: Request,
    query: Annotated[PurifyQuery, Query()],
    state: Annotated[ServiceState, Depends(state_of)],
) -> Response:
    """Send a picture, get it back with adversarial perturbations washed out: of the same size, upright, in its
    own colour profile, with 16 bits a channel where it is a PNG that has them.

    With `Accept: application/json` the answer holds the image as base64 PNG together with the report.
    """
    media_type = negotiate(request.headers.get("accept"), [*IMAGE_TYPES, JSON])
    order = make_order(state.engine, state.settings.max_draws, query, encode_as=IMAGE_TYPES.get(media_type, "PNG"))
    data = await read_upload(request, state.settings.request_timeout_s)
    outcome = await answer_request(request, state, order, data)
    headers = report_headers(order, outcome)
    if media_type == JSON:
        answer = _as_json(record_of(request.scope).request_id, order, outcome)
        return Response(answer.model_dump_json(), media_type=JSON, headers=headers)
    return Response(outcome.file, media_type=media_type, headers=headers)


def report_headers(order: Order, outcome: Outcome) -> dict[str, str]:
    """What every answer about an image carries."""
    threshold = outcome.suspicion.threshold
    return {
        "X-NRP-Purifier": order.card.name,
        "X-NRP-Linf": str(outcome.suspicion.linf),
        "X-NRP-Suspicion": f"{outcome.suspicion.score:.4f}",
        **({} if threshold is None else {"X-NRP-Suspicion-Threshold": f"{threshold:.4f}"}),
        "Server-Timing": outcome.timings.header(),
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-store",
        "Vary": "Accept",
    }


def _as_json(request_id: str, order: Order, outcome: Outcome) -> PurifyAnswer:
    image = EncodedImage.of(outcome.file or b"", "image/png", outcome.width, outcome.height)
    return PurifyAnswer(
        request_id=request_id,
        purifier=order.card.name,
        mode=ModeReport.of(order.mode),
        image=image,
        suspicion=SuspicionReport.of(outcome.suspicion),
        timings_ms=outcome.timings.stages,
    )
