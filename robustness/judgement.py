"""Judgement: what victims say of attacked images behind a defence, remembered so that a killed run goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robustness.adversaries import Threat, craft
from robustness.cache import Cache, Tensors
from robustness.conditions import Conditions
from robustness.defences import Defence
from robustness.examples import Examples
from robustness.observations import CLEAN, Observation, Scenario
from robustness.progress import Progress
from robustness.seeds import derive_seed
from robustness.victims.victim import Answers, Victim


@dataclass(frozen=True)
class Bench:
    """Everything a measurement stands on, its victims apart."""

    examples: Examples
    conditions: Conditions
    cache: Cache
    progress: Progress


@dataclass(frozen=True)
class Trial:
    """Images after one attack, and the victims to judge them. ``blind`` and ``broken`` (N,) are ``craft``'s."""

    scenario: Scenario
    examples: Examples
    victims: tuple[Victim, ...]
    fingerprint: Mapping[str, object]
    blind: Tensor
    broken: Tensor

    @property
    def title(self) -> str:
        """For progress."""
        return f"{self.scenario.title} on {', '.join(victim.name for victim in self.victims)}"


def clean_trial(bench: Bench, victims: Sequence[Victim]) -> Trial:
    """The images as they are."""
    sound = torch.zeros(len(bench.examples), dtype=torch.bool)
    return Trial(CLEAN, bench.examples, tuple(victims), {"images": bench.examples.digest}, sound, sound)


def attacked(bench: Bench, threat: Threat, victims: Sequence[Victim]) -> Trial:
    """The images after ``threat``, to be judged by ``victims``. A run that is killed loses one batch."""
    examples, conditions, progress = bench.examples, bench.conditions, bench.progress
    progress.begin(threat.title)
    fingerprint = threat.fingerprint(examples.digest, conditions)
    kept: list[int] = []

    def keep(start: int, make: Callable[[], Tensors]) -> Tensors:
        kept.append(start)
        return bench.cache.recall(f"{threat.label} from {start}", {**fingerprint, "from": start}, make)

    found = bench.cache.recall(threat.label, fingerprint, lambda: craft(threat, examples, conditions, progress, keep))
    for start in kept:  # the whole attack is kept now
        bench.cache.forget(f"{threat.label} from {start}", {**fingerprint, "from": start})
    adversaries = replace(examples, pixels=found["pixels"])
    return Trial(threat.scenario, adversaries, tuple(victims), fingerprint, found["blind"], found["broken"])


def judge(bench: Bench, trial: Trial, defence: Defence) -> list[Observation]:
    """What each of the trial's victims scores behind ``defence``."""
    bench.progress.begin(f"{defence.name}, {trial.title}")
    fingerprint = {
        "trial": dict(trial.fingerprint),
        "defence": repr(defence),
        "victims": [victim.identity for victim in trial.victims],
        "seed": bench.conditions.seed,
        "precision": bench.conditions.precision,
        "device": bench.conditions.device.type,
    }
    names = "+".join(victim.name for victim in trial.victims)
    label = f"{trial.scenario.attack} eps{trial.scenario.eps} {names} {defence.name}"
    found = bench.cache.recall(label, fingerprint, lambda: _answers(bench, trial, defence))
    truths = trial.examples.truths
    observations = []
    for place, victim in enumerate(trial.victims):
        prefix = f"{place}."
        answers = {key.removeprefix(prefix): value for key, value in found.items() if key.startswith(prefix)}
        score = victim.score(answers, truths)
        observations.append(Observation(trial.scenario, victim.name, defence.name, defence.role, score, answers))
    return observations


@torch.inference_mode()
def _answers(bench: Bench, trial: Trial, defence: Defence) -> Tensors:
    conditions, pixels = bench.conditions, trial.examples.pixels
    found: list[list[Answers]] = [[] for _ in trial.victims]
    chunk = max(1, conditions.batch // defence.draw_count)
    with bench.progress.bar(len(pixels)) as bar:
        for start in range(0, len(pixels), chunk):
            images = conditions.floats(pixels[start : start + chunk])
            # The attacker draws from seeds of another purpose, so it cannot know these.
            seeds = [derive_seed(conditions.seed, "defence", start + place) for place in range(len(images))]
            with conditions.autocast():
                versions = defence.draws(images, seeds)
                for victim, said in zip(trial.victims, found, strict=True):
                    said.append(victim.answer(versions))
            bar.update(len(images))
    return {
        f"{place}.{key}": torch.cat([part[key] for part in said]) for place, said in enumerate(found) for key in said[0]
    }
