"""What the tests of certification share: a classifier with a known boundary, an engine that is held, a real server."""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import uvicorn
from PIL import Image
from torch import Tensor, nn

from model_store.certification import Certificate, Smoothing, certify
from model_store.inference import seeded
from model_store.pixels import image_to_bytes, to_float
from service.engine import Engine
from service.settings import Settings

SIDE = 32
SIGMA = 0.1  # of the tiny purifier "noise", which returns what it gets


class Brightness(nn.Module):
    """Dog where an image's mean is above 0.5, else cat: a half space, whose radius is the distance to its boundary."""

    def forward(self, images: Tensor) -> Tensor:
        above = images.mean(dim=(1, 2, 3)) - 0.5
        return torch.stack([-above, above, torch.full_like(above, -9.0)], dim=1) * 1000


def classify_by_brightness(engine: Engine) -> None:
    """Give the engine that classifier; it looks at images of ``SIDE`` pixels as they are."""
    models = engine.downstreams._models
    models["classifier"] = dataclasses.replace(models["classifier"], module=Brightness())


class BrightEngine(Engine):
    """An engine whose classifier is ``Brightness``."""

    def __init__(self, settings: Settings, **options: Any) -> None:
        super().__init__(settings, **options)
        classify_by_brightness(self)


class HeldEngine(BrightEngine):
    """Runs one chunk of noisy copies for each time that a test releases ``permits``."""

    def __init__(self, settings: Settings, **options: Any) -> None:
        super().__init__(settings, **options)
        self.permits = threading.Semaphore(0)
        self.entered = 0
        self.ran = 0

    def label_counts(self, purifier: Any, copies: Any) -> Tensor:
        self.entered += 1
        self.permits.acquire(timeout=20)
        counts = super().label_counts(purifier, copies)
        self.ran += 1
        return counts


def expected(image: Any, seed: int, n0: int, n: int, alpha: float = 0.001) -> Certificate:
    """The certificate that the model store's own function gives."""
    classifier = Brightness()
    pixels = to_float(image_to_bytes(image))
    smoothing = Smoothing(SIGMA, n0, n, alpha, batch=7)
    return certify(lambda noisy: classifier(noisy.clamp(0, 1)).argmax(dim=1), pixels, smoothing, 3, seeded(seed))


def until(condition: Callable[[], Any]) -> None:
    give_up = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.002)


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """The application behind a real socket; its address."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until(lambda: server.started)
        until(lambda: app.state.service.warm)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def events_of(lines: Iterator[str]) -> Iterator[tuple[str, Any]]:
    """The events of a stream, by the rules of the format: fields until an empty line, comments passed over."""
    name, data = "message", []
    for line in lines:
        if line == "":
            if data:
                yield name, json.loads("\n".join(data))
            name, data = "message", []
        elif not line.startswith(":"):
            field, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if field == "event":
                name = value
            elif field == "data":
                data.append(value)
            else:
                raise AssertionError(line)


ROUTE = "/classify-robust?certify=true"
STREAM = {"accept": "text/event-stream"}


def grey(level: int) -> Image.Image:
    return Image.new("RGB", (SIDE, SIDE), (level, level, level))


def on_the_boundary() -> Image.Image:
    image = grey(127)
    image.paste((128, 128, 128), (0, 0, SIDE, SIDE // 2))
    return image
