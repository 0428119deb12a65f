"""A zip archive made piece by piece, so that no more than one of its files is held."""

from __future__ import annotations

import io
import zipfile

READABLE_BY_ALL = 0o644 << 16


class Archive:
    """Stored, not deflated: image files do not shrink. Sizes stand before each file, so that it can be read as it
    comes; it has no dates, so that equal files make equal archives."""

    def __init__(self) -> None:
        self._sink = _Sink()
        self._zip = zipfile.ZipFile(self._sink, "w", zipfile.ZIP_STORED)

    def add(self, name: str, data: bytes) -> bytes:
        """The archive's next bytes, which hold this file."""
        entry = zipfile.ZipInfo(name)
        entry.external_attr = READABLE_BY_ALL
        entry.create_system = 3  # Unix, which is what those attributes are
        self._zip.writestr(entry, data)
        return self._sink.take()

    def end(self) -> bytes:
        """The archive's last bytes; without them it does not open."""
        self.close()
        return self._sink.take()

    def close(self) -> None:
        """Needed where ``end`` was not reached: zipfile complains when it is left open."""
        self._zip.close()


class _Sink(io.BytesIO):
    """A file whose beginning was taken away: the archive goes back to write a file's size, but not behind that file."""

    def __init__(self) -> None:
        super().__init__()
        self._gone = 0

    def tell(self) -> int:
        return self._gone + super().tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        behind = self._gone if whence == io.SEEK_SET else 0
        return self._gone + super().seek(offset - behind, whence)

    def take(self) -> bytes:
        """What was written since the last time."""
        data = self.getvalue()
        self._gone += len(data)
        super().seek(0)
        self.truncate()
        return data
