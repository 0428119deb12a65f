"""``POST /purify/batch``: many images in, a zip archive or JSON out, each image an item of its own."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from service.answers import ModeReport
from service.bulk.answers import BatchAnswer, BatchHead
from service.bulk.names import safe_names
from service.bulk.packing import PACKINGS
from service.bulk.response import BatchResponse
from service.documentation import batch_answer, batch_body, batch_problems
from service.images import ImageFormat
from service.negotiation import negotiate
from service.options import BatchQuery
from service.pipeline import make_order
from service.record import record_of
from service.state import ServiceState, state_of
from service.upload import read_uploads

router = APIRouter(tags=["images"])

FORMATS: Mapping[str, ImageFormat] = MappingProxyType({"png": "PNG", "webp": "WEBP", "jpeg": "JPEG"})
EXTENSIONS: Mapping[ImageFormat, str] = MappingProxyType({"PNG": ".png", "WEBP": ".webp", "JPEG": ".jpg"})


@router.post(
    "/purify/batch",
    summary="Purify many images",
    response_model=BatchAnswer,
    responses={**batch_problems(), 200: batch_answer()},
    openapi_extra=batch_body(),
)
async def purify_batch(
    request: Request,
    query: Annotated[BatchQuery, Query()],
    state: Annotated[ServiceState, Depends(state_of)],
) -> Response:
    """Send pictures, get a zip archive of them purified, or with `Accept: application/json` all of them in base64.

    Every picture has a status of its own, in the archive's `report.json`: one that is broken does not keep the others
    from you, and the answer is 200 even if all are. A picture waits where a single request would be told 429, until
    the request's time is over; then it is a 504 (or that 429). Picture i is purified with seed + i. The answer comes
    while the pictures are being purified, in the order they were sent.
    """
    packing = PACKINGS[negotiate(request.headers.get("accept"), list(PACKINGS))]
    image_format = FORMATS[query.format]
    order = make_order(state.engine, state.settings.max_draws, query, encode_as=image_format)
    uploads = await read_uploads(request, state.settings.request_timeout_s, state.settings.max_batch_files)
    names = safe_names([upload.name for upload in uploads], EXTENSIONS[image_format])
    head = BatchHead(
        request_id=record_of(request.scope).request_id, purifier=order.card.name, mode=ModeReport.of(order.mode)
    )
    return BatchResponse(request, state, order, uploads, names, packing(head, f"image/{query.format}"))
