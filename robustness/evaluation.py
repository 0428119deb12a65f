"""Evaluation: what attacks leave of the victims' accuracy, behind nothing, the baselines and a purifier."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from model_store.card import Card
from model_store.devices import place
from model_store.inference import STANDARD_MODES, InferenceMode, PurifierDraws
from model_store.store import LoadedModel
from robustness.adaptive import METHODS, aware_attack, suspicions
from robustness.adversaries import Attack, craft, doubts
from robustness.attacks import Objective
from robustness.cache import Cache, Fingerprint, Tensors
from robustness.conditions import Conditions
from robustness.defences import BASELINES, Defence, NoDefence, Purification
from robustness.errors import VictimError
from robustness.observations import CLEAN, Measurements, Observation, Scenario
from robustness.photos import Photos
from robustness.progress import Progress
from robustness.seeds import derive_seed
from robustness.victims import Victim

ITERATIONS = 10
KINDS = ("targeted", "untargeted")


@dataclass(frozen=True)
class Plan:
    """What to attack with: budgets in /255, and how far the attackers who know the purifier go."""

    eps: tuple[int, ...]
    aware_photos: int
    aware_steps: int
    eot: int


@dataclass(frozen=True)
class Bench:
    """Everything a measurement stands on."""

    photos: Photos
    victims: tuple[Victim, ...]
    conditions: Conditions
    cache: Cache
    progress: Progress


@dataclass(frozen=True)
class Trial:
    """Photos after one attack (uint8), and the victims to judge them."""

    scenario: Scenario
    pixels: Tensor
    labels: Tensor
    victims: tuple[Victim, ...]
    fingerprint: Fingerprint


def purifications(loaded: LoadedModel, modes: Sequence[str], device: torch.device) -> tuple[Purification, ...]:
    """The purifier in each of ``modes``, the card's default always among them and first; ``default`` stands for it.

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
    return tuple(Purification(name, known[name], card.sha256, PurifierDraws(module, known[name])) for name in wanted)


def named_modes(card: Card) -> dict[str, InferenceMode]:
    """The standard modes and the card's, which win."""
    return {**STANDARD_MODES, **(card.inference.modes if card.inference else {})}


def default_mode(card: Card) -> str:
    """The name of the mode a purifier is run in unless told otherwise."""
    return card.inference.default if card.inference else "static"


def stages(plan: Plan, victims: int, defences: int) -> int:
    """How many stages ``measure_purifier`` goes through."""
    attacks = victims * len(plan.eps) * len(KINDS)
    aware = victims * len(plan.eps) * len(METHODS) if plan.aware_photos else 0
    return attacks + (1 + attacks) * defences + 2 * aware


def defences_with(purified: Sequence[Purification]) -> tuple[Defence, ...]:
    """All rows of a comparison."""
    return (NoDefence(), *BASELINES, *purified)


def measure_purifier(bench: Bench, purified: Sequence[Purification], plan: Plan) -> Measurements:
    """Every defence against attackers unaware of it, and the first of ``purified`` against those who know it."""
    warnings: list[str] = []
    observations: list[Observation] = []
    for trial in _trials(bench, plan, warnings):
        for defence in defences_with(purified):
            observations += judge(bench, trial, defence)
    aware = _measure_aware(bench, purified[0], plan, warnings) if plan.aware_photos else []
    warnings += suspicions(observations, aware)
    return Measurements(tuple(observations), tuple(aware), tuple(warnings))


def measure_classifier(bench: Bench) -> Measurements:
    """Clean accuracy, undefended."""
    return Measurements(tuple(judge(bench, _clean(bench), NoDefence())), (), ())


def judge(bench: Bench, trial: Trial, defence: Defence) -> list[Observation]:
    """What each of the trial's victims gets right behind ``defence``."""
    names = [victim.name for victim in trial.victims]
    bench.progress.begin(f"{defence.name}, {trial.scenario.title}")
    fingerprint = {
        "trial": dict(trial.fingerprint),
        "defence": repr(defence),
        "victims": [victim.card.sha256 for victim in trial.victims],
        "seed": bench.conditions.seed,
        "precision": bench.conditions.precision,
        "device": bench.conditions.device.type,
    }
    label = f"{trial.scenario.attack} eps{trial.scenario.eps} {'+'.join(names)} {defence.name}"
    found = bench.cache.recall(label, fingerprint, lambda: _predict(bench, trial, defence))
    return [
        Observation(trial.scenario, name, defence.name, defence.role, found[f"predictions.{place}"] == trial.labels)
        for place, name in enumerate(names)
    ]


@torch.inference_mode()
def _predict(bench: Bench, trial: Trial, defence: Defence) -> Tensors:
    conditions = bench.conditions
    predictions: list[list[Tensor]] = [[] for _ in trial.victims]
    chunk = max(1, conditions.batch // defence.draw_count)
    with bench.progress.bar(len(trial.pixels)) as bar:
        for start in range(0, len(trial.pixels), chunk):
            images = conditions.floats(trial.pixels[start : start + chunk])
            # The attacker draws from seeds of another purpose, so it cannot know these.
            seeds = [derive_seed(conditions.seed, "defence", start + place) for place in range(len(images))]
            with conditions.autocast():
                versions = defence.draws(images, seeds)
                for victim, found in zip(trial.victims, predictions, strict=True):
                    found.append(victim.log_probabilities(versions).argmax(dim=1).cpu())
            bar.update(len(images))
    return {f"predictions.{place}": torch.cat(found) for place, found in enumerate(predictions)}


def unaware_attacks(victims: Sequence[Victim], plan: Plan) -> Iterator[tuple[Victim, Attack]]:
    """PGD on each victim alone, at each budget, targeted and untargeted."""
    for victim in victims:
        for eps in plan.eps:
            for kind in KINDS:
                name = f"PGD-{ITERATIONS} {kind}"

                def logits(_: torch.Generator, victim: Victim = victim) -> Objective:
                    return victim.logits

                sha256 = victim.card.sha256
                yield victim, Attack(name, victim.name, sha256, eps, ITERATIONS, logits, targeted=kind == "targeted")


def _trials(bench: Bench, plan: Plan, warnings: list[str]) -> Iterator[Trial]:
    yield _clean(bench)
    for victim, attack in unaware_attacks(bench.victims, plan):
        yield _attacked(bench, victim, attack, warnings)


def _clean(bench: Bench) -> Trial:
    return Trial(CLEAN, bench.photos.pixels, bench.photos.labels, bench.victims, {"photos": bench.photos.digest})


def _attacked(bench: Bench, victim: Victim, attack: Attack, warnings: list[str]) -> Trial:
    photos, conditions, progress = bench.photos, bench.conditions, bench.progress
    progress.begin(attack.title)
    fingerprint = attack.fingerprint(photos.digest, conditions)
    found = bench.cache.recall(attack.label, fingerprint, lambda: craft(attack, photos, conditions, progress))
    warnings += doubts(attack, found)
    return Trial(attack.scenario, found["pixels"], photos.labels, (victim,), fingerprint)


def _measure_aware(bench: Bench, defence: Purification, plan: Plan, warnings: list[str]) -> list[Observation]:
    few = replace(bench, photos=bench.photos.first(plan.aware_photos))
    found: list[Observation] = []
    for victim in bench.victims:
        for eps in plan.eps:
            for method in METHODS:
                attack = aware_attack(method, defence, victim, eps=eps, steps=plan.aware_steps, eot=plan.eot)
                found += judge(few, _attacked(few, victim, attack, warnings), defence)
    return found
