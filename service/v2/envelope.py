"""The protocol's body: JSON, then the bytes of those tensors that are not in it (the binary tensor data extension)."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass

from fastapi import Request, Response
from pydantic import ValidationError

from service.errors import (
    BodyTooLargeError,
    InvalidParameterError,
    MalformedInferenceError,
    UnsupportedImageError,
    UploadTimeoutError,
)
from service.v2.catalogue import InferenceModel
from service.v2.messages import InferRequest, InferResponse, Parameters, RequestInput, ResponseOutput
from service.v2.tensors import BINARY_SIZE, DATATYPES, IMAGE, Array, Images, from_bytes, from_values, layout_of

HEADER_LENGTH = "Inference-Header-Content-Length"
MEBI = 1 << 20
# Python reads and writes JSON in one go, and nothing else runs meanwhile: these bound for how long.
MOST_JSON_BYTES = 8 * MEBI
MOST_JSON_VALUES = MEBI

_LENGTH = re.compile(r"[0-9]{1,12}", re.ASCII)
_BINARY_OUTPUT = "binary_data"
_BINARY_OUTPUTS = "binary_data_output"


@dataclass(frozen=True)
class Call:
    """An inference request, checked as far as it can be without touching the images' values.

    ``wanted``: the outputs by name, in the order they are sent, and whether each follows as bytes.
    """

    id: str | None
    parameters: Parameters
    images: Images
    wanted: Mapping[str, bool]


async def read_body(request: Request, within_s: float) -> bytes:
    """The whole body. Raises UploadTimeoutError, or UnsupportedImageError for one that is compressed."""
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in {"", "identity"}:
        raise UnsupportedImageError(f"Content-Encoding {encoding[:40]!r} is not supported; send the body as it is")
    try:
        async with asyncio.timeout(within_s):
            return await request.body()
    except TimeoutError as error:
        raise UploadTimeoutError(f"the body did not arrive within {within_s:g} s; send it again") from error


def open_call(body: bytes, header_length: str | None, model: InferenceModel) -> Call:
    """The request in ``body``. Raises MalformedInferenceError, or BodyTooLargeError for JSON that is too long."""
    length = _json_length(body, header_length)
    try:
        asked = InferRequest.model_validate_json(body[:length])
    except ValidationError as error:
        fault = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, fault["loc"])) or "the body"
        raise MalformedInferenceError(f"{where}: {fault['msg']}") from error
    if len(asked.inputs) != 1 or asked.inputs[0].name != IMAGE:
        names = ", ".join(repr(tensor.name[:40]) for tensor in asked.inputs[:4]) or "none"
        raise MalformedInferenceError(f"inputs: {model.name} takes one, {IMAGE!r}; sent were {names}")
    images = _images(asked.inputs[0], memoryview(body)[length:])
    call = Call(asked.id, _of_the_model(asked.parameters), images, _wanted(asked, model))
    pixels = images.count * images.height * images.width
    _check_json_values(sum(o.per_pixel for o in model.outputs if call.wanted.get(o.name) is False) * pixels)
    return call


def sealed(model: InferenceModel, call: Call, arrays: Mapping[str, Array], parameters: Parameters) -> Response:
    """The answer with the outputs that were wanted, of those in ``arrays``.

    Raises InvalidParameterError where they are too long for JSON.
    """
    _check_json_values(sum(arrays[name].size for name, binary in call.wanted.items() if not binary))
    raws = [arrays[name].tobytes() if binary else b"" for name, binary in call.wanted.items()]
    outputs = [
        ResponseOutput(
            name=name,
            datatype=DATATYPES[arrays[name].dtype.name],
            shape=list(arrays[name].shape),
            parameters={BINARY_SIZE: len(raw)} if binary else None,
            data=None if binary else arrays[name].ravel().tolist(),
        )
        for (name, binary), raw in zip(call.wanted.items(), raws, strict=True)
    ]
    answer = InferResponse(
        model_name=model.name, model_version=model.version, id=call.id, parameters=parameters, outputs=outputs
    )
    head = answer.model_dump_json(exclude_none=True).encode()
    if not any(call.wanted.values()):
        return Response(head, media_type="application/json")
    body = b"".join([head, *raws])
    return Response(body, media_type="application/octet-stream", headers={HEADER_LENGTH: str(len(head))})


def _check_json_values(count: int) -> None:
    if count > MOST_JSON_VALUES:
        raise InvalidParameterError(
            f"outputs: {count} values are too many for JSON, which takes {MOST_JSON_VALUES}; ask for {_BINARY_OUTPUT}"
        )


def _json_length(body: bytes, header_length: str | None) -> int:
    length = len(body)
    if header_length is not None:
        if not _LENGTH.fullmatch(header_length) or int(header_length) > len(body):
            raise MalformedInferenceError(
                f"{HEADER_LENGTH} is {header_length[:40]!r}; it is the length of the JSON at the beginning of the "
                f"body, which has {len(body)} bytes"
            )
        length = int(header_length)
    if length > MOST_JSON_BYTES:
        raise BodyTooLargeError(
            f"the JSON is {length} bytes long; the limit is {MOST_JSON_BYTES}: send the tensor as binary data"
        )
    return length


def _images(tensor: RequestInput, rest: memoryview) -> Images:
    layout = layout_of(tensor.datatype, tensor.shape)
    known = tensor.parameters.keys() - {BINARY_SIZE}
    if known:
        raise MalformedInferenceError(f"{IMAGE}: parameter {min(known)[:40]!r} is not supported")
    announced = tensor.parameters.get(BINARY_SIZE)
    if announced is None:
        if tensor.data is None or len(rest):
            raise MalformedInferenceError(f"{IMAGE}: send its values either as data or as {BINARY_SIZE} bytes")
        return from_values(layout, tensor.shape, tensor.data)
    if tensor.data is not None or announced is True or announced != len(rest):
        raise MalformedInferenceError(
            f"{IMAGE}: {BINARY_SIZE} is {str(announced)[:40]!r}, but {len(rest)} bytes follow the JSON"
            + (" and there is data in it" if tensor.data is not None else "")
        )
    return from_bytes(layout, tensor.shape, rest)


def _of_the_model(parameters: Parameters) -> Parameters:
    return {name: value for name, value in parameters.items() if name != _BINARY_OUTPUTS}


def _wanted(asked: InferRequest, model: InferenceModel) -> dict[str, bool]:
    """The outputs wanted, all where none is named, and whether each follows as bytes: as it says for itself, else as
    the request says for all."""
    for_all = asked.parameters.get(_BINARY_OUTPUTS, False)
    wanted: dict[str, bool | int | float | str] = {}
    known = [output.name for output in model.outputs]
    for output in asked.outputs:
        if output.name not in known:
            names = ", ".join(map(repr, known))
            raise MalformedInferenceError(f"outputs: {model.name} has no {output.name[:40]!r}; it has {names}")
        if output.name in wanted:
            raise MalformedInferenceError(f"outputs: {output.name!r} is asked for twice")
        unknown = output.parameters.keys() - {_BINARY_OUTPUT}
        if unknown:
            raise MalformedInferenceError(f"outputs: parameter {min(unknown)[:40]!r} is not supported")
        wanted[output.name] = output.parameters.get(_BINARY_OUTPUT, for_all)
    forms = wanted or dict.fromkeys(known, for_all)
    return {name: _true_or_false(binary) for name, binary in forms.items()}


def _true_or_false(binary: object) -> bool:
    if not isinstance(binary, bool):
        raise MalformedInferenceError(f"{_BINARY_OUTPUT} is {str(binary)[:40]!r}; it is true or false")
    return binary
