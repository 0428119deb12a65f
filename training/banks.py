"""The bank of adversaries: pairs of photo and adversary that are made once, or anew in rounds, and kept on disk."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from training.adversaries import attack
from training.ensemble import Ensemble
from training.errors import OutOfTimeError
from training.photos import Source
from training.place import Place
from training.purifier_recipe import PurifierRecipe
from training.recipe import recipe_json

FOLDER = "adversaries"
OUT_OF_TIME = "time was up before all adversaries were made; run the same command again to go on"


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
