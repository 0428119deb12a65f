"""https: a server is asked when its certificate is one that the operator trusts, and no other."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
from PIL import Image

from service.remote.attempt import Call, attempt


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate of 127.0.0.1, signed by itself, and its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed, which makes the certificate")
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    subprocess.run(  # noqa: S603
        [
            openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
            "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate,
        ],
        check=True,
        capture_output=True,
    )  # fmt: skip
    return certificate, key


def test_a_server_is_asked_when_its_certificate_is_trusted_and_not_otherwise(
    certificate: tuple[Path, Path],
    fake: Any,
    running: Callable[..., Any],
    client_for: Callable[..., Any],
    file_of: Callable[..., bytes],
) -> None:
    own, key = certificate
    server = running(fake, ssl_certfile=own, ssl_keyfile=key)
    fake.answer = {"predictions": [{"label": "cat", "index": 0, "probability": 1.0}]}
    url = f"https://127.0.0.1:{server.port}/"
    content = file_of(Image.new("RGB", (20, 20)))
    trusting = client_for(classifier=url, remote_ca_file=own)
    assert trusting.post("/classify-robust", content=content).status_code == 200
    asked = len(fake.bodies)
    with structlog.testing.capture_logs() as lines:
        wary = client_for(classifier=url, remote_retries=0)
        assert wary.post("/classify-robust", content=content).status_code == 503
    assert len(fake.bodies) == asked
    assert any("CERTIFICATE_VERIFY_FAILED" in line.get("detail", "") for line in lines)


def test_a_handshake_that_is_cancelled_leaves_no_connection_behind() -> None:
    async def scenario() -> None:
        begun, gone = asyncio.Event(), asyncio.Event()

        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)
            begun.set()
            while await reader.read(4096):
                pass
            gone.set()
            writer.close()

        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        async with server, httpx.AsyncClient(trust_env=False) as http:
            asking = asyncio.create_task(attempt(http, "remote:x", Call("GET", url), 20, 100))
            await begun.wait()
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            await asyncio.wait_for(gone.wait(), 5)

    asyncio.run(scenario())
