"""A tiny server of its own process, and reports that tests vary."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.bench.rows import Report, Row, Run
from service.bench.servers import Server, environment, free_port
from service.bench.task import Task

# Answers POST with its own body, or with 429 from the ninth request at one time on; keeps a child, as Ray does.
FAKE = """
import subprocess, sys, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
child = subprocess.Popen(["sleep", "600"], start_new_session=True)
room = threading.Semaphore(8)
count = 0
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16  # head and body in one packet
    def log_message(self, *_): pass
    def answer(self, status, body, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        text = f"nrp_batch_images_sum {2 * count}\\nnrp_batch_images_count {count}\\n"
        self.answer(200, text.encode() if self.path == "/metrics" else b"ok")
    def do_POST(self):
        global count
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not room.acquire(blocking=False):
            return self.answer(429, b"full", Retry_After="1")
        time.sleep(0.02)
        count += 1
        room.release()
        self.answer(200, body)
ThreadingHTTPServer.request_queue_size = 256
server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
server.daemon_threads = True
server.serve_forever()
"""


@pytest.fixture
def task() -> Task:
    return Task(store=Path("nowhere"), purifier="plain", side=16)


@pytest.fixture
def fake_server(tmp_path: Path) -> Callable[..., Server]:
    """Starts the tiny server, whatever it is asked to start."""

    def start(*_: Any) -> Server:
        port = free_port()
        command = [sys.executable, "-c", FAKE, str(port)]
        return Server("the fake", command, environment(None), port, tmp_path / "fake.log")

    return start


@pytest.fixture
def report_of() -> Callable[..., Report]:
    """A report of rows."""

    def make(*rows: Row, device: str = "cpu") -> Report:
        run = Run(
            command="nrp bench",
            purifier="plain",
            sha256="0" * 64,
            mode="static",
            side=224,
            device=device,
            hardware="a processor",
            cores=2,
            threads=2,
            bfloat16=False,
            rounds=2,
            batch=20,
            seed=0,
            started="2026-01-01",
            minutes=1.5,
            versions={"torch": "2.0"},
        )
        return Report(run=run, rows=rows)

    return make
