"""``GET /``: the page for people."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

router = APIRouter()

_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src blob: data:; "
    "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)


@router.get("/", include_in_schema=False)
async def page() -> HTMLResponse:
    """One file, nothing loaded from elsewhere."""
    return HTMLResponse(_html(), headers={"Content-Security-Policy": _POLICY})


@lru_cache(maxsize=1)
def _html() -> str:
    return files("service").joinpath("page.html").read_text(encoding="utf-8")
