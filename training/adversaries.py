"""The adversaries that a purifier is trained on: a bank made once, those of a step, and those that know the purifier.

All are attacks of ``robustness.attacks`` on a member of the ensemble, of 8-bit photos and rounded to 8 bits.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from model_store.pixels import to_bytes, to_float
from robustness.attacks.attack import Attack, Knowledge
from robustness.attacks.iterative import DIM, MIFGSM
from robustness.attacks.pgd import PGD
from robustness.attacks.single_step import FGSM
from robustness.attacks.ssp import SSP
from training.ensemble import Ensemble, Member, Network, Target
from training.errors import OutOfTimeError
from training.loop import generator_at
from training.losses import feature_distances, prediction_shifts
from training.photos import Source
from training.place import Place
from training.precision import autocast
from training.purifier_recipe import AdaptiveRecipe, AdversaryKind, AdversaryRecipe, PurifierRecipe
from training.recipe import Precision, recipe_json

FOLDER = "adversaries"
OUT_OF_TIME = "time was up before all adversaries were made; run the same command again to go on"
RANDOM_STARTS: frozenset[AdversaryKind] = frozenset({"ssp", "prediction"})


@dataclass(frozen=True)
class Turn:
    """What one batch is attacked with: ``eps`` in /255; ``layer`` is where SSP takes the features of ``member``."""

    kind: AdversaryKind
    eps: float
    member: Member
    layer: str


def budget(recipe: AdversaryRecipe, place: int, generator: torch.Generator) -> float:
    """The budget in /255 of batch ``place``: the next of the cycle, or drawn where the recipe has a range."""
    if not recipe.eps_high:
        return recipe.eps[place % len(recipe.eps)]
    share = float(torch.rand((), generator=generator))
    return recipe.eps_low + share * (recipe.eps_high - recipe.eps_low)


def turn_at(recipe: AdversaryRecipe, number: int, ensemble: Ensemble, generator: torch.Generator) -> Turn:
    """Turn ``number``: the kind changes with each, then the budget, then the network and its layer."""
    rest, place = divmod(number, len(recipe.kinds))
    kind = recipe.kinds[place]
    later = rest if recipe.eps_high else rest // len(recipe.eps)
    if kind == "ssp":
        member, layer = ensemble.layered[later % len(ensemble.layered)]
    else:
        member, layer = ensemble.answering[later % len(ensemble.answering)], ""
    return Turn(kind, budget(recipe, rest, generator), member, layer)


def attack_of(turn: Turn, recipe: AdversaryRecipe) -> Attack:
    """The attack of a turn."""
    eps, step, iterations = turn.eps, max(1.0, turn.eps * recipe.step_share), recipe.iterations
    if turn.kind == "ssp":
        return SSP(eps, step, iterations, recipe.start)
    if turn.kind == "prediction":
        return PGD(eps, step=step, iterations=iterations, start=recipe.start)
    if turn.kind == "momentum":
        return MIFGSM(eps, step, iterations)
    if turn.kind == "diverse":
        return DIM(eps, step, iterations)
    return FGSM(eps)


def knowledge_of(turn: Turn, images: Tensor, precision: Precision) -> Knowledge:
    """What the attack of a turn may use: features to move away from, or the loss of the network's own answer."""
    member = turn.member
    if turn.kind == "ssp":
        return Knowledge(features=in_precision(lambda seen: member.features(seen, turn.layer), precision))
    answer = in_precision(member.logits, precision)
    with torch.no_grad():
        own = answer(images).argmax(1)
    return Knowledge(loss=lambda seen: F.cross_entropy(answer(seen).float(), own, reduction="none"))


def in_precision(network: Network, precision: Precision) -> Network:
    """``network`` in ``precision``."""

    def run(images: Tensor) -> Tensor:
        with autocast(images.device, precision):
            return network(images)

    return run


def attacked(
    clean: Tensor, number: int, recipe: AdversaryRecipe, ensemble: Ensemble, generator: torch.Generator, before: int = 0
) -> Tensor:
    """Adversaries, uint8 (N, 3, S, S), of ``clean``, which lies where the ensemble does, by turn ``number``.

    ``before`` images of the same batch are attacked elsewhere: random starts are drawn an image after another, so
    leaving theirs out gives these images what one worker would have given them.
    """
    turn = turn_at(recipe, number, ensemble, generator)
    images = to_float(clean).to(memory_format=torch.channels_last)
    if before and turn.kind in RANDOM_STARTS:
        torch.rand(before, *clean.shape[1:], generator=generator)
    found = attack_of(turn, recipe)(images, knowledge_of(turn, images, recipe.precision), generator)
    return within(to_bytes(found), clean, turn.eps)


