"""``/v2``: the routes of the Open Inference Protocol."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response

from service.errors import NotReadyError
from service.state import ServiceState, state_of
from service.v2.catalogue import InferenceModel, find_model, metadata_of
from service.v2.envelope import HEADER_LENGTH
from service.v2.inference import infer
from service.v2.messages import InferResponse, Live, ModelMetadata, ModelReady, Ready, ServerMetadata

router = APIRouter(prefix="/v2", tags=["open inference protocol"])

UNKNOWN = "no such model, or not in that version"
NOT_READY = "not ready, and why"

State = Annotated[ServiceState, Depends(state_of)]


async def _latest(name: str, state: State) -> InferenceModel:
    return find_model(state.engine, name)


async def _of_version(name: str, version: str, state: State) -> InferenceModel:
    return find_model(state.engine, name, version)


Latest = Annotated[InferenceModel, Depends(_latest)]
OfVersion = Annotated[InferenceModel, Depends(_of_version)]


def _errors(**reasons: str) -> dict[int | str, dict[str, Any]]:
    """Answers in the protocol's form of an error, by status."""
    schema = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
    content = {"application/json": {"schema": schema}}
    return {int(status.removeprefix("s")): {"description": why, "content": content} for status, why in reasons.items()}


def _infer_options() -> dict[str, Any]:
    """What both routes of inference are declared with."""
    reasons = _errors(
        s400="the request is malformed or asks for what is not served",
        s404=UNKNOWN,
        s408="the body did not arrive in time",
        s413="the body, or the JSON in it, is longer than the limit",
        s415="the body is compressed",
        s422="a parameter cannot be honoured, or there are too many pixels",
        s429="too much in flight; see Retry-After",
        s502="a remote classifier answered otherwise than it should",
        s503="the engine is not running, or is out of memory, or a remote classifier is not to be had",
        s504="no answer before the deadline",
    )
    tensors = {"type": "array", "items": {"type": "object", "required": ["name"]}}
    sent = {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": "string"},
            "parameters": {"type": "object"},
            "inputs": tensors,
            "outputs": tensors,
        },
        "example": {
            "inputs": [{"name": "image", "datatype": "UINT8", "shape": [1, 1, 2, 3], "data": [0, 0, 0, 255, 255, 255]}],
            "parameters": {"seed": 1},
        },
    }
    body = {
        "required": True,
        "description": f"JSON; or, with `{HEADER_LENGTH}`, that many bytes of JSON and then the tensor's bytes.",
        "content": {
            "application/json": {"schema": sent},
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    }
    return {
        "summary": "Purify images, or ask a model about them purified",
        "response_model": InferResponse,
        "responses": reasons,
        "openapi_extra": {"requestBody": body},
    }


@router.get("", summary="The server")
async def server(request: Request) -> ServerMetadata:
    """Name, version and the protocol's extensions."""
    return ServerMetadata(name="nrp", version=request.app.version, extensions=["binary_tensor_data"])


@router.get("/health/live", summary="Is the process alive?")
async def live() -> Live:
    """As `/health/live`."""
    return Live(live=True)


@router.get("/health/ready", summary="Can it take requests?", responses=_errors(s503=NOT_READY))
async def ready(state: State) -> Ready:
    """As `/health/ready`."""
    _check_ready(state)
    return Ready(ready=True)


@router.get("/models/{name}", summary="A model's tensors", responses=_errors(s404=UNKNOWN))
async def model(model: Latest) -> ModelMetadata:
    """Names, datatypes and shapes; `parameters` says the rest in words."""
    return metadata_of(model)


@router.get("/models/{name}/versions/{version}", summary="A model's tensors", responses=_errors(s404=UNKNOWN))
async def model_version(model: OfVersion) -> ModelMetadata:
    """As without the version, which must be the one served."""
    return metadata_of(model)


@router.get(
    "/models/{name}/ready", summary="Can a model take requests?", responses=_errors(s404=UNKNOWN, s503=NOT_READY)
)
async def model_ready(model: Latest, state: State) -> ModelReady:
    """Every known model can as soon as the service can; a purifier beside the default is loaded when asked for."""
    _check_ready(state)
    return ModelReady(name=model.name, ready=True)


@router.get(
    "/models/{name}/versions/{version}/ready",
    summary="Can a model take requests?",
    responses=_errors(s404=UNKNOWN, s503=NOT_READY),
)
async def model_version_ready(model: OfVersion, state: State) -> ModelReady:
    """As without the version, which must be the one served."""
    _check_ready(state)
    return ModelReady(name=model.name, ready=True)


@router.post("/models/{name}/infer", **_infer_options())
async def model_infer(request: Request, model: Latest, state: State) -> Response:
    """Images in the tensor `image`; back come `purified`, or what a model says of the purified: a classifier's
    `probabilities`, a segmenter's `mask`, a detector's `boxes`, `scores`, `labels` and `counts`."""
    return await infer(request, state, model)


@router.post("/models/{name}/versions/{version}/infer", **_infer_options())
async def model_version_infer(request: Request, model: OfVersion, state: State) -> Response:
    """As without the version, which must be the one served."""
    return await infer(request, state, model)


def _check_ready(state: ServiceState) -> None:
    reasons = state.reasons_not_ready()
    if reasons:
        raise NotReadyError("; ".join(reasons))
