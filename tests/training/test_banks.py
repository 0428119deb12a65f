"""The bank of adversaries: made once or in rounds, kept, taken up again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.training.test_adversaries import CPU, distance, ensemble, purifier_recipe, recipe
from training.banks import Bank, Originals, make_adversaries
from training.errors import OutOfTimeError
from training.place import Place
from training.purifier_recipe import PurifierRecipe


class Drawer:
    """Ten photos, each of one colour that tells its index."""

    where = "a test's"
    folders = ("all",)
    labels = torch.zeros(10, dtype=torch.long)

    def square(self, index: int, side: int) -> Tensor:
        return torch.full((3, side, side), 20 * index + 30, dtype=torch.uint8)

    def fingerprint(self, side: int) -> str:
        return f"a test's {side}"


def bank(asked: PurifierRecipe, folder: Path, among: Tensor | None = None, *, deadline: float | None = None) -> Bank:
    originals = Originals(Drawer(), torch.arange(10) if among is None else among)
    return make_adversaries(asked, originals, ensemble(), Place(CPU, folder, quiet=True, deadline=deadline)).at(0)


def test_a_bank_is_made_once_and_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = purifier_recipe(adversaries=recipe(side=20, count=8, batch=3, iterations=2))
    made = bank(asked, tmp_path)
    assert made.pairs.shape == (8, 2, 3, 20, 20)
    assert made.facts()["adversaries per second, bank"] == pytest.approx(8 / made.seconds)
    assert distance(made.pairs[:, 0], made.pairs[:, 1]) == 8
    next(iter(sorted(tmp_path.rglob("*.safetensors")))).unlink()
    with monkeypatch.context() as patched:
        patched.setattr("training.banks.attack", lambda *_: pytest.fail("attacked again"))
        with pytest.raises(pytest.fail.Exception):
            bank(asked, tmp_path)
    assert torch.equal(bank(asked, tmp_path).pairs, made.pairs)
    monkeypatch.setattr("training.banks.attack", lambda *_: pytest.fail("attacked again"))
    assert torch.equal(bank(asked, tmp_path).pairs, made.pairs)


def test_a_bank_that_time_was_too_short_for_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = purifier_recipe(adversaries=recipe(side=20, count=8, batch=3, iterations=2))
    whole = bank(asked, tmp_path / "whole")
    clock = iter((0.0, 0.0, 1.0, 1.0))  # begins and ends of the first batch, then begins the second
    with monkeypatch.context() as patched:
        patched.setattr("training.banks.time.monotonic", lambda: next(clock))
        with pytest.raises(OutOfTimeError, match="same command again"):
            bank(asked, tmp_path / "parts", deadline=0.5)
    assert len(list((tmp_path / "parts").rglob("*.safetensors"))) == 1
    assert torch.equal(bank(asked, tmp_path / "parts").pairs, whole.pairs)


def test_a_bank_holds_no_photo_that_was_kept_back(tmp_path: Path) -> None:
    asked = purifier_recipe(adversaries=recipe(side=16, count=50, iterations=1))
    pairs = bank(asked, tmp_path, torch.tensor([1, 4, 8])).pairs
    assert sorted(pairs[:, 0, 0, 0, 0].tolist()) == [50, 110, 190]


def test_rounds_take_other_photos_until_each_was_taken_and_the_latest_stay(tmp_path: Path) -> None:
    asked = purifier_recipe(
        adversaries=recipe(side=16, count=4, iterations=1, refresh_every=10, rounds_kept=2, kinds=("prediction",))
    )
    banks = make_adversaries(asked, Originals(Drawer(), torch.arange(9)), ensemble(), Place(CPU, tmp_path, quiet=True))

    def colours(step: int) -> list[int]:
        return [int(value) for value in banks.at(step).pairs[:, 0, 0, 0, 0]]

    first, second, third = colours(9), colours(10), colours(25)
    assert len(first) == 4
    assert second[:4] == first
    assert len(set(second)) == 8
    assert third[:4] == second[4:]
    assert len(third) == 8
    assert colours(30) != third
    assert len(list(tmp_path.rglob("*.safetensors"))) == 2


def test_a_recipe_without_a_bank_makes_none(tmp_path: Path) -> None:
    for changes in ({"adversary_share": 0.0}, {"adversaries": recipe(source="online")}):
        assert len(bank(purifier_recipe(**changes), tmp_path).pairs) == 0
    assert list(tmp_path.iterdir()) == []