def within(adversaries: Tensor, clean: Tensor, eps: float) -> Tensor:
    """``adversaries`` at most ``eps`` levels from ``clean`` (uint8 all): rounding may leave a budget of 5.7 by 0.3."""
    most = math.floor(eps + 1e-6)
    moved = (adversaries.short() - clean.short()).clamp(-most, most)
    return (clean.short() + moved).to(torch.uint8)


def attack(clean: Tensor, number: int, recipe: AdversaryRecipe, ensemble: Ensemble, seed: int) -> Tensor:
    """Adversaries of the bank's batch ``number``, uint8 (N, 3, S, S) on the CPU, as ``clean`` is."""
    device = next(ensemble.members[0].module.parameters()).device
    return attacked(clean.to(device), number, recipe, ensemble, generator_at(seed, number)).cpu()


def attacked_through(
    clean: Tensor,
    defended: Network,
    target: Target,
    eps: float,
    recipe: AdaptiveRecipe,
    precision: Precision,
    generator: torch.Generator,
) -> Tensor:
    """Adversaries, uint8 (N, 3, S, S), of ``clean`` by PGD through ``defended``, a purifier with its noise.

    ``target``: the network behind it and, where features are to be moved, its layer. ``defended`` may draw noise of
    its own, anew for each step; the purifier in it should want no gradient of its parameters.
    """
    member, layer = target
    wanted = recipe.objective == "feature"
    network = in_precision((lambda seen: member.features(seen, layer)) if wanted else member.logits, precision)
    apart = feature_distances if wanted else prediction_shifts
    images = to_float(clean).to(memory_format=torch.channels_last)
    with torch.no_grad():
        before = network(images).float()

    def height(seen: Tensor) -> Tensor:
        return apart(network(defended(seen)).float(), before)

    pgd = PGD(eps, step=max(1.0, eps * recipe.step_share), iterations=recipe.iterations, start=recipe.start)
    return within(to_bytes(pgd(images, Knowledge(loss=height), generator)), clean, eps)


@dataclass
class Tally:
    """How many adversaries were made, and in how many ``seconds``."""

    count: int = 0
    seconds: float = 0.0

    @contextmanager
    def counting(self, count: int, device: torch.device) -> Iterator[None]:
        """Count what is made meanwhile; a GPU is waited for, since it answers before it has worked."""
        began = _now(device)
        yield
        self.seconds += _now(device) - began
        self.count += count

    @property
    def rate(self) -> float:
        """Adversaries per second; 0 before the first."""
        return self.count / self.seconds if self.seconds else 0.0


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.monotonic()


@dataclass(frozen=True)
class Bank:
    """``pairs`` (N, 2, 3, S, S) uint8 of clean photo and adversary, and the ``seconds`` that making them took."""

    pairs: Tensor
    seconds: float

    @staticmethod
    def empty(side: int) -> Bank:
        """No pairs: for recipes that make adversaries as they go, or none."""
        return Bank(torch.empty(0, 2, 3, side, side, dtype=torch.uint8), 0.0)

    def at(self, step: int) -> Bank:
        """The bank at ``step``: always this one."""
        del step
        return self

    def facts(self) -> dict[str, float]:
        """How many there are and how many a second were made."""
        if not len(self.pairs):
            return {}
        rate = len(self.pairs) / self.seconds if self.seconds else 0.0
        return {"adversaries in the bank": len(self.pairs), "adversaries per second, bank": rate}


