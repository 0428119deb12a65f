"""Judging: independent decisions about each adversary, and what they amount to."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from robustness.aware.defended import Defended
from robustness.aware.material import Material
from robustness.aware.plan import AwarePlan
from robustness.cache import Tensors
from robustness.scores import Score, accuracy
from robustness.seeds import derive_seed

SINGLE, VOTE = "single draw", "vote"


@dataclass(frozen=True)
class Decisions:
    """``votes`` (N, R) bool: whether each of R independent decisions is right; a decision averages the class
    probabilities over the mode's draws. ``singles`` (N, R, D): the same of each draw alone.
    """

    votes: Tensor
    singles: Tensor

    @property
    def share(self) -> Tensor:
        """The share (N,) of right decisions."""
        return self.votes.double().mean(dim=1)

    @property
    def broken(self) -> Tensor:
        """Which photos (N,) every decision gets wrong."""
        return ~self.votes.any(dim=1)

    def first(self, count: int) -> Decisions:
        """Those of the first photos."""
        return Decisions(self.votes[:count], self.singles[:count])

    def scores(self) -> dict[str, Score]:
        """By series: a single draw, the vote (both as shares over all decisions), and the worst of R.

        The intervals are those of N photos. A deterministic defence has its vote alone.
        """
        rounds = self.votes.shape[1]
        found = {VOTE: accuracy(self.share)}
        if rounds > 1:
            found[SINGLE] = accuracy(self.singles.double().flatten(1).mean(dim=1))
            found[worst_of(rounds)] = accuracy(self.votes.all(dim=1))
        return found


def worst_of(rounds: int) -> str:
    """What the series is called that counts a photo as right where all decisions are."""
    return f"worst of {rounds}"


def worst_case(each: list[Decisions]) -> dict[str, Score]:
    """What the strongest attack on each photo leaves: the least share of right decisions, and of right single draws;
    for the worst of R, no wrong decision under any attack.
    """
    rounds = each[0].votes.shape[1]
    found = {VOTE: accuracy(torch.stack([one.share for one in each]).amin(dim=0))}
    if rounds > 1:
        singles = [one.singles.double().flatten(1).mean(dim=1) for one in each]
        found[SINGLE] = accuracy(torch.stack(singles).amin(dim=0))
        found[worst_of(rounds)] = accuracy(torch.stack([one.votes.all(dim=1) for one in each]).all(dim=0))
    return found


def rounds_of(defended: Defended, plan: AwarePlan) -> int:
    """How many decisions are made about a photo: one is enough where nothing is random."""
    return 1 if defended.mode.static else plan.decisions


def decision_seed(material: Material, turn: int, place: int) -> int:
    """The seed of a decision about the photo at ``place``.

    The same for every attack and for the clean photo, so that attacks differ by no luck of the draw. No attacker draws
    from seeds of this purpose, but where the noise is known.
    """
    return derive_seed(material.seed, "aware decision", turn, place)


def decide(material: Material, defended: Defended, plan: AwarePlan, pixels: Tensor, places: Tensor) -> Tensors:
    """``votes`` and ``singles`` of ``pixels`` uint8 (M, 3, H, W): the photos at ``places``, attacked or as they are."""
    images, labels = material.floats(pixels), material.labels(places).view(-1, 1)
    votes, singles = [], []
    for turn in range(rounds_of(defended, plan)):
        seeds = [decision_seed(material, turn, int(place)) for place in places]
        said = defended.draws(images, seeds, plan.judged, plan.chunk)
        votes.append((said.logsumexp(dim=1) - math.log(said.shape[1])).argmax(dim=1) == labels[:, 0])
        singles.append(said.argmax(dim=2) == labels)
    return {"votes": torch.stack(votes, dim=1).cpu(), "singles": torch.stack(singles, dim=1).cpu()}


def decisions(
    material: Material, defended: Defended, plan: AwarePlan, pixels: Tensor, broken: Tensor | None = None
) -> Decisions:
    """Decisions about ``pixels`` uint8 (N, 3, H, W), the first N photos after an attack; each batch is kept.

    None is made about photos that are ``broken`` (N,) already: all of theirs are wrong.
    """
    rounds = rounds_of(defended, plan)
    votes = torch.zeros(len(pixels), rounds, dtype=torch.bool)
    singles = torch.zeros(len(pixels), rounds, defended.mode.draws, dtype=torch.bool)
    for batch in material.batches(f"decisions of {defended.name}", len(pixels), plan.batch):
        places = batch if broken is None else batch[~broken[batch]]
        if not len(places):
            continue
        fingerprint: dict[str, object] = {
            "decisions about": replace(material.examples.pick(places), pixels=pixels[places]).digest,
            "places": places.tolist(),
            "defended": repr(defended),
            "rounds": rounds,
            "arithmetic": repr(plan.judged),
        }
        label = f"aware decisions {defended.victim} {defended.name} {int(batch[0])}"
        kept = material.recall(label, fingerprint, partial(decide, material, defended, plan, pixels[places], places))
        votes[places], singles[places] = kept["votes"], kept["singles"]
    return Decisions(votes, singles)


def clean_decisions(material: Material, defended: Defended, plan: AwarePlan) -> Decisions:
    """Decisions about the plan's photos as they are: the control of every figure."""
    pixels = material.examples.pixels[: plan.photos]
    return decisions(material, defended, plan, pixels)
