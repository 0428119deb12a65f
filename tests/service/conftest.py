"""A tiny store (an identity purifier, a one-stage classifier) and the application on it."""

from __future__ import annotations

import asyncio
import io
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from fastapi import FastAPI
from PIL import Image

from model_store.architectures import build
from model_store.card import Card, Figure, Inference, InputConvention
from model_store.inference import InferenceMode
from model_store.store import ModelStore
from service.app import create_app
from service.engine import WARM_UP_SIDE, Engine
from service.job import Answer, Job
from service.settings import Settings
from tests.service.certificates import BrightEngine

CLASSES = ("cat", "dog", "newt")


@pytest.fixture(scope="session")
def store_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that tests read; whoever changes it copies it first."""
    torch.manual_seed(0)
    store = ModelStore(tmp_path_factory.mktemp("store"))
    modes = {"static": InferenceMode(), "noisy": InferenceMode(noise_std=0.1, draws=3)}
    store.publish(
        Card(
            name="plain",
            summary="returns its input",
            task="purifier",
            architecture="identity",
            inference=Inference(default="static", modes=modes),
            figures=(Figure(name="change", value=0.0, unit="levels", count=1, command="none", seed=0),),
        ),
        build("identity"),
    )
    store.publish(
        Card(
            name="noise",
            summary="returns its input, noisy by default",
            task="purifier",
            architecture="identity",
            inference=Inference(default="noisy", modes=modes),
        ),
        build("identity"),
    )
    arguments = {"classes": 3, "widths": (4, 4), "blocks": 1}
    store.publish(
        Card(
            name="tiny",
            summary="guesses",
            task="classifier",
            architecture="resnet_small",
            arguments=arguments,
            labels=CLASSES,
            input=InputConvention(short_side=32, crop=32),
        ),
        build("resnet_small", arguments),
    )
    return store.root


@pytest.fixture
def settings_for(store_root: Path) -> Callable[..., Settings]:
    """Settings on the tiny store, with whatever a test changes."""

    def make(**changes: Any) -> Settings:
        chosen = {
            "model_store": store_root,
            "purifier": "plain",
            "classifier": "tiny",
            "device": "cpu",
            "precision": "float32",
            "lanes": 1,
            "drain_delay_s": 0.0,
            "drain_seconds": 2.0,
        }
        return Settings(**{**chosen, **changes})

    return make


class GatedEngine(Engine):
    """An engine whose device is busy until a test opens the gate; warm-up passes."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.gate = threading.Event()
        self.entered = threading.Event()
        self.ran: list[int] = []

    def run(self, jobs: Sequence[Job]) -> list[Answer | Exception]:
        if jobs[0].pixels.shape[-1] != WARM_UP_SIDE:
            self.entered.set()
            self.gate.wait(20)
            self.ran.append(len(jobs))
        return super().run(jobs)


@pytest.fixture
def gated_engine() -> type[GatedEngine]:
    return GatedEngine


class Client:
    """An application running in an event loop of its own thread, and an HTTP client that talks to it in process."""

    def __init__(self, app: FastAPI) -> None:
        self.app = app
        self.state = app.state.service
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test", timeout=30)
        self._lifespan = app.router.lifespan_context(app)

    def start(self) -> None:
        self._thread.start()
        self.run(self._lifespan.__aenter__())
        give_up = time.monotonic() + 10
        while not (self.state.warm or self.state.warm_up_failure) and time.monotonic() < give_up:
            time.sleep(0.005)

    def stop(self) -> None:
        self.run(self._lifespan.__aexit__(None, None, None))
        self.run(self._http.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine in the application's loop and wait for it."""
        return self.begin(work).result(timeout=60)

    def begin(self, work: Coroutine[Any, Any, Any]) -> Future[Any]:
        """Start a coroutine in the application's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def sending(self, method: str, url: str, **options: Any) -> Future[httpx.Response]:
        """Start a request."""
        return self.begin(self._http.request(method, url, **options))

    def get(self, url: str, **options: Any) -> httpx.Response:
        return self.sending("GET", url, **options).result(timeout=60)

    def post(self, url: str, **options: Any) -> httpx.Response:
        return self.sending("POST", url, **options).result(timeout=60)


@pytest.fixture
def client_for(settings_for: Callable[..., Settings]) -> Iterator[Callable[..., Client]]:
    """Started clients of applications with changed settings."""
    started: list[Client] = []

    def make(engine_class: type[Engine] = Engine, **changes: Any) -> Client:
        settings = settings_for(**changes)
        client = Client(create_app(settings, engine_class(settings)))
        client.start()
        started.append(client)
        return client

    yield make
    for client in started:
        client.stop()


@pytest.fixture
def client(client_for: Callable[..., Client]) -> Client:
    """The application on the tiny store."""
    return client_for()


def photo(width: int = 24, height: int = 16, seed: int = 0) -> Image.Image:
    """An RGB image of random levels."""
    levels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(levels)


def file_of(image: Image.Image, image_format: str = "PNG", **options: Any) -> bytes:
    """An image file."""
    out = io.BytesIO()
    image.save(out, image_format, **options)
    return out.getvalue()


def image_of(data: bytes) -> Image.Image:
    """An image file read back."""
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


@pytest.fixture(name="photo")
def _photo() -> Callable[..., Image.Image]:
    return photo


@pytest.fixture(name="file_of")
def _file_of() -> Callable[..., bytes]:
    return file_of


@pytest.fixture(name="image_of")
def _image_of() -> Callable[[bytes], Image.Image]:
    return image_of


@pytest.fixture
def certifying(client_for: Callable[..., Any]) -> Callable[..., Any]:
    """A started client whose smoothing purifier is the tiny one."""

    def make(engine_class: type[Any] = BrightEngine, **changes: Any) -> Any:
        return client_for(engine_class, **{"smoothing_purifier": "noise", **changes})

    return make
