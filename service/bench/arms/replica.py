"""Ray Serve: one replica that decodes and encodes in threads and runs batches of what came within 5 ms."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading

import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import Response
from torch import Tensor

from service.bench.purification import Purification, file_of, pixels_of
from service.bench.task import Task, received_task


def deployment(task: Task) -> serve.Deployment:
    """The replica's class, its batches as large as the task allows."""

    @serve.deployment(num_replicas=1, max_ongoing_requests=4096, ray_actor_options={"num_cpus": 1})
    class Replica:
        def __init__(self) -> None:
            self.purification = Purification(task)

        @serve.batch(max_batch_size=task.batch, batch_wait_timeout_s=0.005)
        async def run(self, images: list[Tensor]) -> list[Tensor]:
            return await asyncio.to_thread(self.purification.run, images)

        async def __call__(self, request: Request) -> Response:
            pixels = await asyncio.to_thread(pixels_of, await request.body())
            purified = await self.run(pixels)
            return Response(await asyncio.to_thread(file_of, purified), media_type="image/png")

    return Replica


if __name__ == "__main__":
    stopped = threading.Event()
    ray.init(include_dashboard=False, num_cpus=4, log_to_driver=False, logging_level="warning")
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    serve.run(deployment(received_task()).bind(), route_prefix="/purify")
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    stopped.wait()
    serve.shutdown()
    ray.shutdown()
