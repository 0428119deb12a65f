"""The section `paper`: the NRP paper's tables 1, 3 and 5 and its figures 1 and 6, on its own photos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from robustness.adaptive import Through, aware
from robustness.adversaries import Threat, white_box
from robustness.attacks.attack import Attack
from robustness.attacks.iterative import DIM, IFGSM, MIFGSM
from robustness.attacks.registry import ATTACKS
from robustness.attacks.scattering import FSA
from robustness.attacks.ssp import SSP
from robustness.defences import Defence, NoDefence, Purification
from robustness.judgement import judge
from robustness.observations import CLEAN, Observation, Scenario
from robustness.suite.figures import record_fooling
from robustness.suite.imagenet.contest import Contest, made_on
from robustness.suite.imagenet.jobs import Job
from robustness.suite.imagenet.transfer import VGG
from robustness.suite.recorder import Place
from robustness.suite.session import Arena
from robustness.suite.tables import PAPER_EPS, TARGETED, UNDEFENDED, table_5
from robustness.suite.threats import named
from robustness.surrogates import load_surrogate
from robustness.victims.classification import Classifier

AWARE = ", purifier-aware"
TRAINED = "adversarial training"


def jobs(contest: Contest) -> list[Job]:
    """Table by table, then figure by figure."""
    return [*_table_1(contest), *_table_3(contest), _table_5(contest), *_figure_1(contest), *_figure_6(contest)]


def _table_1(contest: Contest) -> list[Job]:
    """Targeted PGD-10 at 16/255 at the photos' own target classes: undefended, behind each purifier, through it."""
    arena, attack = contest.photos, ATTACKS[TARGETED](PAPER_EPS)
    few = arena.first(contest.plan.known_photos)
    made: list[Job] = []
    for victim in arena.classifiers():
        unaware = white_box(attack, victim)
        for series, defence in (("original", NoDefence()), *((each.name, each) for each in contest.session.purified)):
            made.append(_attacked(contest, arena, series, unaware, victim, defence))
        for each in contest.session.purified:
            known = aware(attack, each, victim, "BPDA", eot=contest.plan.known_draws)
            known = replace(known, attack=Through(attack, TARGETED))  # under the paper's name: the series says the rest
            made.append(_attacked(contest, few, f"{each.name}{AWARE}", known, victim, each))
    return [*made, Job(TRAINED, 0.0, partial(_untrained, contest))]


def _attacked(contest: Contest, arena: Arena, series: str, threat: Threat, victim: Classifier, defence: Defence) -> Job:
    session = contest.session

    def measure() -> Sequence[Observation]:
        found: list[Observation] = []
        for trial in (session.clean(arena, (victim,)), session.attack(arena, threat, (victim,))):
            found += session.measure(arena, trial, (defence,), Place("T1", series))
        return found[1:]

    draws = contest.plan.known_draws if isinstance(defence, Purification) else 1
    return Job(f"table 1, {series}, {victim.name}", float(len(arena.bench.examples) * 10 * draws), measure)


def _untrained(contest: Contest) -> Sequence[Observation]:
    """Rows that say that there is no adversarially trained network to compare with."""
    reason = "no adversarially trained network of ImageNet's classes is at hand, and training one takes GPU-weeks"
    for scenario in (CLEAN, Scenario(TARGETED, PAPER_EPS)):
        contest.session.recorder.lack(Place("T1", TRAINED), "classification", scenario, "any", NoDefence(), reason)
    return ()


def _table_3(contest: Contest) -> list[Job]:
    """FSA and SSP on the features of the surrogate, before every classifier."""
    session, arena = contest.session, contest.everyone
    made = []
    for attack in (FSA(PAPER_EPS, space="features"), named(session, "SSP", PAPER_EPS)):
        threat = session.surrogate.threat(attack)
        made.append(_undefended(contest, arena, threat, arena.classifiers(), Place("T3"), _steps(attack) * VGG))
    return made


def _undefended(
    contest: Contest, arena: Arena, threat: Threat, victims: Sequence[Classifier], place: Place, steps: float
) -> Job:
    session = contest.session

    def measure() -> Sequence[Observation]:
        settings = {} if place.x is None else {"iterations": int(place.x)}
        return session.measure(arena, session.attack(arena, threat, victims), UNDEFENDED, place, **settings)

    return Job(f"{place.table}, {threat.title}", steps * len(arena.bench.examples), measure)


def _table_5(contest: Contest) -> Job:
    def measure() -> Sequence[Observation]:
        table_5(contest.session, contest.everyone)
        return ()

    return Job("table 5", 1.0, measure)


def _figure_1(contest: Contest) -> list[Job]:
    """SSP on each layer of the plan's networks: the share of the first classifier's answers that it changes."""
    session, arena = contest.session, contest.photos.first(contest.plan.figure_photos)
    victim = arena.classifiers()[0]

    def fool(network: str, place: int, layer: str) -> Sequence[Observation]:
        surrogate = load_surrogate(session.store, network, session.recorder.conditions.device, layer)
        threat = surrogate.threat(SSP(PAPER_EPS, iterations=contest.plan.layer_iterations))
        (before,) = judge(arena.bench, session.clean(arena, (victim,)), NoDefence())
        where = Place("F1", network, place)
        record_fooling(session, arena, threat, victim, where, layer=layer, before=before)
        return ()

    cost = VGG * contest.plan.layer_iterations * len(arena.bench.examples)
    return [
        Job(f"figure 1, {network} {layer}", cost, partial(fool, network, place, layer))
        for network, layers in contest.plan.layers
        if network in session.store.names()
        for place, layer in enumerate(layers)
    ]


def _figure_6(contest: Contest) -> list[Job]:
    """Accuracy of the first classifier against the iterations of attacks made on another, and of SSP on features."""
    arena = contest.photos.first(contest.plan.figure_photos)
    victim, *others = arena.classifiers()
    source = contest.seen[-1] if contest.seen else (*others, victim)[0]
    made = []
    for count in contest.plan.counts:
        for series, attack in (
            ("I-FGSM", IFGSM(PAPER_EPS, iterations=count)),
            ("MI-FGSM", MIFGSM(PAPER_EPS, iterations=count)),
            ("DIM", DIM(PAPER_EPS, iterations=count)),
        ):
            where = Place("F6", series, count)
            made.append(_undefended(contest, arena, made_on(attack, source), (victim,), where, count))
        threat = contest.session.surrogate.threat(SSP(PAPER_EPS, iterations=count))
        made.append(_undefended(contest, arena, threat, (victim,), Place("F6", "SSP", count), VGG * count))
    return made


def _steps(attack: Attack) -> float:
    return float(getattr(attack, "iterations", 1))
