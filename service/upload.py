"""The images in a request: a raw body, or the files of a multipart form."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import Request
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from service.errors import MalformedUploadError, TooManyFilesError, UnsupportedImageError, UploadTimeoutError

FIELD = "file"
FIELD_OF_MANY = "files"
MOST_OTHER_FIELDS = 8

T = TypeVar("T")


@dataclass(frozen=True)
class Upload:
    """One file of a form. ``name``: what the client calls it, which may be anything."""

    name: str
    data: bytes


class _InMemoryParser(MultiPartParser):
    """The body limit already bounds what arrives, so an upload need not touch the disk."""

    spool_max_size = 1 << 40


class _BoundedParser(_InMemoryParser):
    """Stops at the first file too many, so that a body of a million tiny ones is not taken apart."""

    most = 0
    seen = 0

    def on_part_end(self) -> None:
        super().on_part_end()
        self.seen += isinstance(self.items[-1][1], UploadFile)
        if self.seen > self.most:
            raise TooManyFilesError(f"the form holds more than {self.most} files; send the rest in another request")


async def read_upload(request: Request, within_s: float) -> bytes:
    """The bytes of the image. Raises MalformedUploadError, UnsupportedImageError or UploadTimeoutError.

    Any content type but multipart is taken as the image itself: what it is, its bytes say.
    """
    _check_encoding(request)
    return await _in_time(_only_file(request) if _is_form(request) else request.body(), within_s)


async def read_uploads(request: Request, within_s: float, most: int) -> list[Upload]:
    """The files of a form, in its order, at least one. Raises as ``read_upload``, and TooManyFilesError."""
    _check_encoding(request)
    if not _is_form(request):
        raise MalformedUploadError(f"send the images as multipart/form-data, each in a field {FIELD_OF_MANY!r}")
    return await _in_time(_all_files(request, most), within_s)


def _check_encoding(request: Request) -> None:
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in {"", "identity"}:
        raise UnsupportedImageError(f"Content-Encoding {encoding[:40]!r} is not supported; send the image as it is")


def _is_form(request: Request) -> bool:
    return request.headers.get("content-type", "").split(";", 1)[0].strip().lower() == "multipart/form-data"


async def _in_time(reading: Coroutine[Any, Any, T], within_s: float) -> T:
    try:
        async with asyncio.timeout(within_s):
            return await reading
    except TimeoutError as error:
        raise UploadTimeoutError(f"the body did not arrive within {within_s:g} s; send it again") from error


async def _parse(parser: MultiPartParser) -> FormData:
    try:
        return await parser.parse()
    except (MultiPartException, KeyError, UnicodeError) as error:
        reason = error.message if isinstance(error, MultiPartException) else "the boundary is missing or broken"
        raise MalformedUploadError(f"the multipart body cannot be read: {reason}") from error


async def _only_file(request: Request) -> bytes:
    form = await _parse(_InMemoryParser(request.headers, request.stream(), max_files=1, max_fields=MOST_OTHER_FIELDS))
    try:
        for name, value in form.multi_items():
            if isinstance(value, UploadFile):
                if name != FIELD:
                    raise MalformedUploadError(f"the file is in field {name[:40]!r}; it belongs in {FIELD!r}")
                return await value.read()
    finally:
        await form.close()
    raise MalformedUploadError(f"the multipart body holds no file; put one in field {FIELD!r}")


async def _all_files(request: Request, most: int) -> list[Upload]:
    parser = _BoundedParser(request.headers, request.stream(), max_files=float("inf"), max_fields=MOST_OTHER_FIELDS)
    parser.most = most
    form = await _parse(parser)
    uploads = []
    try:
        for name, value in form.multi_items():
            if isinstance(value, UploadFile):
                if name != FIELD_OF_MANY:
                    raise MalformedUploadError(f"a file is in field {name[:40]!r}; files belong in {FIELD_OF_MANY!r}")
                uploads.append(Upload(value.filename or "", await value.read()))
                await value.close()  # its copy of the bytes, while the next is read
            elif name == FIELD_OF_MANY:
                raise MalformedUploadError(f"a part in field {FIELD_OF_MANY!r} has no file name, so it is no file")
    finally:
        await form.close()
    if not uploads:
        raise MalformedUploadError(f"the multipart body holds no file; put the images in field {FIELD_OF_MANY!r}")
    return uploads
