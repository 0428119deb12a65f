"""The doorway: who cannot be queued is told so before anything of the request is read or looked at.

Under overload most requests are refused, so what a refusal costs is taken from the work that is done.
"""

from __future__ import annotations

from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import OverloadedError
from service.problems import error_problem

# Routes of one image a request; of several, each waits or is refused by itself.
SINGLE_IMAGE = frozenset({"/purify", "/classify-robust", "/detect-robust", "/segment-robust"})


class Doorway:
    """Pure ASGI; ``check`` raises OverloadedError where there is no room."""

    def __init__(self, app: ASGIApp, check: Callable[[], None]) -> None:
        self.app = app
        self._check = check

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST" and scope["path"] in SINGLE_IMAGE:
            try:
                self._check()
            except OverloadedError as error:
                scope["endpoint"] = self  # the path is one of ours, and may be a label in logs and metrics
                await error_problem(scope, error)(scope, receive, send)
                return
        await self.app(scope, receive, send)
