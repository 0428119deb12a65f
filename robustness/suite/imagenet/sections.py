"""Sections: the parts of the suite, each of which may be run by itself, and whose rows replace its own earlier ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from robustness.errors import EvaluationError
from robustness.results.files import read_lines
from robustness.results.row import Row
from robustness.suite.imagenet import aware, paper, pictures, scenes, transfer, unaware
from robustness.suite.imagenet.assembly import TASKS
from robustness.suite.imagenet.contest import Contest
from robustness.suite.imagenet.jobs import Job

MAKERS: Mapping[str, Callable[[Contest], list[Job]]] = MappingProxyType(
    {
        "unaware": unaware.jobs,
        "transfer": transfer.jobs,
        "paper": paper.jobs,
        "scenes": scenes.jobs,
        "aware": aware.jobs,
    }
)


def chosen(names: Sequence[str]) -> tuple[str, ...]:
    """The sections named, all for none, in the suite's own order. Raises EvaluationError for an unknown one."""
    unknown = [name for name in names if name not in TASKS]
    if unknown:
        raise EvaluationError(f"no section {unknown[0]!r}; the suite imagenet has: {', '.join(TASKS)}")
    return tuple(name for name in TASKS if not names or name in names)


def jobs_of(section: str, contest: Contest, results: Path) -> list[Job]:
    """What a section does."""
    return pictures.jobs(contest, results) if section == "pictures" else MAKERS[section](contest)


def refuse_mixture(path: Path, sections: Sequence[str], contest: Contest) -> None:
    """Raise EvaluationError where other sections' rows in ``path`` were measured with other options.

    On one page, all of them must be of one seed, one number of photos and one state of each purifier.
    """
    if not path.is_file():
        return
    ours = {one.name: one.weights for one in contest.session.purified}
    for row in read_lines(path):
        if row.section in sections:
            continue
        other = _differs(row, contest, ours)
        if other:
            raise EvaluationError(
                f"{path} holds section {row.section} measured with another {other}; give the options of its command "
                "again, add that section to --section, or give another --results"
            )


def earlier_rows(path: Path, section: str, contest: Contest, fresh: Sequence[Row]) -> list[Row]:
    """The rows of ``section`` in ``path`` that no ``fresh`` one replaces: of the same command, seed and purifiers."""
    if not path.is_file():
        return []
    ours = {one.name: one.weights for one in contest.session.purified}
    anew, command = {row.identity for row in fresh}, contest.session.recorder.command
    return [
        row
        for row in read_lines(path)
        if row.section == section
        and row.command == command
        and row.identity not in anew
        and not _differs(row, contest, ours)
    ]


def _differs(row: Row, contest: Contest, ours: Mapping[str, str]) -> str:
    if row.seed != contest.session.recorder.conditions.seed:
        return "--seed"
    if row.settings.get("photos") != contest.plan.photos:
        return "--limit"
    known = row.weights.values()
    return f"state of {row.defence}" if row.defence in ours and known and ours[row.defence] not in known else ""
