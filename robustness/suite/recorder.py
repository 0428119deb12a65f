"""The recorder: observations become rows on disk as soon as they are made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from robustness.conditions import Conditions
from robustness.defences import Defence
from robustness.observations import Observation, Scenario
from robustness.results.files import write_row
from robustness.results.row import Row, Task

METRICS: Mapping[Task, str] = MappingProxyType(
    {"classification": "accuracy", "segmentation": "pixel accuracy", "detection": "mAP@0.5"}
)
NO_WEIGHTS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Place:
    """Where a row belongs: its table, and for a plot the line it is on and the abscissa."""

    table: str
    series: str = ""
    x: float | None = None


@dataclass(frozen=True)
class Evidence:
    """What a row stands on: the attack in full, sha256 of weights and data by name, seconds of this run."""

    settings: dict[str, object] = field(default_factory=dict)
    weights: dict[str, str] = field(default_factory=dict)
    data: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0


class Recorder:
    """Rows of one run of a suite, in order, each also a file under ``folder``.

    ``section`` is the part of the suite that is being measured, and ``facts`` go into the settings of every row.
    """

    def __init__(
        self, suite: str, folder: Path, command: str, conditions: Conditions, versions: dict[str, str]
    ) -> None:
        self.section = ""
        self.facts: dict[str, object] = {}
        self.suite, self.folder, self.command = suite, folder, command
        self.conditions, self.versions = conditions, versions
        self.rows: list[Row] = []

    def add(self, place: Place, task: Task, seen: Observation, evidence: Evidence) -> Row:
        """Keep what was observed."""
        score, scenario = seen.score, seen.scenario
        return self.keep(
            Row(
                suite=self.suite,
                section=self.section,
                table=place.table,
                series=place.series,
                x=place.x,
                task=task,
                attacker=scenario.attacker,
                attack=scenario.attack,
                eps=scenario.eps,
                surrogate=scenario.surrogate,
                victim=seen.victim,
                defence=seen.defence,
                role=seen.role,
                metric=score.metric,
                percent=round(score.percent, 3),
                interval=(round(score.interval[0], 3), round(score.interval[1], 3)),
                count=score.count,
                settings={**evidence.settings, **self.facts},
                weights=evidence.weights,
                data=evidence.data,
                versions=self.versions,
                device=self.conditions.device.type,
                precision=self.conditions.precision,
                seed=self.conditions.seed,
                command=self.command,
                seconds=round(evidence.seconds, 2),
            )
        )

    def lack(
        self,
        place: Place,
        task: Task,
        scenario: Scenario,
        victim: str,
        defence: Defence,
        reason: str,
        weights: Mapping[str, str] = NO_WEIGHTS,
    ) -> Row:
        """Keep a row that says why there is no figure."""
        return self.keep(
            Row(
                suite=self.suite,
                section=self.section,
                table=place.table,
                series=place.series,
                x=place.x,
                task=task,
                attacker=scenario.attacker,
                attack=scenario.attack,
                eps=scenario.eps,
                surrogate=scenario.surrogate,
                victim=victim,
                defence=defence.name,
                role=defence.role,
                metric=METRICS[task],
                percent=None,
                count=0,
                missing=reason,
                settings=dict(self.facts),
                weights=dict(weights),
                versions=self.versions,
                device=self.conditions.device.type,
                precision=self.conditions.precision,
                seed=self.conditions.seed,
                command=self.command,
            )
        )

    def keep(self, row: Row) -> Row:
        """Keep a row made elsewhere."""
        write_row(row, self.folder)
        self.rows.append(row)
        return row
