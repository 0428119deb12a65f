"""The names of files in an archive, from what clients call theirs, which may be anything."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from pathlib import PurePosixPath

from service.plan import READABLE

NAMELESS = "image"
# File systems hold 255 bytes; what is left over is for the extension and for a number.
MOST_BYTES = 200
MOST_SHOWN = 255

_SEPARATORS = re.compile(r"[/\\]")
_RESERVED_CHARACTERS = re.compile(r'[<>:"|?*]')
_DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)


def safe_names(sent: Sequence[str], extension: str) -> list[str]:
    """A file name for each name sent, all different even where case does not count, each with ``extension``.

    No folder, no character that is invisible or that a file system reserves, no leading dot, 255 bytes at the most.
    """
    taken: set[str] = set()
    numbers: dict[str, int] = {}
    names = []
    for name in sent:
        stem = _stem(name)
        candidate = f"{stem}{extension}"
        while candidate.casefold() in taken:
            number = numbers[stem] = numbers.get(stem, 1) + 1
            candidate = f"{stem}-{number}{extension}"
        taken.add(candidate.casefold())
        names.append(candidate)
    return names


def shown(name: str) -> str:
    """A client's name as JSON can hold it, cut to a bound."""
    return name[:MOST_SHOWN].encode("utf-8", "replace").decode()


def _stem(name: str) -> str:
    """What is left of the last part of a path, without the ending of an image file."""
    last = _SEPARATORS.split(name)[-1]
    visible = "".join(character for character in last if not unicodedata.category(character).startswith("C"))
    plain = _RESERVED_CHARACTERS.sub("_", unicodedata.normalize("NFC", visible))
    path = PurePosixPath(plain)
    stem = _trimmed(path.stem if path.suffix.lower() in READABLE else plain)
    stem = _trimmed(stem.encode()[:MOST_BYTES].decode(errors="ignore")) or NAMELESS
    return f"_{stem}" if _DEVICE.fullmatch(stem) else stem


def _trimmed(stem: str) -> str:
    """Without the dots and spaces at its ends that hide a file or that Windows drops."""
    return stem.strip(". ")
