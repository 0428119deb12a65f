"""Rows: what was measured, as lines of a file. The first line says on what machine and by which command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.bench.errors import BenchError

Measure = Literal["load", "loop", "single", "soak", "absent"]


class Run(BaseModel):
    """What all rows of a run share. ``bfloat16``: whether the device computes in it; versions by package."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    command: str
    purifier: str
    sha256: str
    mode: str
    side: int = Field(ge=1)
    device: str
    hardware: str
    cores: int = Field(ge=1)
    threads: int = Field(ge=1)
    bfloat16: bool
    rounds: int = Field(ge=1)
    batch: int = Field(ge=1)
    seed: int
    started: str
    minutes: float = Field(ge=0)
    versions: dict[str, str] = Field(default_factory=dict)


class Row(BaseModel):
    """``figures`` by name, the unit in the name. ``subject`` is an arm or a model, ``setting`` what it was put through.

    ``note`` says why there are no figures where there are none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    measure: Measure
    subject: str
    setting: str = ""
    round: int = Field(default=0, ge=0)
    figures: dict[str, float] = Field(default_factory=dict)
    note: str = ""


class Report(BaseModel):
    """One run and all its rows; ratios are only ever taken within one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: Run
    rows: tuple[Row, ...]

    def values(self, measure: Measure, subject: str, setting: str, figure: str) -> list[float]:
        """One figure of every round that has it."""
        return [value for _, value in self.by_round(measure, subject, setting, figure)]

    def by_round(self, measure: Measure, subject: str, setting: str, figure: str) -> list[tuple[int, float]]:
        """(round, figure)."""
        return [
            (row.round, row.figures[figure])
            for row in self.rows
            if (row.measure, row.subject, row.setting) == (measure, subject, setting) and figure in row.figures
        ]


def write_report(report: Report, path: Path) -> None:
    """Write the file; it appears whole or not at all. Raises BenchError."""
    lines = [report.run.model_dump(mode="json"), *(row.model_dump(mode="json") for row in report.rows)]
    write_whole(path, "".join(f"{json.dumps(line, sort_keys=True)}\n" for line in lines).encode())


def read_report(path: Path) -> Report:
    """Read the file back. Raises BenchError naming the line that is damaged."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise BenchError(f"{path} cannot be read: {error.strerror}; run `nrp bench` first") from error
    done = 0
    try:
        run = Run.model_validate_json(lines[0] if lines else "")
        rows: list[Row] = []
        for line in lines[1:]:
            done = len(rows) + 1
            rows.append(Row.model_validate_json(line))
    except ValidationError as error:
        raise BenchError(f"{path}, line {done + 1} is damaged; measure again") from error
    return Report(run=run, rows=tuple(rows))


def write_whole(path: Path, data: bytes) -> None:
    """Write a file in one step. Raises BenchError."""
    scratch = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_bytes(data)
        scratch.replace(path)
    except OSError as error:
        raise BenchError(f"{path} cannot be written: {error.strerror}; give another folder") from error
