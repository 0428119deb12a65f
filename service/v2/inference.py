"""One inference request: its images through admission, batcher and engine, as those of ``POST /purify`` go."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from fastapi import Request, Response
from torch import Tensor

from service.batcher import Waited
from service.connection import carry_out
from service.errors import TooManyPixelsError
from service.images import charge
from service.job import Answer, Job
from service.options import SEED_BITS
from service.pipeline import Order, Timings, check_size, measure
from service.record import record_of
from service.state import ServiceState
from service.suspicion import Suspicion, judge
from service.v2.catalogue import InferenceModel
from service.v2.envelope import HEADER_LENGTH, Call, open_call, read_body, sealed
from service.v2.messages import Parameters
from service.v2.outputs import arrays_of
from service.v2.parameters import Wish, patience, read_wish
from service.v2.tensors import Images


async def infer(request: Request, state: ServiceState, model: InferenceModel) -> Response:
    """The answer of ``model``. Raises what the stages raise; one image at fault is the whole request's error."""
    within = state.settings.request_timeout_s
    body = await read_body(request, within)
    header_length = request.headers.get(HEADER_LENGTH)
    facts = record_of(request.scope).facts
    response, timings, suspicions = await carry_out(
        request, within, lambda deadline: _work(state, model, body, header_length, deadline, facts)
    )
    measure(state, timings, suspicions)
    response.headers["Server-Timing"] = timings.header()
    return response


async def _work(
    state: ServiceState,
    model: InferenceModel,
    body: bytes,
    header_length: str | None,
    deadline: float,
    facts: dict[str, Any],
) -> tuple[Response, Timings, list[Suspicion]]:
    timings = Timings()
    with timings.measuring("decode"):
        call: Call = await state.codec.run(open_call, body, header_length, model)
    charged = _check_size(state, call.images)
    wish = read_wish(state, model, call.parameters)
    order = wish.order
    check_size(state.engine, order, call.images.width, call.images.height)
    state.remotes.check(order.task)
    facts.update(
        purifier=order.card.name, mode=order.mode.name, draws=order.mode.mode.draws, seed=order.seed,
        images=call.images.count, pixels=call.images.count * call.images.width * call.images.height,
    )  # fmt: skip
    with state.pixels.holding(charged):
        with timings.measuring("decode"):
            pixels: Tensor = await state.codec.run(call.images.pixels)
        latest = min(deadline, patience(call.parameters))
        answers = await _on_device(state, order, pixels, latest, timings)
        if order.task is not None and state.remotes.serves(order.task):
            with timings.measuring("downstream"):
                answers = await state.remotes.complete(
                    order.task, list(pixels), answers, compare=False, deadline=latest
                )
        with timings.measuring("encode"):
            threshold = state.settings.suspicion_threshold
            suspicions = await state.codec.run(_suspicions, order, pixels, answers, threshold)
            response: Response = await state.codec.run(_conclude, model, call, wish, answers)
    return response, timings, suspicions


def _check_size(state: ServiceState, images: Images) -> int:
    """What the images are charged in all. Raises TooManyPixelsError for what would never find room."""
    each = charge(images.width, images.height)
    settings = state.settings
    size = f"{images.count} images of {images.width}x{images.height} pixels"
    if each > settings.max_pixels:
        raise TooManyPixelsError(f"{size}: the limit is {settings.max_pixels} pixels each; make them smaller")
    if each * images.count > settings.max_pixels_in_flight:
        raise TooManyPixelsError(f"{size}: the limit is {settings.max_pixels_in_flight} in all; send fewer at a time")
    if images.count > settings.max_waiting:
        raise TooManyPixelsError(f"{size}: the limit is {settings.max_waiting} images; send fewer at a time")
    return each * images.count


async def _on_device(
    state: ServiceState, order: Order, pixels: Tensor, deadline: float, timings: Timings
) -> list[Answer]:
    """Every image's answer; the first that fails cancels the rest."""
    asked = None if state.remotes.serves(order.task) else order.task
    jobs = [
        Job(image, order.card.name, order.mode.mode, (order.seed + place) % 2**SEED_BITS, asked)
        for place, image in enumerate(pixels)
    ]
    submitted = [
        asyncio.create_task(state.batcher.submit(job, key=job.key, cost=job.cost, deadline=deadline)) for job in jobs
    ]
    try:
        done: list[Waited[Answer]] = await asyncio.gather(*submitted)
    finally:
        for job, task in zip(jobs, submitted, strict=True):
            job.abandoned.set()
            task.cancel()
        await asyncio.wait(submitted)
        for task in submitted:  # one error is told; the others count as read
            _ = task.cancelled() or task.exception()
    timings.add("queue", max(waited.queued_s for waited in done))
    timings.add("purify", max(waited.result.purify_s for waited in done))
    if asked is not None:
        timings.add("downstream", max(waited.result.downstream_s for waited in done))
    return [waited.result for waited in done]


def _suspicions(order: Order, pixels: Tensor, answers: Sequence[Answer], threshold: float | None) -> list[Suspicion]:
    return [
        judge(image, answer.purified, answer.undefended, answer.defended, scale=order.scale, threshold=threshold)
        for image, answer in zip(pixels, answers, strict=True)
    ]


def _conclude(model: InferenceModel, call: Call, wish: Wish, answers: Sequence[Answer]) -> Response:
    order = wish.order
    arrays = arrays_of(order.task, answers, call.images.layout, wish.score_threshold)
    said: Parameters = {"purifier": order.card.name, "mode": order.mode.name, "draws": order.mode.mode.draws}
    return sealed(model, call, arrays, said)
