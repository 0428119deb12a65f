"""Evaluation of one purifier: what attacks leave of classifiers behind nothing, the baselines and the purifier."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from model_store.card import Card
from model_store.devices import place
from model_store.inference import STANDARD_MODES, InferenceMode, PurifierDraws
from model_store.store import LoadedModel
from robustness.adaptive import Method, aware
from robustness.adversaries import Threat, white_box
from robustness.attacks.pgd import PGD
from robustness.defences import BASELINES, Defence, NoDefence, Purification
from robustness.errors import VictimError
from robustness.judgement import Bench, Trial, attacked, clean_trial, judge
from robustness.observations import Measurements, Observation
from robustness.selfchecks import budget_warnings, gradient_warnings, masking_warnings
from robustness.victims.classification import Classifier

AWARE_METHODS: tuple[Method, ...] = ("BPDA", "full-gradient")


@dataclass(frozen=True)
class Plan:
    """What to attack with: budgets in /255, and how far the attackers who know the purifier go."""

    eps: tuple[int, ...]
    aware_photos: int
    aware_steps: int
    eot: int


def purifications(
    loaded: LoadedModel, modes: Sequence[str], device: torch.device, *, named: bool = False
) -> tuple[Purification, ...]:
    """The purifier in each of ``modes``, the card's default always among them and first; ``default`` stands for it.

    ``named``: tables call it by its name in the store, for a comparison of several.
    Raises VictimError for a model that is no purifier or a mode that neither the card nor the standard names.
    """
    card = loaded.card
    if card.task != "purifier":
        raise VictimError(f"{card.name} is a {card.task}, not a purifier; `nrp models list` shows the purifiers")
    known = named_modes(card)
    default = default_mode(card)
    module = place(loaded.module, device)
    wanted = dict.fromkeys([default, *(default if mode == "default" else mode for mode in modes)])
    unknown = [mode for mode in wanted if mode not in known]
    if unknown:
        raise VictimError(f"{card.name} has no mode {unknown[0]!r}; it has: default, {', '.join(sorted(known))}")
    called = card.name if named else ""
    return tuple(
        Purification(name, known[name], card.sha256, PurifierDraws(module, known[name]), called) for name in wanted
    )


def named_modes(card: Card) -> dict[str, InferenceMode]:
    """The standard modes and the card's, which win."""
    return {**STANDARD_MODES, **(card.inference.modes if card.inference else {})}


def default_mode(card: Card) -> str:
    """The name of the mode a purifier is run in unless told otherwise."""
    return card.inference.default if card.inference else "static"


def stages(plan: Plan, victims: int, defences: int) -> int:
    """How many stages ``measure_purifier`` goes through."""
    attacks = victims * len(plan.eps) * 2
    aware_attacks = victims * len(plan.eps) * len(AWARE_METHODS) if plan.aware_photos else 0
    return attacks + (1 + attacks) * defences + 2 * aware_attacks


def defences_with(purified: Sequence[Purification]) -> tuple[Defence, ...]:
    """All rows of a comparison."""
    return (NoDefence(), *BASELINES, *purified)


def measure_purifier(
    bench: Bench, victims: Sequence[Classifier], purified: Sequence[Purification], plan: Plan
) -> Measurements:
    """Every defence against attackers unaware of it, and the first of ``purified`` against those who know it."""
    warnings: list[str] = []
    observations: list[Observation] = []
    for trial in _trials(bench, victims, plan, warnings):
        for defence in defences_with(purified):
            observations += judge(bench, trial, defence)
    aware_rows = _measure_aware(bench, victims, purified[0], plan, warnings) if plan.aware_photos else []
    warnings += masking_warnings(observations, aware_rows)
    return Measurements(tuple(observations), tuple(aware_rows), tuple(warnings))


def measure_classifier(bench: Bench, victim: Classifier) -> Measurements:
    """Clean accuracy, undefended."""
    return Measurements(tuple(judge(bench, clean_trial(bench, (victim,)), NoDefence())), (), ())


def unaware_threats(victims: Sequence[Classifier], plan: Plan) -> Iterator[tuple[Classifier, Threat]]:
    """PGD-10 on each victim alone, at each budget, targeted and untargeted."""
    for victim in victims:
        for eps in plan.eps:
            for targeted in (True, False):
                yield victim, white_box(PGD(eps, targeted=targeted), victim)


def _trials(bench: Bench, victims: Sequence[Classifier], plan: Plan, warnings: list[str]) -> Iterator[Trial]:
    yield clean_trial(bench, victims)
    for victim, threat in unaware_threats(victims, plan):
        trial = attacked(bench, threat, (victim,))
        warnings += doubts(threat.title, trial)
        yield trial


def _measure_aware(
    bench: Bench, victims: Sequence[Classifier], defence: Purification, plan: Plan, warnings: list[str]
) -> list[Observation]:
    few = replace(bench, examples=bench.examples.first(plan.aware_photos))
    found: list[Observation] = []
    for victim in victims:
        for eps in plan.eps:
            for method in AWARE_METHODS:
                threat = aware(PGD(eps, iterations=plan.aware_steps), defence, victim, method, eot=plan.eot)
                trial = attacked(few, threat, (victim,))
                warnings += doubts(threat.title, trial)
                found += judge(few, trial, defence)
    return found


def doubts(title: str, trial: Trial) -> list[str]:
    """Reasons not to trust an attack's result."""
    return [*budget_warnings(title, trial.broken), *gradient_warnings(title, trial.blind)]