@dataclass(frozen=True)
class Originals:
    """The photos that a bank is made of: those of ``source`` at the indices ``among``, resampled once to its size."""

    source: Source
    among: Tensor

    def drawn(self, count: int, seed: int, turn: int = 0) -> Tensor:
        """Indices of ``count`` of them, or all, drawn without replacement, turn after ``turn``, until each was drawn.

        The few that a last turn would be short of are left out before all are shuffled anew.
        """
        count = min(count, len(self.among))
        epoch, place = divmod(turn, len(self.among) // count)
        order = torch.randperm(len(self.among), generator=torch.Generator().manual_seed(seed + epoch))
        return self.among[order[place * count : (place + 1) * count]]

    def squares(self, indices: Tensor, side: int) -> Tensor:
        """Those at ``indices``: uint8 (N, 3, side, side)."""
        return torch.stack([self.source.square(index, side) for index in indices.tolist()])


class Banks:
    """The bank of each step: made anew, of other photos, every ``refresh_every`` steps of the recipe.

    Rounds are kept a batch a file in the place's folder, with names that state what made them, so a killed run goes on
    where it was and another recipe, network or photo never finds a stale one; those that are no longer needed are
    removed. Of several workers the leader makes them, the others read what it wrote.
    """

    def __init__(self, recipe: PurifierRecipe, originals: Originals, ensemble: Ensemble, place: Place) -> None:
        self.recipe, self.originals, self.place = recipe, originals, place
        self.ensemble = ensemble.on(place.device, compiled=recipe.compiled)
        self.rounds: dict[int, Bank] = {}
        self.current = Bank.empty(recipe.adversaries.side)

    def at(self, step: int) -> Bank:
        """The bank at ``step``. After the deadline no batch is begun: that raises OutOfTimeError."""
        wanted = self.recipe.adversaries
        latest = step // wanted.refresh_every if wanted.refresh_every else 0
        numbers = range(max(0, latest - wanted.rounds_kept + 1), latest + 1)
        if list(numbers) != list(self.rounds):
            self.rounds = {number: self.rounds.get(number) or self._round(number) for number in numbers}
            banks = self.rounds.values()
            self.current = Bank(torch.cat([bank.pairs for bank in banks]), sum(bank.seconds for bank in banks))
            self._forget(numbers.start)
        return self.current

    def _round(self, number: int) -> Bank:
        workers = self.place.workers
        try:
            bank = self._filled(number) if workers.leads else None
        except OutOfTimeError:
            workers.agreed(True)
            raise
        if workers.agreed(False):
            raise OutOfTimeError(OUT_OF_TIME)
        return self._filled(number) if bank is None else bank

    def _filled(self, number: int) -> Bank:
        wanted, seed, place = self.recipe.adversaries, self.recipe.seed, self.place
        batches = torch.split(self.originals.drawn(wanted.count, seed, number), wanted.batch)
        photos = self.originals.source.fingerprint(wanted.side)
        parts, seconds = [], 0.0
        for at, chosen in enumerate(tqdm(batches, desc="adversaries", unit="batch", disable=place.quiet)):
            turn = number * len(batches) + at
            key = _key(self.recipe, turn, self.ensemble, f"{photos} {chosen.tolist()}")
            path = self._folder(number) / f"{key}.safetensors"
            if not path.exists():
                began = time.monotonic()
                if place.deadline is not None and began >= place.deadline:
                    raise OutOfTimeError(OUT_OF_TIME)
                clean = self.originals.squares(chosen, wanted.side)
                pairs = torch.stack([clean, attack(clean, turn, wanted, self.ensemble, seed)], dim=1)
                _save(path, pairs, time.monotonic() - began)
            part = load_file(path)
            parts.append(part["pairs"])
            seconds += float(part["seconds"])
        return Bank(torch.cat(parts), seconds)

    def _folder(self, number: int) -> Path:
        return self.place.folder / FOLDER / f"round-{number}"

    def _forget(self, first: int) -> None:
        """Remove the rounds before ``first``: a run of weeks must not fill the disk."""
        if not self.place.workers.leads or not self.recipe.adversaries.refresh_every:
            return
        for folder in (self.place.folder / FOLDER).glob("round-*"):
            if int(folder.name.removeprefix("round-")) < first:
                shutil.rmtree(folder)


def make_adversaries(recipe: PurifierRecipe, originals: Originals, ensemble: Ensemble, place: Place) -> Bank | Banks:
    """What gives the bank of each step of ``recipe``; empty where it uses none.

    Raises RecipeError for an unfit ensemble. A bank that is never refreshed is made now; see Banks for what is kept and
    when time is up.
    """
    ensemble.require(recipe)
    if not recipe.uses_bank:
        return Bank.empty(recipe.adversaries.side)
    banks = Banks(recipe, originals, ensemble, place)
    return banks if recipe.adversaries.refresh_every else banks.at(0)


def _key(recipe: PurifierRecipe, number: int, ensemble: Ensemble, photos: str) -> str:
    made = json.dumps(recipe_json(recipe.adversaries))
    text = "\n".join(["timed", str(number), made, ensemble.identity, str(recipe.seed), photos])
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _save(path: Path, pairs: Tensor, seconds: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".new")
    save_file({"pairs": pairs.contiguous(), "seconds": torch.tensor(seconds, dtype=torch.float64)}, scratch)
    scratch.replace(path)
