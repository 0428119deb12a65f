"""BentoML: a front service that decodes and encodes in threads, and one that runs batches of adapting size."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Annotated

import bentoml
import numpy as np
import torch
from bentoml.validators import ContentType

from service.bench.purification import Purification, file_of, pixels_of
from service.bench.task import received_task

LONGEST_S = 60
TASK = received_task()


@bentoml.service(workers=1, traffic={"timeout": LONGEST_S, "max_concurrency": 4096})
class Device:
    """The one process that runs the model."""

    def __init__(self) -> None:
        self.purification = Purification(TASK)

    @bentoml.api(batchable=True, max_batch_size=max(2, TASK.batch), max_latency_ms=1000 * LONGEST_S)
    def run(self, images: np.ndarray) -> np.ndarray:
        """Images uint8 (N, 3, H, W), purified."""
        return torch.stack(self.purification.run(list(torch.from_numpy(images.copy())))).numpy()


@bentoml.service(workers=1, traffic={"timeout": LONGEST_S, "max_concurrency": 4096})
class Front:
    """What clients talk to."""

    device = bentoml.depends(Device)

    @bentoml.api(route="/purify")
    async def purify(self, image: Path) -> Annotated[bytes, ContentType("image/png")]:
        """A PNG file in, a PNG file out."""
        pixels = await asyncio.to_thread(lambda: pixels_of(image.read_bytes()))
        purified = await self.device.to_async.run(pixels.numpy()[None])
        return await asyncio.to_thread(file_of, torch.from_numpy(purified[0].copy()))


if __name__ == "__main__":
    arguments = ("serve", "service.bench.arms.bento:Front", "--host", "127.0.0.1", "--port", sys.argv[1])
    os.execv(sys.executable, [sys.executable, "-m", "bentoml", *arguments])  # noqa: S606 - our own interpreter
