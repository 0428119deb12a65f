"""A session: the models, data and defences that a suite measures, and the one way in which it measures them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch

from model_store.store import ModelStore
from robustness.adversaries import Threat
from robustness.defences import Defence, Purification
from robustness.errors import VictimError
from robustness.evaluation import doubts
from robustness.judgement import Bench, Trial, attacked, clean_trial, judge
from robustness.observations import Observation
from robustness.results.row import Task
from robustness.suite.recorder import Evidence, Place, Recorder
from robustness.suite.sizes import Sizes
from robustness.surrogates import Surrogate, load_surrogate
from robustness.victims.classification import Classifier
from robustness.victims.victim import Victim


@dataclass(frozen=True)
class Arena:
    """The data of one task and the victims that are judged on it. ``source`` is what people call the data."""

    task: Task
    bench: Bench
    victims: tuple[Victim, ...]
    source: str = "images"

    def first(self, count: int) -> Arena:
        """The same on the first ``count`` examples."""
        if count >= len(self.bench.examples):
            return self
        return replace(self, bench=replace(self.bench, examples=self.bench.examples.first(count)))

    def spread(self, count: int) -> Arena:
        """The same on ``count`` examples spread over all: neighbouring scenes of a video are much the same."""
        there = len(self.bench.examples)
        if count >= there:
            return self
        places = torch.arange(count) * there // count
        return replace(self, bench=replace(self.bench, examples=self.bench.examples.pick(places)))

    def classifiers(self) -> tuple[Classifier, ...]:
        """The victims that classify."""
        return tuple(victim for victim in self.victims if isinstance(victim, Classifier))

    def victim(self, name: str) -> Victim:
        """The victim of that name. Raises VictimError."""
        for victim in self.victims:
            if victim.name == name:
                return victim
        known = ", ".join(victim.name for victim in self.victims)
        raise VictimError(f"no {self.task} victim {name!r} in this run; there are: {known}")


@dataclass(frozen=True)
class Session:
    """Everything a suite needs. ``purified`` are the purifier's modes, its default first; where purifiers are compared,
    those of each, which then say whose they are. ``surrogate`` is the network that transfer attacks follow;
    ``warnings`` grows while measuring.
    """

    sizes: Sizes
    store: ModelStore
    arenas: Mapping[Task, Arena]
    defences: tuple[Defence, ...]
    purified: tuple[Purification, ...]
    surrogate: Surrogate
    recorder: Recorder
    warnings: list[str] = field(default_factory=list)

    @cached_property
    def purifier(self) -> str:
        """The first purifier's name in the store."""
        return self.purified[0].purifier or next(
            card.name for card in self.store.cards() if card.sha256 == self.purified[0].weights
        )

    def classifiers(self) -> tuple[Classifier, ...]:
        """The classification victims."""
        arena = self.arenas.get("classification")
        return arena.classifiers() if arena else ()

    def surrogate_at(self, layer: str) -> Surrogate:
        """The surrogate with the features of another of its layers, named as a submodule. Raises VictimError."""
        return load_surrogate(self.store, self.surrogate.name, self.recorder.conditions.device, layer)

    def clean(self, arena: Arena, victims: Sequence[Victim] | None = None) -> Trial:
        """The arena's images as they are."""
        return clean_trial(arena.bench, arena.victims if victims is None else victims)

    def attack(self, arena: Arena, threat: Threat, victims: Sequence[Victim]) -> Trial:
        """The arena's images after ``threat``; whatever makes it a weak or an unfair attack becomes a warning.

        Surrogates and purifiers are differentiated in the precision of judgement, which is what a defender runs;
        victims alone in the attacker's.
        """
        bench = arena.bench
        if threat.attacker != "white box":
            lowered = replace(bench.conditions, attack_precision=bench.conditions.precision)
            bench = replace(bench, conditions=lowered)
        trial = attacked(bench, threat, victims)
        self.warnings.extend(doubts(threat.title, trial))
        return trial

    def measure(
        self, arena: Arena, trial: Trial, defences: Iterable[Defence], place: Place, **settings: object
    ) -> list[Observation]:
        """Judge ``trial`` behind each of ``defences``, and record it under ``place``."""
        found: list[Observation] = []
        for defence in defences:
            began = time.monotonic()
            seen = judge(arena.bench, trial, defence)
            seconds = time.monotonic() - began
            for observation in seen:
                evidence = self.evidence(arena, trial, defence, observation.victim, settings, seconds)
                self.recorder.add(place, arena.task, observation, evidence)
            found += seen
        return found

    def evidence(
        self, arena: Arena, trial: Trial, defence: Defence, victim: str, settings: dict[str, object], seconds: float
    ) -> Evidence:
        """What a figure of ``trial`` stands on."""
        weights = {v.name: v.identity for v in trial.victims if v.name == victim}
        if trial.scenario.surrogate is not None:
            weights[trial.scenario.surrogate] = str(trial.fingerprint["target"])
        if isinstance(defence, Purification):
            weights[defence.purifier or self.purifier] = defence.weights
        stated = {key: trial.fingerprint[key] for key in ("attack", "precision") if key in trial.fingerprint}
        data = {arena.source: arena.bench.examples.digest}
        return Evidence({**stated, **settings}, weights, data, seconds)
