"""The names of a remote model's classes: from a file, told by the server, or learnt from its answers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

MOST_LABELS = 1 << 16
LONGEST_LABEL = 200


class Labels:
    """Known names by class number; a class without one is called by its number. Only the event loop touches it."""

    def __init__(self, fixed: tuple[str, ...] = ()) -> None:
        """``fixed``: all there are, in order, which nothing that the server says changes."""
        self.fixed = bool(fixed)
        self._names = list(fixed)

    @property
    def names(self) -> tuple[str, ...]:
        """A name for each class known so far, in order."""
        return tuple(self._names)

    def tell(self, names: tuple[str, ...]) -> None:
        """Take over what the server's metadata says."""
        if not self.fixed:
            self._names = list(names)

    def learn(self, classes: int, named: Mapping[int, str]) -> None:
        """Take over what an answer shows: that there are ``classes`` at the least, and the names it gave some."""
        if self.fixed:
            return
        self._names += [str(index) for index in range(len(self._names), classes)]
        for index, name in named.items():
            self._names[index] = name


def read_labels(path: Path) -> tuple[str, ...]:
    """The lines of a file of labels. Raises ValueError: one line."""
    try:
        names = tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8") from error
    if not names or not all(names) or len(names) > MOST_LABELS:
        raise ValueError(f"{path} must hold one label a line, none of them empty, {MOST_LABELS} at the most")
    return names
