"""The real thing: a process, a socket, signals."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

# A wrong setting is in the environment while everything is imported: nothing may read it then.
LAUNCH = """
import os
os.environ["NRP_LOG_LEVEL"] = "nonsense"
import argparse, sys, time
import service.app, service.commands.serve, service.engine
from model_store.errors import NrpError
del os.environ["NRP_LOG_LEVEL"]

class SlowEngine(service.engine.Engine):
    def run(self, jobs):
        if jobs[0].pixels.shape[-1] == 33:
            time.sleep(1.0)
        while jobs[0].pixels.shape[-1] == 34 and not os.path.exists(os.environ["GATE"]):
            time.sleep(0.01)
        return super().run(jobs)

service.app.Engine = SlowEngine
parser = argparse.ArgumentParser()
service.commands.serve.configure_serve(parser)
try:
    sys.exit(service.commands.serve.run_serve(parser.parse_args()))
except NrpError as error:
    print(f"nrp: error: {error}", file=sys.stderr)
    sys.exit(1)
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """``nrp serve`` in a process of its own; an image 33 pixels wide keeps its device busy for a second,
    one 34 pixels wide until ``gate`` exists."""

    def __init__(self, store_root: Path, log: Path, **variables: str) -> None:
        self.port = free_port()
        self.log = log
        self.gate = log.with_name("gate")
        environment = {
            **os.environ,
            "NRP_MODEL_STORE": str(store_root),
            "NRP_CLASSIFIER": "tiny",
            "NRP_DRAIN_DELAY_S": "0.2",
            "OMP_NUM_THREADS": "1",
            "GATE": str(self.gate),
            **variables,
        }
        with log.open("wb") as out:
            self.process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-c", LAUNCH, "--purifier", "plain", "--device", "cpu", "--port", str(self.port)],
                stderr=out,
                stdout=out,
                env=environment,
                cwd=Path(__file__).parents[2],
            )
        self.url = f"http://127.0.0.1:{self.port}"
        self.http = httpx.Client(base_url=self.url, timeout=30, trust_env=False)

    def wait_until_ready(self) -> None:
        give_up = time.monotonic() + 60
        while time.monotonic() < give_up:
            assert self.process.poll() is None, self.log.read_text()
            try:
                if self.http.get("/health/ready").status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.05)
        raise AssertionError(self.log.read_text())

    def stop(self) -> None:
        self.http.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)


@pytest.fixture
def server(store_root: Path, tmp_path: Path) -> Iterator[Any]:
    running = Server(store_root, tmp_path / "log")
    try:
        running.wait_until_ready()
        yield running
    finally:
        running.stop()


def test_it_serves_refuses_leaves_nobody_behind_and_drains(
    server: Any,
    photo: Callable[..., Image.Image],
    file_of: Callable[..., bytes],
    image_of: Callable[[bytes], Image.Image],
) -> None:
    image = photo()
    answer = server.http.post("/purify", content=file_of(image), headers={"x-request-id": "whole-path"})
    assert np.array_equal(np.asarray(image_of(answer.content)), np.asarray(image))

    # 50 MB, announced and then in chunks: the client reads the 413 rather than a reset connection.
    big = b"\xff\xd8\xff" + b"x" * 50_000_000
    assert server.http.post("/purify", content=big).status_code == 413
    parts = (big[start : start + 65_536] for start in range(0, len(big), 65_536))
    assert server.http.post("/purify", content=parts).status_code == 413

    # A client that hangs up while its image waits.
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{server.url}/purify", content=file_of(photo(33, 9)), timeout=0.3, trust_env=False)
    until_logged(server, lambda lines: any(line.get("status") == 499 for line in lines))

    # SIGTERM while an image is on the device: it is answered, readiness turns false meanwhile, the status is 0.
    outcomes = []
    slow = threading.Thread(
        target=lambda: outcomes.append(
            httpx.post(f"{server.url}/purify", content=file_of(photo(33, 8)), timeout=30, trust_env=False).status_code
        )
    )
    slow.start()
    time.sleep(0.3)
    server.process.send_signal(signal.SIGTERM)
    time.sleep(0.05)
    assert server.http.get("/health/ready").status_code == 503
    slow.join()
    assert outcomes == [200]
    assert server.process.wait(15) == 0
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{server.url}/health/live", trust_env=False)

    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    own = [line for line in lines if line.get("request_id") == "whole-path"]
    assert [(line["event"], line["route"], line["status"]) for line in own] == [("request", "/purify", 200)]


def test_sigterm_under_load_with_aborts_and_broken_images_leaves_nobody_without_an_answer(
    server: Any,
    photo: Callable[..., Image.Image],
    file_of: Callable[..., bytes],
    image_of: Callable[[bytes], Image.Image],
) -> None:
    images = [photo(16 + 8 * (n % 3), 16, seed=n) for n in range(20)]
    aborted, broken = {n for n in range(20) if n % 10 in {1, 4, 8}}, {n for n in range(20) if n % 10 == 5}

    def send(n: int) -> Any:
        data = file_of(images[n])[: 60 if n in broken else None]
        return server.http.post("/purify", content=data, timeout=60)

    def begin(n: int) -> socket.socket:
        data = file_of(images[n])
        started = socket.create_connection(("127.0.0.1", server.port))
        started.sendall(b"POST /purify HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(data) + data)
        return started

    with ThreadPoolExecutor(len(images) + 1) as pool:
        busy = pool.submit(server.http.post, "/purify", content=file_of(photo(34, 8)), timeout=60)
        until_measured(server, "nrp_batch_images_count 1.0")
        sent = {n: pool.submit(send, n) for n in range(len(images)) if n not in aborted}
        hanging_up = [begin(n) for n in aborted]
        until_measured(server, f"nrp_queue_depth {len(images) - len(broken)}.0")
        for client in hanging_up:
            client.close()
        until_measured(server, f"nrp_queue_depth {len(images) - len(broken) - len(aborted)}.0")
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)  # past the drain delay: the port is closed
        server.gate.touch()
        assert busy.result().status_code == 200
        for n, future in sent.items():
            answer = future.result()
            assert answer.status_code == (422 if n in broken else 200), n
            if n not in broken:
                assert np.array_equal(np.asarray(image_of(answer.content)), np.asarray(images[n])), n
    assert server.process.wait(60) == 0


def until_measured(server: Any, line: str) -> None:
    give_up = time.monotonic() + 30
    while line not in server.http.get("/metrics").text:
        assert time.monotonic() < give_up
        time.sleep(0.02)


def until_logged(server: Any, wanted: Any) -> None:
    give_up = time.monotonic() + 10
    while time.monotonic() < give_up:
        if wanted([json.loads(line) for line in server.log.read_text().splitlines()]):
            return
        time.sleep(0.05)
    raise AssertionError(server.log.read_text())


def test_a_tampered_weight_file_stops_the_start_with_one_line(store_root: Path, tmp_path: Path) -> None:
    root = shutil.copytree(store_root, tmp_path / "store")
    path = root / "tiny" / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    server = Server(root, tmp_path / "log")
    try:
        assert server.process.wait(60) == 1
    finally:
        server.stop()
    lines = server.log.read_text().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("nrp: error: ")
    assert "tiny" in lines[0]
    assert "sha256" in lines[0]
