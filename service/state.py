"""The collaborators that the routes work with, built once for an application."""

from __future__ import annotations

from typing import cast

import structlog
from fastapi import Request

from model_store.errors import NrpError
from model_store.store import ModelStore
from service.activation import Activation
from service.admission import Allowance
from service.batcher import Batcher
from service.certifications import Certifications
from service.codec import Codec
from service.engine import Engine
from service.in_flight import RequestsInFlight
from service.job import Answer, Job
from service.metrics import Metrics
from service.remote.remotes import Remotes
from service.settings import Settings

# A batch that has run for this many request timeouts means that the device hangs: nobody waits for it any more.
STALLED_TIMEOUTS = 2

log = structlog.get_logger()


class ServiceState:
    """One application's engine, queue, allowances and metrics, and whether it is ready."""

    def __init__(self, settings: Settings, engine: Engine) -> None:
        self.settings = settings
        self.engine = engine
        self.metrics = Metrics()
        self.codec = Codec(settings.codec_threads)
        self.batcher: Batcher[Job, Answer] = Batcher(
            engine.run,
            budget=lambda: engine.budget.now,
            max_waiting=settings.max_waiting,
            lanes=engine.lanes,
            on_batch=self.metrics.batch_images.observe,
        )
        retry_after = self.batcher.retry_after
        self.pixels = Allowance(settings.max_pixels_in_flight, "pixels in flight", retry_after)
        self.bodies = Allowance(settings.max_body_bytes_in_flight, "body bytes in flight", retry_after)
        self.requests = RequestsInFlight()
        self.certifications = Certifications(settings.max_certifications)
        self.remotes = Remotes(engine.remotes, settings, self.codec, self.metrics.registry)
        self.activation = Activation(
            ModelStore(settings.model_store), engine, self.batcher, self.codec, self.metrics, self.requests
        )
        self.warm = False
        self.warm_up_failure: str | None = None
        self.draining = False
        self._publish_figures()

    def _publish_figures(self) -> None:
        self.metrics.watch(
            queue_depth=lambda: self.batcher.depth,
            pixels=lambda: self.pixels.held,
            memory=self.engine.memory_bytes,
        )
        card = self.engine.cards[self.engine.default_purifier]
        self.metrics.model(card.name, card.sha256)
        for model in self.engine.downstreams.models:
            self.metrics.model(model.name, model.sha256)

    def reasons_not_ready(self) -> list[str]:
        """Why requests should go elsewhere now; empty when ready. The weights were verified before this existed."""
        stalled = self.batcher.busy_s > STALLED_TIMEOUTS * self.settings.request_timeout_s
        checks = {
            "draining: the service is shutting down": self.draining,
            "the batch loop or its device thread has ended; restart the service": not self.batcher.alive,
            "the device has not answered for long; restart the service": stalled,
            f"warm-up failed: {self.warm_up_failure}": self.warm_up_failure is not None,
            "warming up": not self.warm and self.warm_up_failure is None,
        }
        return [reason for reason, holds in checks.items() if holds]

    async def warm_up(self) -> None:
        """Run the models once on the device thread; what goes wrong shows in readiness and in the log.

        Remote models are asked too whether they answer, which only the log says.
        """
        try:
            await self.remotes.greet()
            await self.batcher.on_device(self.engine.warm_up)
        except (NrpError, RuntimeError) as error:
            log.exception("warm_up_failed")
            self.warm_up_failure = type(error).__name__
        else:
            self.warm = True
            asked = {model.kind: model.name for model in self.engine.models}
            log.info("warm", device=str(self.engine.device), precision=str(self.engine.precision), **asked)


async def state_of(request: Request) -> ServiceState:
    """The state of the application that serves ``request``; a dependency.

    A coroutine function, since FastAPI sends any other to a thread and back.
    """
    return cast(ServiceState, request.app.state.service)
