"""The run of the suite `quick`: its sections one after another, each row on disk as soon as it is measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from robustness.observations import Observation
from robustness.progress import Progress
from robustness.suite.checks import check_suite
from robustness.suite.overview import knowing, unaware
from robustness.suite.session import Session
from robustness.suite.tables import TABLE_OF, transformations

Section = tuple[str, Callable[[], object]]


def run_suite(session: Session, progress: Progress) -> None:
    """Measure everything the session's sizes ask for; rows are in ``session.recorder``, doubts in its warnings."""
    sections = list(sections_of(session))
    for number, (title, measure) in enumerate(sections, start=1):
        progress.section(title, number, len(sections))
        measure()


def sections_of(session: Session) -> Iterator[Section]:
    """The parts of the suite that there are models and data for."""
    photos = session.arenas.get("classification")
    if photos is not None:
        seen: list[Observation] = []
        known: list[Observation] = []
        yield "unaware attackers", lambda: seen.extend(unaware(session, photos))
        yield "attackers who know", lambda: known.extend(knowing(session, photos, seen))
        yield "self-checks", lambda: check_suite(session, photos, seen, known)
    for task, table in TABLE_OF:
        arena = session.arenas.get(task)
        if arena is not None:
            few = arena.spread(session.sizes.scenes)
            yield table, lambda few=few, table=table: transformations(session, few, table)  # type: ignore[misc]
