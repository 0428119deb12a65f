"""The run of a suite: its sections one after another, each row on disk as soon as it is measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from robustness.observations import Observation
from robustness.progress import Progress
from robustness.suite.bars import judge_photos, judge_scenes
from robustness.suite.checks import check_suite
from robustness.suite.figures import iterations, layers, outsider
from robustness.suite.overview import knowing, unaware
from robustness.suite.session import Session
from robustness.suite.tables import TABLE_OF, table_1, table_3, table_4, table_5, transformations

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
        leading = photos.led(session.sizes.overview_victims)
        seen: list[Observation] = []
        known: list[Observation] = []
        yield "unaware attackers", lambda: seen.extend(unaware(session, leading))
        yield "attackers who know", lambda: known.extend(knowing(session, leading, seen))
        yield "self-checks", lambda: check_suite(session, photos, seen, known)
        if session.sizes.compares:
            yield "bars", lambda: judge_photos(session, leading, (*seen, *known))
    for task, table in TABLE_OF:
        arena = session.arenas.get(task)
        if arena is not None:
            few = arena.spread(session.sizes.scenes)
            if session.sizes.compares:
                yield f"{task} bars", lambda few=few: judge_scenes(session, few)  # type: ignore[misc]
            else:
                yield table, lambda few=few, table=table: transformations(session, few, table)  # type: ignore[misc]
    if not session.sizes.paper_tables:
        return
    if photos is not None:
        yield "table 1", lambda: table_1(session, photos)
        yield "table 3", lambda: table_3(session, photos)
        yield "table 5", lambda: table_5(session, photos)
        yield "figure 1", lambda: layers(session, photos, outsider(photos.victims))
        yield "figure 6", lambda: iterations(session, photos, photos.victims[0])
    scenes = session.arenas.get("detection")
    if scenes is not None:
        yield "table 4", lambda: table_4(session, scenes)
