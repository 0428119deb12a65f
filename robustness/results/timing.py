"""Timings: how long a defence takes over one image, as lines of a file that measuring again replaces one by one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from robustness.errors import EvaluationError
from robustness.results.cells import grid
from robustness.results.files import read_text, write_text
from robustness.results.order import defence_key, natural

# No SUITE.jsonl: the page reads it apart from the rows of figures.
FILE = "cost.jsonl"


class Timing(BaseModel):
    """Median ``milliseconds`` of ``repeats`` runs of ``defence`` over one image of ``side`` x ``side`` pixels.

    All draws of a mode are counted; ``quartiles`` are the middle half of the runs. ``trained`` False: random weights,
    which cost what trained ones do. ``architecture`` is empty for what is no network; ``hardware`` is the processor's
    or accelerator's own name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    defence: str
    role: Literal["baseline", "purifier"]
    architecture: str = ""
    trained: bool = True
    milliseconds: float = Field(gt=0)
    quartiles: tuple[float, float]
    side: int = Field(ge=1)
    repeats: int = Field(ge=1)
    threads: int = Field(ge=1)
    device: str
    hardware: str = ""
    precision: str
    versions: dict[str, str] = {}
    command: str = ""

    @property
    def setting(self) -> tuple[int, str, str, int, str]:
        """What timings must share to be compared."""
        return self.side, self.device, self.hardware, self.threads, self.precision

    @property
    def words(self) -> str:
        """The setting, for a person."""
        where = f"{self.threads} thread{'s' * (self.threads > 1)}, " if self.device == "cpu" else ""
        hardware = f"{self.device} ({self.hardware})" if self.hardware else self.device
        return f"{self.side} x {self.side} pixels, {hardware}, {where}{self.precision}"


def read_timings(path: Path) -> list[Timing]:
    """Every line of the file; none where there is no file. Raises EvaluationError naming the line that is damaged."""
    found = []
    for number, line in enumerate(read_text(path).splitlines() if path.is_file() else (), start=1):
        try:
            found.append(Timing.model_validate_json(line))
        except ValidationError as error:
            raise EvaluationError(f"{path}, line {number} is no timing; delete the line and measure again") from error
    return found


def keep_timings(timings: Iterable[Timing], path: Path) -> None:
    """Write ``timings`` into the file, in place of those of the same defence and setting, the others kept."""
    kept = {(one.defence, one.setting): one for one in (*read_timings(path), *timings)}
    lines = [json.dumps(one.model_dump(mode="json"), sort_keys=True) for one in sorted(kept.values(), key=_order)]
    write_text(path, "".join(f"{line}\n" for line in lines))


def _order(timing: Timing) -> tuple[object, ...]:
    return (timing.setting, defence_key(timing.defence, timing.role))


def timing_section(timings: Sequence[Timing]) -> list[str]:
    """The blocks of the page: a table a setting; none without timings."""
    parts = ["## What a defence costs", "Median of repeated runs, all defences in turn, one image at a time."]
    for setting in sorted({one.setting for one in timings}):
        mine = sorted((one for one in timings if one.setting == setting), key=_order)
        parts += [f"{mine[0].words}:", timing_table(mine)]
    return parts if timings else []


def timing_table(timings: Sequence[Timing]) -> str:
    """One line a defence."""
    lines = [
        (
            one.defence,
            one.architecture if one.trained else f"{one.architecture}, random weights",
            f"{one.milliseconds:.1f}",
            "{:.1f} to {:.1f}".format(*one.quartiles),
            str(one.repeats),
        )
        for one in sorted(timings, key=lambda one: (one.milliseconds, natural(one.defence)))
    ]
    return grid(("defence", "architecture", "ms an image", "middle half", "runs"), lines, words=2)
