"""What ``GET /models`` says of a remote model."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from service.remote.address import Protocol
from service.remote.breaker import State


class RemoteReport(BaseModel):
    """A remote model, and whether it is being asked."""

    task: Literal["classifier", "segmenter", "detector"]
    name: str
    protocol: Protocol
    breaker: State = Field(description="closed: it is asked. open: it failed in a row and is left alone for a while")
