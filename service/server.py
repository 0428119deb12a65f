"""The process around the application: signals, draining, and uvicorn's settings."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from types import FrameType

import uvicorn
from fastapi import FastAPI

from service.settings import Settings
from service.state import ServiceState

# How long a thread that computes may keep the interpreter from the event loop; Python's own 5 ms show in latencies.
SWITCH_S = 0.001


class DrainingServer(uvicorn.Server):
    """On SIGTERM or Ctrl-C: readiness turns false, the port stays open for a moment so that a load balancer can
    see it, then requests in flight are finished."""

    def __init__(self, config: uvicorn.Config, state: ServiceState) -> None:
        super().__init__(config)
        self._state = state

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._state.draining = True
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if not self.force_exit:
            await asyncio.sleep(self._state.settings.drain_delay_s)
        await super().shutdown(sockets)


def serve(app: FastAPI, settings: Settings) -> int:
    """Serve until a signal; the exit code. Logging must be set up already."""
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=max(1, round(settings.drain_seconds)),
    )
    server = DrainingServer(config, app.state.service)
    # uvicorn raises the signal again once it is done; a drained server has ended well.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _ignore)
    sys.setswitchinterval(SWITCH_S)
    server.run()
    return 0 if server.started else 1


def _ignore(number: int, frame: FrameType | None) -> None:
    """The signal has been dealt with."""
