"""The paper's figures 1 and 6 as rows: which layers fool, and how attacks grow with their iterations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from robustness.adversaries import Threat
from robustness.attacks.iterative import DIM, IFGSM, MIFGSM
from robustness.attacks.ssp import SSP
from robustness.defences import NoDefence
from robustness.judgement import judge
from robustness.observations import Observation
from robustness.scores import accuracy
from robustness.suite.recorder import Place
from robustness.suite.session import Arena, Session
from robustness.surrogates import load_surrogate
from robustness.victims.victim import Victim

# Where each network's features are taken, from the image to the answer.
LAYERS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("imagenette-vgg", ("features.2", "features.6", "features.13", "features.20", "features.27")),
    ("imagenette-resnet", ("stem", "stages.0", "stages.1", "stages.2", "stages.3")),
    ("imagenette-resnet-robust", ("stem", "stages.0", "stages.1", "stages.2", "stages.3")),
)
ITERATIONS = (1, 2, 5, 10, 20, 50, 100)
LAYER_ITERATIONS = 20
EPS = 16
COUNT = 50


def outsider(victims: Sequence[Victim]) -> Victim:
    """Whom figure 1 judges: the last that is none of the networks whose layers are attacked, if there is one."""
    attacked = {network for network, _ in LAYERS}
    return next((victim for victim in reversed(victims) if victim.name not in attacked), victims[-1])


def layers(session: Session, arena: Arena, victim: Victim) -> None:
    """Figure 1: the share of the victim's answers that SSP on each layer of other networks changes, at 16/255."""
    few = arena.first(COUNT)
    (before,) = judge(few.bench, session.clean(few, (victim,)), NoDefence())
    for network, names in LAYERS:
        if network not in session.store.names() or network == victim.name:
            continue
        for place, layer in enumerate(names):
            surrogate = load_surrogate(session.store, network, session.recorder.conditions.device, layer)
            attack = SSP(EPS, iterations=LAYER_ITERATIONS)
            record_fooling(
                session, few, surrogate.threat(attack), victim, Place("F1", network, place), layer=layer, before=before
            )


def record_fooling(
    session: Session, arena: Arena, threat: Threat, victim: Victim, place: Place, *, layer: str, before: Observation
) -> None:
    """Record the share of the victim's answers, those ``before`` the attack, that ``threat`` changes."""
    trial = session.attack(arena, threat, (victim,))
    (after,) = judge(arena.bench, trial, NoDefence())
    said, says = (seen.answers["log_probabilities"].argmax(1) for seen in (before, after))
    fooled = replace(after, score=replace(accuracy(said != says), metric="fooling rate"))
    evidence = session.evidence(arena, trial, NoDefence(), victim.name, {"layer": layer}, 0.0)
    session.recorder.add(place, arena.task, fooled, evidence)


def iterations(session: Session, arena: Arena, victim: Victim) -> None:
    """Figure 6: accuracy of a victim against the iterations of attacks made on the surrogate, at 16/255."""
    few = arena.first(COUNT)
    for count in ITERATIONS:
        for series, attack in (
            ("I-FGSM", IFGSM(EPS, iterations=count)),
            ("MI-FGSM", MIFGSM(EPS, iterations=count)),
            ("DIM", DIM(EPS, iterations=count)),
            ("SSP", SSP(EPS, iterations=count)),
        ):
            trial = session.attack(few, session.surrogate.threat(attack), (victim,))
            session.measure(few, trial, (NoDefence(),), Place("F6", series, count), iterations=count)
