"""The remote models of one service: asked in the event loop about what the device has purified."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import httpx
import structlog
import torch
from prometheus_client import CollectorRegistry
from torch import Tensor

from model_store.official import Kind
from service.codec import Codec
from service.errors import BadGatewayError, DeadlineExceededError, RemoteError
from service.findings import Finding
from service.job import Answer
from service.remote.asker import Asker, make_asker
from service.remote.caller import RemoteCaller, make_http
from service.remote.metrics import RemoteMetrics
from service.remote.model import RemoteModel
from service.remote.report import RemoteReport
from service.remote.said import Said
from service.settings import Settings

# How long the start waits to find out whether remote models answer, which nothing depends on.
GREETING_S = 3.0
GREETING_SIDE = 224

log = structlog.get_logger()


class Remotes:
    """At most one remote model a task."""

    def __init__(
        self,
        models: Mapping[Kind, RemoteModel],
        settings: Settings,
        codec: Codec,
        registry: CollectorRegistry,
        make: Callable[[Settings], httpx.AsyncClient] = make_http,
    ) -> None:
        metrics = RemoteMetrics(registry)
        self._askers: dict[Kind, Asker] = {
            kind: make_asker(model, RemoteCaller(model.name, settings, codec, metrics, make(settings)), codec)
            for kind, model in models.items()
        }

    def serves(self, kind: Kind | None) -> bool:
        """Whether the model of that task is one of these, so that the device only purifies."""
        return kind in self._askers

    def check(self, kind: Kind | None) -> None:
        """Raises RemoteUnavailableError where the model of that task is one of these and its breaker open."""
        if kind in self._askers:
            self._askers[kind].caller.check()

    async def complete(
        self, kind: Kind, images: Sequence[Tensor], answers: Sequence[Answer], *, compare: bool, deadline: float
    ) -> list[Answer]:
        """The answers with the model's findings: about each purified image, once, whatever its draws; with ``compare``,
        and of a classifier always, about the image as it came too.

        ``images``: uint8 (3, H, W). All are asked at once, as far as there are connections; the first failure cancels
        the others. Raises BadGatewayError, RemoteUnavailableError, RemoteTimeoutError or DeadlineExceededError.
        """
        asker = self._askers[kind]
        begun = time.perf_counter()
        purified = [answer.purified for answer in answers]
        questions = [*purified, *images] if compare or kind == "classifier" else purified
        findings = _settled(asker.model, await _all(asker, questions, deadline))
        seconds = time.perf_counter() - begun
        defended = findings[: len(answers)]
        undefended: Sequence[Finding | None] = findings[len(answers) :] or [None] * len(answers)
        return [
            replace(answer, defended=one, undefended=other, downstream_s=seconds)
            for answer, one, other in zip(answers, defended, undefended, strict=True)
        ]

    async def greet(self) -> None:
        """Say in the log which of the models answer. The service is ready whether or not they do."""
        deadline = asyncio.get_running_loop().time() + GREETING_S
        await asyncio.gather(*(_greet(asker, deadline) for asker in self._askers.values()))

    def reports(self) -> list[RemoteReport]:
        """Each model, and whether it is being asked."""
        return [
            RemoteReport(
                task=kind,
                name=asker.model.name,
                protocol=asker.model.address.protocol,
                breaker=asker.caller.breaker.state,
            )
            for kind, asker in self._askers.items()
        ]

    async def close(self) -> None:
        """Close every connection."""
        for asker in self._askers.values():
            await asker.caller.close()


async def _all(asker: Asker, questions: Sequence[Tensor], deadline: float) -> list[Said]:
    if asker.caller.breaker.state != "closed":  # one attempt is let through, which decides for the others
        return [await asker.ask(question, deadline) for question in questions]
    asked = [asyncio.create_task(asker.ask(question, deadline)) for question in questions]
    try:
        return await asyncio.gather(*asked)
    finally:
        for task in asked:
            task.cancel()
        await asyncio.wait(asked)
        for task in asked:  # one error is told; the others count as read
            _ = task.cancelled() or task.exception()


def _settled(model: RemoteModel, said: Sequence[Said]) -> list[Finding]:
    """The findings, all of as many classes as are known now. Raises BadGatewayError for a class without a label."""
    for one in said:
        if model.known.fixed and one.classes > len(model.labels):
            raise BadGatewayError(
                f"{model.name} speaks of {one.classes} classes; NRP_{model.kind.upper()}_LABELS has {len(model.labels)}"
            )
        model.known.learn(one.classes, one.named)
    return [one.as_wide_as(len(model.labels)) for one in said]


async def _greet(asker: Asker, deadline: float) -> None:
    model = asker.model
    pixels = torch.zeros(3, GREETING_SIDE, GREETING_SIDE, dtype=torch.uint8)
    try:
        await asker.greet(pixels, deadline)
    except (RemoteError, DeadlineExceededError, TimeoutError) as error:
        log.warning("remote_does_not_answer", task=model.kind, model=model.name, reason=str(error))
    else:
        log.info("remote_answers", task=model.kind, model=model.name, labels=len(model.labels))
