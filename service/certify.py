"""``POST /classify-robust?certify=true``: a label with a radius within which no change of the upload turns it."""

from __future__ import annotations

import time
from typing import Any

import structlog
from fastapi import Request, Response

from service.certification import Certification
from service.certifications import Pace
from service.certify_answers import CertifyAnswer, CertifyProgress
from service.certify_order import CertifyOrder, check_certify_size, make_certify_order
from service.connection import carry_out
from service.event_stream import MEDIA_TYPE as EVENTS
from service.event_stream import EventStream, Tell
from service.images import DecodedImage, decode, open_image
from service.negotiation import negotiate
from service.options import ClassifyQuery
from service.pipeline import Timings, measure
from service.purify import JSON
from service.record import record_of
from service.state import ServiceState
from service.upload import read_upload

log = structlog.get_logger()


async def answer_certify(request: Request, query: ClassifyQuery, state: ServiceState) -> Response:
    """The certificate as JSON, or as the last of a stream of events, by ``Accept``. Raises what the stages raise."""
    media_type = negotiate(request.headers.get("accept"), [JSON, EVENTS])
    order = make_certify_order(state.engine, state.settings, query)
    data = await read_upload(request, state.settings.request_timeout_s)
    headers = {
        "X-NRP-Purifier": order.card.name,
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-store",
        "Vary": "Accept",
    }

    async def work(tell: Tell) -> CertifyAnswer:
        within = state.settings.certify_timeout_s
        return await carry_out(request, within, lambda _: _Certify(request, state, order, tell).answer(data))

    if media_type == EVENTS:
        return EventStream(work, headers)
    answer = await work(lambda _, __: None)
    return Response(answer.model_dump_json(), media_type=JSON, headers=headers)


class _Certify:
    """One request's certification."""

    def __init__(self, request: Request, state: ServiceState, order: CertifyOrder, tell: Tell) -> None:
        record = record_of(request.scope)
        self._request_id = record.request_id
        self._facts: dict[str, Any] = record.facts
        self._state = state
        self._order = order
        self._tell = tell
        self._timings = Timings()
        smoothing = order.smoothing
        self._facts.update(purifier=order.card.name, sigma=smoothing.sigma, n=smoothing.n, seed=order.seed)

    async def answer(self, data: bytes) -> CertifyAnswer:
        """The upload's certificate, within admission's bounds."""
        state, order = self._state, self._order
        with state.certifications.admitted() as pace:
            with self._timings.measuring("decode"):
                opened = await state.codec.run(open_image, data, state.settings.max_pixels)
            self._facts["pixels"] = opened.width * opened.height
            check_certify_size(state.engine, state.settings, order, opened.width, opened.height)
            with state.pixels.holding(opened.charge):
                with self._timings.measuring("decode"):
                    image: DecodedImage = await state.codec.run(decode, opened)
                for note in image.notes:
                    log.warning("image_note", note=note)
                done = Certification(image.pixels, order)
                await self._count(done, pace)
        measure(state, self._timings, [])
        return CertifyAnswer.of(order, done, request_id=self._request_id, timings_ms=self._timings.stages)

    async def _count(self, certification: Certification, pace: Pace) -> None:
        """Chunk after chunk; the one in hand is the last where nobody waits any more."""
        state, begun = self._state, time.perf_counter()
        self._progress(certification, pace)
        try:
            while not certification.finished:
                await state.certifications.advance(certification, state.engine, state.batcher)
                self._progress(certification, pace)
        finally:
            certification.abandoned.set()
        self._timings.add("queue", max(0.0, time.perf_counter() - begun - certification.device_s))
        self._timings.add("certify", certification.device_s)

    def _progress(self, certification: Certification, pace: Pace) -> None:
        done, of = certification.done, certification.of
        pace.note(done, of)
        left = pace.seconds_left
        seconds_left = None if left is None else round(left, 1)
        self._tell("progress", CertifyProgress(done=done, of=of, seconds_left=seconds_left))
