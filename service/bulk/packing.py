"""The answer's bytes, made image by image: a zip archive, or JSON with the images in base64."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

from service.answers import EncodedImage
from service.bulk.answers import BatchAnswer, BatchHead, BatchItem, BatchTotals
from service.bulk.archive import Archive
from service.bulk.items import Purified

ZIP = "application/zip"
JSON = "application/json"
REPORT = "report.json"


class Packing(ABC):
    """Makes one answer with images of one media type: ``add`` for each image in its turn, at least one, then ``end``.
    The calls take time: keep them off the event loop."""

    media_type: ClassVar[str]
    headers: ClassVar[Mapping[str, str]] = MappingProxyType({})

    def __init__(self, head: BatchHead, image_type: str) -> None:
        self.head = head
        self.image_type = image_type

    @abstractmethod
    def add(self, item: BatchItem, purified: Purified | None) -> bytes:
        """The bytes of the next image; ``purified`` None where it has none."""

    @abstractmethod
    def end(self, totals: BatchTotals) -> bytes:
        """The last bytes."""

    def close(self) -> None:  # noqa: B027 - most hold nothing
        """Call at last, whether or not ``end`` was reached."""


class ZipPacking(Packing):
    """The images under their safe names, then ``report.json``."""

    media_type = ZIP
    headers = MappingProxyType({"Content-Disposition": 'attachment; filename="purified.zip"'})

    def __init__(self, head: BatchHead, image_type: str) -> None:
        super().__init__(head, image_type)
        self._archive = Archive()
        self._items: list[BatchItem] = []

    def add(self, item: BatchItem, purified: Purified | None) -> bytes:
        self._items.append(item)
        return b"" if purified is None or item.name is None else self._archive.add(item.name, purified.file)

    def end(self, totals: BatchTotals) -> bytes:
        report = BatchAnswer(**dict(self.head), items=self._items, **dict(totals))
        return self._archive.add(REPORT, report.model_dump_json(indent=2).encode()) + self._archive.end()

    def close(self) -> None:
        self._archive.close()


class JsonPacking(Packing):
    """One object, written as it grows: a ``BatchAnswer``."""

    media_type = JSON

    def __init__(self, head: BatchHead, image_type: str) -> None:
        super().__init__(head, image_type)
        self._before = head.model_dump_json().removesuffix("}") + ',"items":['

    def add(self, item: BatchItem, purified: Purified | None) -> bytes:
        if purified is not None:
            image = EncodedImage.of(purified.file, self.image_type, purified.width, purified.height)
            item = item.model_copy(update={"image": image})
        before, self._before = self._before, ","
        return (before + item.model_dump_json()).encode()

    def end(self, totals: BatchTotals) -> bytes:
        return ("]," + totals.model_dump_json().removeprefix("{")).encode()


PACKINGS: Mapping[str, type[Packing]] = MappingProxyType({kind.media_type: kind for kind in (ZipPacking, JsonPacking)})
