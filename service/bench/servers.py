"""The arms: how each server is started, asked and stopped."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self

import service
from service.bench.connection import Request, upload
from service.bench.errors import BenchError
from service.bench.processes import Process, end, family
from service.bench.schedule import Phase
from service.bench.task import Task

ROOT = Path(service.__file__).resolve().parents[1]
# Our own queue, in images: longer than the most clients, shorter than the standing queue of an overload.
OUR_QUEUE = 128
START_S = 180.0
STOP_S = 15.0


@dataclass(frozen=True)
class Arm:
    """``package`` must be installed; ``module`` is run, with the port as its argument. ``form_field``: the upload is
    multipart, where the framework takes no raw body. ``batches``: the histogram of batch sizes in ``/metrics``.

    ``engine``: the purifier is run as this service runs it; else by PyTorch, eagerly, as one would write it.
    """

    name: str
    words: str
    module: str
    package: str = ""
    path: str = "/purify"
    live: str = "/health"
    form_field: str = ""
    batches: str = ""
    engine: bool = False

    def phases(self, phases: Sequence[Phase]) -> tuple[Phase, ...]:
        """Those that this arm goes through: a peer with our engine only those that show what it can do at the most."""
        borrowed = self.engine and self.name != OURS
        return tuple(phase for phase in phases if not borrowed or (phase.kind, phase.level) in SHOWING)

    def upload(self, task: Task, image: bytes) -> Request:
        """The request that purifies ``image``."""
        path = f"{self.path}?mode={task.mode}&seed={task.seed}" if self.name == OURS else self.path
        return upload(path, image, self.form_field)


OURS = "nrp"
WITH_ENGINE = "+engine"
# Under few clients that a batch can be made of, and under many.
SHOWING = frozenset({("closed", 8), ("closed", 32)})
_OURS = Arm(OURS, "this service", "nrp", live="/health/live", batches="nrp_batch_images", engine=True)
_PEERS = (
    Arm("fastapi", "FastAPI and a thread a core, no batching", "service.bench.arms.plain"),
    Arm("litserve", "LitServe", "service.bench.arms.lit", "litserve"),
    Arm(
        "bentoml", "BentoML", "service.bench.arms.bento", "bentoml", live="/livez", form_field="image",
        batches="bentoml_service_adaptive_batch_size",
    ),
    Arm("ray", "Ray Serve", "service.bench.arms.replica", "ray", live="/-/healthz"),
    Arm("mosec", "mosec", "service.bench.arms.stages", "mosec", live="/", batches="mosec_service_batch_size"),
)  # fmt: skip
PEERS = tuple(arm.name for arm in _PEERS)
_BORROWERS = tuple(
    replace(arm, name=f"{arm.name}{WITH_ENGINE}", words=f"{arm.words}, with this engine", engine=True) for arm in _PEERS
)
BORROWERS = tuple(arm.name for arm in _BORROWERS)
ARMS: Mapping[str, Arm] = MappingProxyType({arm.name: arm for arm in (_OURS, *_PEERS, *_BORROWERS)})


def absent(arm: Arm, peers: Path | None) -> str:
    """Why ``arm`` cannot be started: empty where its package is there, to be had by ``environment``."""
    if not arm.package:
        return ""
    code = f"import importlib.metadata as m; m.version({arm.package!r})"
    asked = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", code], env=environment(peers), capture_output=True, check=False
    )
    install = "pip install --no-deps --target DIR -r requirements/bench.txt, and --peers DIR"
    return f"not installed: {install}" if asked.returncode else ""


def environment(peers: Path | None, **variables: str) -> dict[str, str]:
    """What a process that is measured sees: of this service's settings, which the task decides, the classifier alone.

    It plays no part, but must be in the store.
    """
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith("NRP_") or name == "NRP_CLASSIFIER"
    }
    places = [str(ROOT), *([str(peers.resolve())] if peers else []), kept.get("PYTHONPATH", "")]
    programs = [str(peers.resolve() / "bin")] if peers else []  # mosec runs one of its own
    paths = {
        "PYTHONPATH": os.pathsep.join(filter(None, places)),
        "PATH": os.pathsep.join([*programs, kept.get("PATH", os.defpath)]),
    }
    return {**kept, **variables, **paths}


def command(arm: Arm, port: int) -> list[str]:
    """What is run."""
    if arm.name == OURS:
        return [sys.executable, "-m", "nrp", "serve", "--port", str(port)]
    return [sys.executable, "-m", arm.module, str(port)]


def our_settings(task: Task) -> dict[str, str]:
    """The same task as variables of this service: like the others, it holds the purifier alone."""
    return {
        "NRP_MODEL_STORE": str(task.store),
        "NRP_PURIFIER": task.purifier,
        "NRP_DEVICE": task.device,
        "NRP_THREADS": str(task.model_threads),
        "NRP_RUNTIME": task.runtime,
        "NRP_MAX_WAITING": str(OUR_QUEUE),
        "NRP_LOG_LEVEL": "warning",
        **dict.fromkeys(("NRP_CLASSIFIER", "NRP_SEGMENTER", "NRP_DETECTOR"), "none"),
    }


class Server:
    """A server's process and all that it starts, for the length of a ``with`` block."""

    def __init__(
        self, words: str, command: Sequence[str], environment: Mapping[str, str], port: int, log: Path
    ) -> None:
        self.port = port
        self._words = words
        self._log = log
        self._seen: dict[int, Process] = {}
        with log.open("wb") as out:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and our own modules
                list(command), env=dict(environment), stdout=out, stderr=out, cwd=ROOT, start_new_session=True
            )

    @classmethod
    def of(cls, arm: Arm, task: Task, peers: Path | None, log: Path) -> Server:
        """Start an arm on a free port."""
        port = free_port()
        task = task if arm.engine else task.model_copy(update={"runtime": "torch"})
        variables = {**task.environment(), **our_settings(task)}
        return cls(arm.words, command(arm, port), environment(peers, **variables), port, log)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def wait_until(self, request: Request, within_s: float = START_S) -> bytes:
        """The body of the first good answer. Raises BenchError, with the end of the log, where there is none."""
        give_up = time.monotonic() + within_s
        while time.monotonic() < give_up:
            if self._process.poll() is not None:
                raise BenchError(f"{self._words} ended while it started: {self._last_words()}")
            with suppress(OSError, urllib.error.URLError):
                return self._ask(request)
            time.sleep(0.2)
        raise BenchError(f"{self._words} did not answer within {within_s:g} s: {self._last_words()}")

    def metrics(self) -> str:
        """The text of ``/metrics``; empty where there is none."""
        try:
            return self._ask(Request("GET", "/metrics")).decode()
        except OSError:
            return ""

    def processes(self) -> list[Process]:
        """The process and its descendants."""
        found = family(self._process.pid)
        self._seen |= {process.pid: process for process in found}
        return found

    def stop(self) -> list[int]:
        """SIGTERM, and in the end SIGKILL to whatever of its processes is left: their numbers."""
        self.processes()
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # a child that began after we looked
        return end(list(self._seen.values()))

    def _ask(self, request: Request) -> bytes:
        url = f"http://127.0.0.1:{self.port}{request.path}"
        asked = urllib.request.Request(url, request.body or None, dict(request.headers), method=request.method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(asked, timeout=60) as reply:
            return bytes(reply.read())

    def _last_words(self) -> str:
        return " ".join(self._log.read_text(errors="replace").split())[-600:]


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def mean_batch(before: str, after: str, series: str) -> float | None:
    """Mean of a histogram between two readings of ``/metrics``; None where nothing was counted."""
    total, count = (
        _summed(after, f"{series}_{part}") - _summed(before, f"{series}_{part}") for part in ("sum", "count")
    )
    return total / count if series and count > 0 else None


def _summed(text: str, name: str) -> float:
    lines = (line.rpartition(" ") for line in text.splitlines() if line.startswith((f"{name} ", f"{name}{{")))
    return sum(float(value) for _, _, value in lines)
