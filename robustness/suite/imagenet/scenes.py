"""The section `scenes`: segmentation and detection behind every defence, tables 4, 6 and 7 of the NRP paper."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from robustness.observations import Observation
from robustness.suite.bars import judge_scenes
from robustness.suite.imagenet.contest import Contest
from robustness.suite.imagenet.jobs import JUDGING, Job
from robustness.suite.imagenet.transfer import VGG
from robustness.suite.session import Arena
from robustness.suite.tables import TABLE_OF, table_4, transformations

# A scene has three to four times the pixels of a photo.
LARGE = 3.0


def jobs(contest: Contest) -> list[Job]:
    """Tables 6 and 7, as far as there are scenes, and their bars; of detection, table 4."""
    session, made = contest.session, []
    for task, table in TABLE_OF:
        if task in session.arenas:
            arena = session.arenas[task].spread(contest.plan.scenes)
            attack = 4 * VGG * session.sizes.ssp_iterations  # two layers, two budgets
            made.append(_job(table, arena, attack + 5 * JUDGING, partial(transformations, session, arena, table)))
            made.append(Job(f"bars of {task}", 0.0, partial(_none, partial(judge_scenes, session, arena))))
            if task == "detection":
                made.append(_job("T4", arena, attack / 2, partial(_none, partial(table_4, session, arena))))
    return made


def _job(table: str, arena: Arena, cost: float, measure: Callable[[], Sequence[Observation]]) -> Job:
    scenes = len(arena.bench.examples)
    return Job(f"table {table[1:]}, {scenes} scenes", LARGE * scenes * cost, measure)


def _none(measure: Callable[[], None]) -> Sequence[Observation]:
    measure()
    return ()
