"""The protocol's JSON: what clients send, what they are answered."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

Parameters = dict[str, bool | int | float | str]


class RequestInput(BaseModel):
    """A tensor sent. ``data``: its values, flat or nested, row by row; absent where they follow as bytes."""

    name: str
    shape: list[int]
    datatype: str
    parameters: Parameters = {}
    data: Any = None


class RequestedOutput(BaseModel):
    """A tensor wanted back."""

    name: str
    parameters: Parameters = {}


class InferRequest(BaseModel):
    """``POST .../infer``, without the bytes that may follow."""

    id: str | None = None
    parameters: Parameters = {}
    inputs: list[RequestInput]
    outputs: list[RequestedOutput] = Field(default=[], description="all outputs where none is named")


class ResponseOutput(BaseModel):
    """A tensor sent back; ``data`` null where its values follow as bytes."""

    name: str
    datatype: str
    shape: list[int]
    parameters: Parameters | None = None
    data: list[Any] | None = None


class InferResponse(BaseModel):
    """The answer to ``POST .../infer``, without the bytes that may follow."""

    model_name: str
    model_version: str
    id: str | None = None
    parameters: Parameters
    outputs: list[ResponseOutput]


class TensorMetadata(BaseModel):
    """A tensor of a model; -1 is any size."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(BaseModel):
    """``GET /v2/models/{name}``. ``parameters`` says in words what the tensors' shapes cannot."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]
    parameters: dict[str, Any]


class ServerMetadata(BaseModel):
    """``GET /v2``."""

    name: str
    version: str
    extensions: list[str]


class Live(BaseModel):
    """``GET /v2/health/live``."""

    live: bool


class Ready(BaseModel):
    """``GET /v2/health/ready``."""

    ready: bool


class ModelReady(BaseModel):
    """``GET /v2/models/{name}/ready``."""

    name: str
    ready: bool
