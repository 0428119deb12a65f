"""From the bytes of one image to its answer: decode, admission, device, comparison, encode."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import structlog
from fastapi import Request

from model_store.calibration import Scale
from model_store.card import Card
from model_store.official import Kind
from service.connection import carry_out
from service.downstream import AnyDownstream
from service.engine import Engine
from service.errors import InvalidParameterError, TooManyPixelsError, UnknownNameError
from service.findings import ClassMask, Finding
from service.images import DecodedImage, ImageFormat, OpenedImage, decode, encode, open_image
from service.job import Answer, Job
from service.masks import MaskFile, encode_mask
from service.options import DownstreamQuery, NamedMode, Policy, PurifyQuery, choose_mode, choose_seed
from service.record import record_of
from service.state import ServiceState
from service.suspicion import Suspicion, judge

# An image of so many pixels is decoded in a few milliseconds and takes less memory than its upload might.
SMALL_PIXELS = 1 << 18
DecidedOn = Literal["purified", "original"]

log = structlog.get_logger()


@dataclass(frozen=True)
class Order:
    """What is to be made of one image.

    ``task``: which downstream model is asked, and with ``compare`` about the image as it came, too. ``encode_as`` None:
    no purified image file is wanted back. ``scale``: the calibration of suspicion that holds for this, if any.
    """

    card: Card
    mode: NamedMode
    seed: int
    task: Kind | None = None
    compare: bool = False
    encode_as: ImageFormat | None = None
    scale: Scale | None = None
    policy: Policy = "always"


@dataclass
class Timings:
    """Milliseconds by stage, in the order the stages ran."""

    stages: dict[str, float] = field(default_factory=dict)

    def add(self, stage: str, seconds: float) -> None:
        """Count ``seconds`` to ``stage``."""
        self.stages[stage] = round(self.stages.get(stage, 0.0) + seconds * 1000, 3)

    @contextmanager
    def measuring(self, stage: str) -> Iterator[None]:
        """Add what the block takes to ``stage``."""
        begun = time.perf_counter()
        yield
        self.add(stage, time.perf_counter() - begun)

    def header(self) -> str:
        """As ``Server-Timing``."""
        return ", ".join(f"{stage};dur={ms:.1f}" for stage, ms in self.stages.items())


@dataclass(frozen=True)
class Outcome:
    """One image's answer.

    ``file`` is the purified image, encoded, where that was ordered; ``mask`` and ``undefended_mask`` are a segmenter's.
    """

    width: int
    height: int
    file: bytes | None
    mask: MaskFile | None
    undefended_mask: MaskFile | None
    answer: Answer
    suspicion: Suspicion
    timings: Timings
    decided_on: DecidedOn = "purified"

    @property
    def decided(self) -> Finding | None:
        """What the downstream model says of the image that decides."""
        return self.answer.defended if self.decided_on == "purified" else self.answer.undefended


def make_order(
    engine: Engine,
    max_draws: int,
    query: PurifyQuery,
    *,
    task: Kind | None = None,
    encode_as: ImageFormat | None = None,
) -> Order:
    """Resolve the names in a query. Raises UnknownNameError, NoDownstreamError or InvalidParameterError."""
    name = query.purifier if query.purifier is not None else engine.default_purifier
    card = engine.purifiers.get(name)
    if card is None:
        known = ", ".join(sorted(engine.purifiers))
        raise UnknownNameError(f"purifier: there is no purifier {name[:80]!r}; there are: {known}")
    mode = choose_mode(
        card,
        mode=query.mode,
        dynamic=query.dynamic,
        samples=query.samples,
        max_draws=max_draws,
    )
    compare = isinstance(query, DownstreamQuery) and query.compare
    if task is not None:
        _check_model(engine.downstream(task), query)
    model = None if task is None else engine.downstream(task)
    scale = scale_for(card, mode, model)
    policy: Policy = query.policy if isinstance(query, DownstreamQuery) else "always"
    if policy == "suspicious" and scale is None:
        raise InvalidParameterError(_uncalibrated(card, mode, model))
    return Order(card, mode, choose_seed(query.seed), task, compare, encode_as, scale, policy)


def scale_for(card: Card, mode: NamedMode, model: AnyDownstream | None) -> Scale | None:
    """The calibration of ``card`` for exactly this mode, number of draws included, and ``model``, None if it has none.

    Only classifiers' answers are calibrated: what photos score says nothing of a detector's scenes.
    """
    known = card.suspicion.get(mode.name)
    if known is None or known.mode != mode.mode:
        return None
    return known.alone() if model is None else known.behind(model.name, model.sha256)


def _uncalibrated(card: Card, mode: NamedMode, model: AnyDownstream | None) -> str:
    """Why there is no policy ``suspicious``, and what to do."""
    if model is None or model.kind != "classifier":
        return "policy: suspicion is calibrated for classifiers alone; leave policy at always"
    return (
        f"policy: the card of {card.name} has no calibration of suspicion for {model.name} in mode {mode.name}, draws "
        f"{mode.mode.draws}; leave policy at always, or calibrate: nrp evaluate suspicion {card.name} --classifier "
        f"{model.name} --inference {mode.name} --data DIR --write-card"
    )


def check_size(engine: Engine, order: Order, width: int, height: int) -> None:
    """Raises TooManyPixelsError where the model that ``order`` asks would fill the memory with such an image."""
    if order.task is None:
        return
    model = engine.downstream(order.task)
    if not model.scales and width * height > engine.tile_pixels:
        raise TooManyPixelsError(
            f"the image is {width}x{height} pixels; {model.name} looks at images as they are and takes "
            f"{engine.tile_pixels} in all: make it smaller"
        )


def _check_model(model: AnyDownstream, query: PurifyQuery) -> None:
    asked = query.model if isinstance(query, DownstreamQuery) else None
    if asked is not None and asked != model.name:
        raise UnknownNameError(f"model: there is no {model.kind} {asked[:80]!r} here; there is: {model.name}")


async def answer_request(request: Request, state: ServiceState, order: Order, data: bytes) -> Outcome:
    """Carry out ``order`` while the client is there and the deadline not past.

    Raises ClientDisconnectedError, DeadlineExceededError, OverloadedError, and what the stages raise.
    """
    facts = record_of(request.scope).facts
    facts.update(purifier=order.card.name, mode=order.mode.name, draws=order.mode.mode.draws, seed=order.seed)
    outcome = await carry_out(
        request, state.settings.request_timeout_s, lambda deadline: answer_image(state, order, data, deadline, facts)
    )
    measure(state, outcome.timings, [outcome.suspicion])
    return outcome


async def answer_image(
    state: ServiceState, order: Order, data: bytes, deadline: float, facts: dict[str, Any]
) -> Outcome:
    """Carry out ``order`` on one image file; ``deadline`` is in event loop time, ``facts`` are for the log line."""
    timings = Timings()
    state.remotes.check(order.task)
    with ExitStack() as held:
        with state.batcher.expecting(), timings.measuring("decode"):
            image = await _decoded(state, order, data, held, facts)
        answer = await _on_device(state, order, image, deadline, timings)
        if order.task is not None and state.remotes.serves(order.task):
            with timings.measuring("downstream"):
                (answer,) = await state.remotes.complete(
                    order.task, [image.pixels], [answer], compare=order.compare, deadline=deadline
                )
        with timings.measuring("encode"):
            threshold = state.settings.suspicion_threshold
            return await state.codec.run(_conclude, image, answer, order, timings, threshold)


async def _decoded(
    state: ServiceState, order: Order, data: bytes, held: ExitStack, facts: dict[str, Any]
) -> DecodedImage:
    """The image in ``data``, its pixels admitted until ``held`` is closed."""
    deep = order.encode_as == "PNG"
    opened: OpenedImage
    small: DecodedImage | None
    opened, small = await state.codec.run(_open, data, state.settings.max_pixels, deep)
    facts["pixels"] = opened.width * opened.height
    check_size(state.engine, order, opened.width, opened.height)
    held.enter_context(state.pixels.holding(opened.charge))
    image: DecodedImage = await state.codec.run(decode, opened, deep=deep) if small is None else small
    for note in image.notes:
        log.warning("image_note", note=note)
    return image


def _open(data: bytes, max_pixels: int, deep: bool) -> tuple[OpenedImage, DecodedImage | None]:
    """The opened image, and where it is small decoded too: that takes less than to come back for it.

    What is decoded before it is admitted is bounded by the threads that do so.
    """
    opened = open_image(data, max_pixels)
    return opened, decode(opened, deep=deep) if opened.charge <= SMALL_PIXELS else None


async def _on_device(
    state: ServiceState, order: Order, image: DecodedImage, deadline: float, timings: Timings
) -> Answer:
    task = None if state.remotes.serves(order.task) else order.task
    job = Job(image.pixels, order.card.name, order.mode.mode, order.seed, task, order.compare)
    try:
        waited = await state.batcher.submit(job, key=job.key, cost=job.cost, deadline=deadline)
    finally:
        job.abandoned.set()
    timings.add("queue", waited.queued_s)
    timings.add("purify", waited.result.purify_s)
    if task is not None:
        timings.add("downstream", waited.result.downstream_s)
    return waited.result


def _conclude(image: DecodedImage, answer: Answer, order: Order, timings: Timings, threshold: float | None) -> Outcome:
    suspicion = judge(
        image.pixels, answer.purified, answer.undefended, answer.defended, scale=order.scale, threshold=threshold
    )
    file = None if order.encode_as is None else encode(answer.purified, image.alpha, order.encode_as, image.profile)
    mask, undefended_mask = _mask_file(answer.defended), _mask_file(answer.undefended)
    decided_on: DecidedOn = "original" if order.policy == "suspicious" and not suspicion.suspicious else "purified"
    return Outcome(image.width, image.height, file, mask, undefended_mask, answer, suspicion, timings, decided_on)


def _mask_file(finding: Finding | None) -> MaskFile | None:
    return encode_mask(finding) if isinstance(finding, ClassMask) else None


def measure(state: ServiceState, timings: Timings, suspicions: Sequence[Suspicion]) -> None:
    """Count one request's stages and its images' suspicions in the metrics."""
    for stage, ms in timings.stages.items():
        state.metrics.stage_seconds.labels(stage).observe(ms / 1000)
    for suspicion in suspicions:
        state.metrics.suspicion.labels("true" if suspicion.calibrated else "false").observe(suspicion.score)
        if suspicion.suspicious:
            state.metrics.suspicious.inc()
