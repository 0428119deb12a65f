"""The image in a request: a raw body, or the one file of a multipart form."""

from __future__ import annotations

import asyncio

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from service.errors import MalformedUploadError, UnsupportedImageError, UploadTimeoutError

FIELD = "file"


class _InMemoryParser(MultiPartParser):
    """The body limit already bounds what arrives, so an upload need not touch the disk."""

    spool_max_size = 1 << 40


async def read_upload(request: Request, within_s: float) -> bytes:
    """The bytes of the image. Raises MalformedUploadError, UnsupportedImageError or UploadTimeoutError.

    Any content type but multipart is taken as the image itself: what it is, its bytes say.
    """
    try:
        async with asyncio.timeout(within_s):
            return await _read(request)
    except TimeoutError as error:
        raise UploadTimeoutError(f"the body did not arrive within {within_s:g} s; send it again") from error


async def _read(request: Request) -> bytes:
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in {"", "identity"}:
        raise UnsupportedImageError(f"Content-Encoding {encoding[:40]!r} is not supported; send the image as it is")
    content_type = request.headers.get("content-type", "").split(";", 1)[0].strip().lower()
    if content_type == "multipart/form-data":
        return await _only_file(request)
    return await request.body()


async def _only_file(request: Request) -> bytes:
    try:
        form = await _InMemoryParser(request.headers, request.stream(), max_files=1, max_fields=8).parse()
    except (MultiPartException, KeyError, UnicodeDecodeError) as error:
        reason = error.message if isinstance(error, MultiPartException) else "the boundary is missing or broken"
        raise MalformedUploadError(f"the multipart body cannot be read: {reason}") from error
    try:
        for name, value in form.multi_items():
            if isinstance(value, UploadFile):
                if name != FIELD:
                    raise MalformedUploadError(f"the file is in field {name[:40]!r}; it belongs in {FIELD!r}")
                return await value.read()
    finally:
        await form.close()
    raise MalformedUploadError(f"the multipart body holds no file; put one in field {FIELD!r}")
