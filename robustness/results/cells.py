"""Cells: the rows of one table, each placed exactly once, and how a figure is shown.

A table asks for a row by its key. A row that is missing, or that no cell asked for, is an error: a table neither
leaves a hole nor leaves out what was measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from robustness.errors import EvaluationError
from robustness.results.published import PublishedFigure
from robustness.results.row import Row

Key = tuple[object, ...]
T = TypeVar("T")

DASH = "\N{EN DASH}"
NOT_APPLICABLE = "\N{MIDDLE DOT}"


class Cells:
    """The rows of one table of one suite by ``key``; ``names`` are the words for the key's parts in an error.

    Raises EvaluationError for two rows of one key.
    """

    def __init__(self, rows: Sequence[Row], names: Sequence[str], key: Callable[[Row], Key]) -> None:
        self._where = f"table {rows[0].table} of suite {rows[0].suite}"
        self._names = tuple(names)
        self._rows: dict[Key, Row] = {}
        self._placed: set[Key] = set()
        for row in rows:
            if key(row) in self._rows:
                raise EvaluationError(f"{self._where}: two rows for one cell, {self._words(key(row))}; keep one")
            self._rows[key(row)] = row

    def at(self, *key: object) -> Row:
        """The row of a cell. Raises EvaluationError where there is none."""
        if key not in self._rows:
            raise EvaluationError(
                f"{self._where} has no row for {self._words(key)}; measure it, or keep a row that says why not"
            )
        self._placed.add(key)
        return self._rows[key]

    def has(self, *key: object) -> bool:
        """Whether there is a row for a cell."""
        return key in self._rows

    def all_placed(self) -> None:
        """Raise EvaluationError if a row was asked for by no cell."""
        left = [key for key in self._rows if key not in self._placed]
        if left:
            raise EvaluationError(f"{self._where} has no cell for the row {self._words(left[0])}; correct the row")

    def _words(self, key: Key) -> str:
        return ", ".join(f"{name} {part!r}" for name, part in zip(self._names, key, strict=True))


class Footnotes:
    """Why cells are empty: each reason once, numbered as it comes up."""

    def __init__(self) -> None:
        self._reasons: dict[str, int] = {}

    def cell(self, row: Row) -> str:
        """A row's figure with its 95 % interval, or a dash that refers to the reason."""
        if row.missing:
            number = self._reasons.setdefault(row.missing, len(self._reasons) + 1)
            return f"{DASH} <sup>{number}</sup>"
        return figure(row)

    def lines(self) -> str:
        """The notes, to go below the table; empty if there are none."""
        return "\n".join(
            f"<sup>{number}</sup> Not measured: {sentence(reason)}<br>" for reason, number in self._reasons.items()
        ).removesuffix("<br>")


def figure(row: Row) -> str:
    """Percent and 95 % interval of a measured row. Raises EvaluationError for one without an interval."""
    if row.percent is None or row.interval is None:
        raise EvaluationError(
            f"{row.title} has no {'interval' if row.interval is None else 'figure'}; measure it again"
        )
    low, high = row.interval
    return f"{row.percent:.1f} ({low:.1f}{DASH}{high:.1f})"


def paper(figure: PublishedFigure | None) -> str:
    """The paper's figure in a cell."""
    return NOT_APPLICABLE if figure is None else str(figure)


def photos(rows: Iterable[Row]) -> str:
    """How many images the measured ones among ``rows`` stand on."""
    counts = sorted({row.count for row in rows if not row.missing})
    if not counts:
        return DASH
    return f"{counts[0]}" if len(counts) == 1 else f"{counts[0]}{DASH}{counts[-1]}"


def grid(heads: Sequence[str], lines: Iterable[Sequence[str]], *, words: int = 1) -> str:
    """A Markdown table; the first ``words`` columns hold words, the others figures, which are set to the right."""
    marks = ["---" if place < words else "---:" for place in range(len(heads))]
    return "\n".join(f"| {' | '.join(escaped(part) for part in line)} |" for line in (heads, marks, *lines))


def blocks(*parts: str) -> str:
    """Markdown blocks with an empty line between them, empty ones left out."""
    return "\n\n".join(part for part in parts if part)


def sentence(text: str) -> str:
    """``text`` with a full stop."""
    return text if text.endswith((".", "!", "?")) else f"{text}."


def escaped(text: str) -> str:
    """Text that does not end its table cell."""
    return text.replace("|", "\\|").replace("\n", " ")


def only(values: Iterable[T], what: str) -> T:
    """The one value. Raises EvaluationError if there are several, or none."""
    found = list(dict.fromkeys(values))
    if len(found) != 1:
        raise EvaluationError(f"one {what} was expected, not {', '.join(map(str, found)) or 'none'}")
    return found[0]
