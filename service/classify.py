"""``POST /classify-robust``: an image in, labels out that were decided on the purified image."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from service.answers import ClassifyAnswer, ModeReport, SuspicionReport, best
from service.certify import answer_certify
from service.certify_answers import CertifyAnswer
from service.certify_order import check_certifies
from service.documentation import certify_events, image_body, image_problems
from service.downstream import AnyDownstream
from service.errors import InvalidParameterError
from service.findings import probabilities_of
from service.negotiation import negotiate
from service.options import ClassifyQuery
from service.pipeline import Order, Outcome, answer_request, make_order
from service.purify import JSON, report_headers
from service.record import record_of
from service.state import ServiceState, state_of
from service.upload import read_upload

router = APIRouter(tags=["images"])

DEFAULT_TOP_K = 5


@router.post(
    "/classify-robust",
    summary="Classify an image after purifying it",
    response_model=ClassifyAnswer | CertifyAnswer,
    responses={**image_problems(), 200: certify_events()},
    openapi_extra=image_body(),
)
async def classify_robust(
    request: Request,
    query: Annotated[ClassifyQuery, Query()],
    state: Annotated[ServiceState, Depends(state_of)],
) -> Response:
    """Send a picture, get labels with probabilities, averaged over the mode's draws, and a suspicion report.
    A remote classifier is asked once, about the mean of the purified draws.

    With `policy=suspicious` the labels are those of the purified image only where it is suspicious, else of the image
    as it came: fewer clean images are changed, and whoever stays below the threshold meets no defence.

    With `certify=true` the answer is a certificate (Cohen et al., ICML 2019): many noisy copies of the upload are
    purified and classified, and the label holds, but for a chance of `alpha`, for every image less than `radius` away
    from the upload in the L2 norm. It takes seconds to minutes: `Accept: text/event-stream` shows how far it is.
    """
    if query.certify:
        return await answer_certify(request, query, state)
    check_certifies(query)
    negotiate(request.headers.get("accept"), [JSON])
    order = make_order(state.engine, state.settings.max_draws, query, task="classifier")
    _check_top_k(state.engine.downstream("classifier"), query)
    data = await read_upload(request, state.settings.request_timeout_s)
    outcome = await answer_request(request, state, order, data)
    answer = _as_json(state.engine.downstream("classifier"), query, order, outcome, record_of(request.scope).request_id)
    return Response(answer.model_dump_json(), media_type=JSON, headers=report_headers(order, outcome))


def _check_top_k(classifier: AnyDownstream, query: ClassifyQuery) -> None:
    """A remote classifier may have told fewer labels than it knows so far."""
    if not classifier.remote and query.top_k is not None and query.top_k > len(classifier.labels):
        raise InvalidParameterError(
            f"top_k: {query.top_k} asked for, but {classifier.name} knows {len(classifier.labels)} labels"
        )


def _as_json(
    classifier: AnyDownstream, query: ClassifyQuery, order: Order, outcome: Outcome, request_id: str
) -> ClassifyAnswer:
    count = DEFAULT_TOP_K if query.top_k is None else query.top_k
    decided, undefended = (probabilities_of(f) for f in (outcome.decided, outcome.answer.undefended))
    return ClassifyAnswer(
        request_id=request_id,
        model=classifier.name,
        purifier=order.card.name,
        mode=ModeReport.of(order.mode),
        decided_on=outcome.decided_on,
        predictions=best(decided, classifier.labels, count),
        undefended=best(undefended, classifier.labels, count) if query.compare else None,
        suspicion=SuspicionReport.of(outcome.suspicion),
        timings_ms=outcome.timings.stages,
    )
