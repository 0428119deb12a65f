"""The section `transfer`: attackers who follow another network than the one that is judged."""

from __future__ import annotations

from collections.abc import Sequence

from robustness.attacks.generated import PREFIX
from robustness.defences import NoDefence
from robustness.judgement import judge
from robustness.observations import Observation, Scenario
from robustness.suite.imagenet.contest import Contest, iterations_of, made_on
from robustness.suite.imagenet.jobs import JUDGING, Job
from robustness.suite.recorder import Place
from robustness.suite.threats import PERTURBERS, fooling_noise, generated, named

TABLE = "transfer"
PLACE = Place(TABLE)
# A gradient of VGG-16 up to conv3-3 costs about as much as five of the classifiers'.
VGG = 5.0


def jobs(contest: Contest) -> list[Job]:
    """Every classifier's adversaries on every other, those of features and generators on all, and the bars."""
    session, arena = contest.session, contest.everyone
    made: list[Job] = []
    groups: list[list[Observation]] = []

    def add(job: tuple[Job, list[Observation]]) -> None:
        made.append(job[0])
        groups.append(job[1])

    add(_clean(contest))
    for eps in contest.plan.transfer_eps:
        for source in arena.classifiers():
            others = [victim for victim in arena.classifiers() if victim.name != source.name]
            for key in contest.plan.transfer:
                attack = named(session, key, eps)
                add(contest.job(arena, made_on(attack, source), others, iterations_of(attack), PLACE))
        ssp = named(session, "SSP", eps)
        threat = session.surrogate.threat(ssp)
        add(contest.job(arena, threat, arena.classifiers(), VGG * iterations_of(ssp), PLACE))
        add(_fooled(contest, eps))
        for generator in generated(session, eps):
            add(contest.job(arena, generator, arena.classifiers(), 1, PLACE))
    return [*made, Job("CDA", 0.0, lambda: _lacking(contest)), contest.bars(groups, ("transfer",))]


def _clean(contest: Contest) -> tuple[Job, list[Observation]]:
    """What the bars compare with; its rows are those of the section `unaware`, so none are made."""
    session, arena, seen = contest.session, contest.photos, list[Observation]()

    def measure() -> Sequence[Observation]:
        trial = session.clean(contest.everyone)
        seen.extend(one for defence in contest.defences for one in judge(arena.bench, trial, defence))
        return seen

    return Job("clean", contest.plan.photos * JUDGING, measure), seen


def _fooled(contest: Contest, eps: int) -> tuple[Job, list[Observation]]:
    """FFF, whose noise takes long to make and is made when its turn comes."""
    session, arena, seen = contest.session, contest.everyone, list[Observation]()

    def measure() -> Sequence[Observation]:
        trial = session.attack(arena, fooling_noise(session, arena, eps), arena.classifiers())
        seen.extend(session.measure(arena, trial, contest.defences, PLACE))
        return seen

    making = VGG * contest.plan.fff_iterations if eps == min(contest.plan.transfer_eps) else 0.0
    return Job(f"FFF, eps {eps}/255 on {session.surrogate.name}", making + contest.plan.photos * JUDGING, measure), seen


def _lacking(contest: Contest) -> Sequence[Observation]:
    """Rows that say so where the store has no generator."""
    session, arena = contest.session, contest.everyone
    for name in sorted(set(PERTURBERS) - set(session.store.names())):
        reason = f"the store holds no generator {name}; train it with `nrp train perturber`"
        for eps in contest.plan.transfer_eps:
            scenario = Scenario(f"CDA {name.removeprefix(PREFIX)}", eps, "transfer")
            for victim in arena.victims:
                session.recorder.lack(PLACE, arena.task, scenario, victim.name, NoDefence(), reason)
    return ()
