"""The section `aware`: attackers who know the purifier, by the protocol of ``robustness.aware``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from robustness.aware.protocol import WORST
from robustness.aware.rows import measure_aware
from robustness.defences import NoDefence, Purification
from robustness.judgement import judge
from robustness.observations import Observation
from robustness.suite.imagenet.contest import Contest
from robustness.suite.imagenet.jobs import Job
from robustness.victims.classification import Classifier

TABLE = "aware"


def jobs(contest: Contest) -> list[Job]:
    """The whole protocol for every purifier before every classifier that no training has seen, and the bars."""
    plan = contest.plan.aware
    purifiers, victims = contest.session.purified, contest.photos.classifiers()
    cost = float(plan.photos * plan.steps * plan.eot * len(plan.main()))
    made: list[Job] = []
    worst: list[list[Observation]] = []
    for purifier in purifiers:
        for victim in victims:
            worst.append([])
            measure = partial(_measure, contest, purifier, victim, worst[-1])
            made.append(Job(f"{purifier.name} before {victim.name}", cost * purifier.draw_count, measure))
    return [*made, Job("clean", 0.0, partial(_clean, contest, worst)), contest.bars(worst, ("aware",))]


def _measure(
    contest: Contest, purifier: Purification, victim: Classifier, worst: list[Observation]
) -> Sequence[Observation]:
    session, plan = contest.session, contest.plan.aware
    arena = session.arenas["classification"].first(plan.photos)
    others = [one for one in session.purified if one.name != purifier.name]
    found = measure_aware(session, arena, victim, purifier, plan, sources=others, deadline=contest.deadline)
    # Of the strongest attack on each photo, decided by vote: the first series of its scores.
    worst.append(next(one for one in found if one.scenario.attack == WORST))
    return worst


def _clean(contest: Contest, worst: list[list[Observation]]) -> Sequence[Observation]:
    """What the bars take shares of: the same photos as they are, without a defence."""
    arena = contest.session.arenas["classification"].first(contest.plan.aware.photos)
    worst.append(judge(arena.bench, contest.session.clean(arena), NoDefence()))
    return worst[-1]
