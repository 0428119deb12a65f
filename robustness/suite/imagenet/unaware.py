"""The section `unaware`: attackers who hold the classifier and know of no defence."""

from __future__ import annotations

from collections.abc import Sequence

from robustness.adversaries import white_box
from robustness.observations import Observation
from robustness.suite.imagenet.contest import Contest, iterations_of
from robustness.suite.imagenet.jobs import JUDGING, Job
from robustness.suite.recorder import Place
from robustness.suite.threats import named

TABLE = "unaware"
PLACE = Place(TABLE)


def jobs(contest: Contest) -> list[Job]:
    """Clean photos, each attack of the plan on each classifier, and what the bars make of it."""
    session, arena = contest.session, contest.everyone
    clean, found = clean_job(contest)
    made, groups = [clean], [found]
    for line in contest.plan.white:
        few = arena.first(max(1, round(line.share * contest.plan.photos)))
        for eps in line.eps:
            attack = named(session, line.key, eps)
            victims = [*contest.photos.classifiers(), *(contest.seen if eps in line.seen_eps else ())]
            for victim in victims:
                job, seen = contest.job(few, white_box(attack, victim), (victim,), iterations_of(attack), PLACE)
                made.append(job)
                groups.append(seen)
    return [*made, contest.bars(groups, ("none", "white box"))]


def clean_job(contest: Contest) -> tuple[Job, list[Observation]]:
    """Every classifier on the photos as they are, behind every defence."""
    session, arena = contest.session, contest.everyone
    seen: list[Observation] = []

    def measure() -> Sequence[Observation]:
        seen.extend(session.measure(arena, session.clean(arena), contest.defences, PLACE))
        return seen

    return Job("clean", contest.plan.photos * JUDGING, measure), seen
