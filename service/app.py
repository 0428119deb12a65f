"""The application: settings in, an ASGI app out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from service import administration, classify, detect, health, models, page, purify, segment
from service.body import BodyLimit
from service.bulk import routes as bulk
from service.context import RequestContext
from service.doorway import Doorway
from service.engine import Engine
from service.problems import install_problem_handlers
from service.settings import Settings
from service.state import ServiceState
from service.v2 import routes as inference_protocol

DESCRIPTION = (
    "Purifies images of adversarial perturbations before a vision model sees them, with the method NRP "
    "(Naseer et al., CVPR 2020). Errors are RFC 9457 `application/problem+json` and carry a `request_id`."
)


def create_app(settings: Settings, engine: Engine | None = None) -> FastAPI:
    """Build the application. Loads and verifies the models unless given an ``engine``, so it raises what that does."""
    state = ServiceState(settings, engine or Engine(settings))
    app = FastAPI(
        title="NRP purification service",
        description=DESCRIPTION,
        version="0.1.0",
        lifespan=_lifespan,
        redirect_slashes=False,
    )
    app.state.service = state
    install_problem_handlers(app)
    for room in (purify, bulk, classify, detect, segment, models, administration, health, page, inference_protocol):
        app.include_router(room.router)
    app.add_middleware(Doorway, check=state.batcher.check_room)
    app.add_middleware(BodyLimit, limit=settings.max_body_bytes, in_flight=state.bodies)
    app.add_middleware(RequestContext, metrics=state.metrics, requests=state.requests)  # added last: outermost
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Run the batch loop; warm up beside it, so that the liveness probe answers from the first moment."""
    state: ServiceState = app.state.service
    state.batcher.start()
    warming = asyncio.create_task(state.warm_up())
    try:
        yield
    finally:
        state.draining = True
        warming.cancel()
        await asyncio.wait([warming])
        state.activation.close()
        await state.batcher.close(state.settings.drain_seconds)
        await state.remotes.close()
        state.codec.close()
