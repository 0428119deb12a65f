"""Plain FastAPI: what one writes first. A thread a core, each with one thread of torch, so images run side by side."""

from __future__ import annotations

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor

import uvicorn
from fastapi import FastAPI, Request, Response

from service.bench.purification import Purification
from service.bench.task import received_task


def create_app(purification: Purification, threads: int) -> FastAPI:
    """An application with one route and a probe."""
    app = FastAPI()
    pool = ThreadPoolExecutor(threads)

    @app.post("/purify")
    async def purify(request: Request) -> Response:
        data = await request.body()
        purified = await asyncio.get_running_loop().run_in_executor(pool, purification.one, data)
        return Response(purified, media_type="image/png")

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "live"}

    return app


if __name__ == "__main__":
    task = received_task()
    app = create_app(Purification(task, threads=1), task.model_threads)
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", access_log=False)
