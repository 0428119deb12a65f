"""Files: rows on disk. One JSON file a row while a suite runs, one JSONL file a suite to keep.

A row's file has a name that a person can read and that depends on the row's identity alone, so measuring it again
replaces it. Files appear complete or not at all.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import ValidationError

from robustness.errors import EvaluationError
from robustness.results.order import row_key
from robustness.results.row import Row

LONGEST_SLUG = 160
_NOT_IN_A_NAME = re.compile(r"[^a-z0-9.]+")


def file_name(row: Row) -> str:
    """``table-task-attack-eps-surrogate-victim-defence-series-x-metric-hash.json``, what is empty left out.

    The hash is of the identity (which has the suite and the attacker too), so no two rows share a name on any
    file system.
    """
    where = "" if row.x is None else f"x{row.x:g}"
    parts = (row.table, row.task, row.attack, f"eps{row.eps}", row.surrogate or "", row.victim, row.defence)
    words = "-".join(part for part in (*parts, row.series, where, row.metric) if part)
    slug = _NOT_IN_A_NAME.sub("-", words.lower()).strip("-")[:LONGEST_SLUG]
    digest = hashlib.sha256(json.dumps(row.identity).encode()).hexdigest()[:10]
    return f"{slug}-{digest}.json"


def write_row(row: Row, folder: Path) -> Path:
    """Write ``row`` under ``folder``, in place of an earlier figure of the same thing. Raises EvaluationError."""
    path = folder / file_name(row)
    write_text(path, json.dumps(_plain(row), sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    return path


def read_rows(folder: Path) -> list[Row]:
    """Every row under ``folder``, in the one order; a folder that is not there holds none.

    Raises EvaluationError for a file that is damaged, or holds another row than its name says.
    """
    rows = []
    for path in sorted(folder.glob("*.json")):
        row = _parsed(read_text(path), str(path), "delete it and run again")
        if file_name(row) != path.name:
            raise EvaluationError(f"{path} holds the row of {file_name(row)}; delete it and run again")
        rows.append(row)
    return sorted(rows, key=row_key)


def write_lines(rows: Iterable[Row], path: Path) -> None:
    """Write rows as JSONL: one a line, keys sorted, lines in the one order. Raises EvaluationError for doubles."""
    ordered = sorted(rows, key=row_key)
    _once_each(ordered, str(path))
    lines = (json.dumps(_plain(row), sort_keys=True, ensure_ascii=False, allow_nan=False) for row in ordered)
    write_text(path, "".join(f"{line}\n" for line in lines))


def read_lines(path: Path) -> list[Row]:
    """The rows that ``write_lines`` wrote. Raises EvaluationError naming the line that is damaged."""
    advice = "restore the file, or render it again from its suite's rows"
    lines = read_text(path).splitlines()
    rows = [_parsed(line, f"{path}, line {number}", advice) for number, line in enumerate(lines, start=1)]
    _once_each(rows, str(path))
    return rows


def merge_lines(rows: Sequence[Row], path: Path) -> None:
    """Write ``rows`` into a file of lines, in place of earlier figures of the same things, the others kept."""
    fresh = {row.identity for row in rows}
    kept = [row for row in read_lines(path) if row.identity not in fresh] if path.is_file() else []
    write_lines([*kept, *rows], path)


def replace_section(rows: Sequence[Row], section: str, path: Path) -> None:
    """Write ``rows`` into a file of lines as all that it holds of ``section``; those of other sections are kept."""
    kept = [row for row in read_lines(path) if row.section != section] if path.is_file() else []
    write_lines([*kept, *rows], path)


def _plain(row: Row) -> dict[str, object]:
    return row.model_dump(mode="json")


def _once_each(rows: Sequence[Row], where: str) -> None:
    seen: set[tuple[str, ...]] = set()
    for row in rows:
        if row.identity in seen:
            raise EvaluationError(f"{where}: two rows of one thing, {row.title}; keep the one that holds")
        seen.add(row.identity)


def _parsed(text: str, where: str, advice: str) -> Row:
    try:
        return Row.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise EvaluationError(f"{where} is no row ({place + ': ' if place else ''}{first['msg']}); {advice}") from error


def read_text(path: Path) -> str:
    """A whole file. Raises EvaluationError."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise EvaluationError(f"{path} cannot be read ({error}); restore it, or delete it and run again") from error


def write_text(path: Path, text: str) -> None:
    """Write a whole file, or leave what was there. Raises EvaluationError."""
    scratch = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_text(text, encoding="utf-8")
        scratch.replace(path)
    except OSError as error:
        raise EvaluationError(f"{path} cannot be written ({error.strerror}); give another folder") from error
