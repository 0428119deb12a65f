"""A checkpoint in pieces: its size, what is rounded, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from model_store.architectures.vgg_features import VGG16Features
from tests.training.conftest import tiny_recipe
from training.banks import Bank
from training.ensemble import Ensemble
from training.errors import RunError
from training.gpu import carrying
from training.gpu.carrying import join, lighter, split, weight_of
from training.loop import Run
from training.photos import Photos
from training.purifier import PurifierTraining
from training.purifier_recipe import PurifierRecipe
from training.recipe import read_recipe

ARGUMENTS = {"widths": [8, 8], "encoder": [1, 1], "decoder": [1]}


def training() -> PurifierTraining:
    recipe = tiny_recipe(arguments=ARGUMENTS, crop=16, batch=2, adversary_share=0.0, adversarial_weight=0.0)
    photos = Photos(torch.zeros(4, 3, 16, 16, dtype=torch.uint8), torch.zeros(4), ("one",), "photos")
    return PurifierTraining(
        recipe, photos, Bank.empty(16), Ensemble.of(VGG16Features(width=1 / 16)), torch.device("cpu")
    )


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    work = training()
    work.step(0)
    run = Run(tmp_path / "run", "fingerprint")
    run.save(1, 2.5, {"work": work.state(), "validation": {"history": [], "best": None}})
    return run.path


def test_it_comes_back_together_and_a_training_takes_it_up(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(carrying, "PIECE", 100_000)
    pieces = split(checkpoint, tmp_path / "out")
    assert len(pieces) > 1
    assert all(path.stat().st_size <= 100_000 for path in pieces)
    assert join(tmp_path / "out", tmp_path / "there" / "checkpoint.pt")
    step, seconds, state = Run(tmp_path / "there", "fingerprint").load()
    before = Run(checkpoint.parent, "fingerprint").load()[2]
    assert state is not None
    assert before is not None
    assert (step, seconds) == (1, 2.5)
    for name, value in before["work"]["purifier"].items():
        assert torch.equal(state["work"]["purifier"][name], value)  # the weights themselves are not rounded
    work = training()
    work.restore(state["work"])
    assert {value.dtype for value in work.average.state_dict().values()} == {torch.float32}
    moments = work.optimiser.state_dict()["state"][0]
    assert moments["exp_avg"].dtype == torch.float32
    assert moments["step"] == 1
    work.step(1)


def test_a_later_split_takes_the_place_of_an_earlier(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "checkpoint-7-of-9").write_bytes(b"old")
    assert [path.name for path in split(checkpoint, tmp_path / "out")] == ["checkpoint-1-of-1"]
    assert len(list((tmp_path / "out").iterdir())) == 1


def test_nothing_is_joined_where_there_is_none_or_a_run_has_begun(checkpoint: Path, tmp_path: Path) -> None:
    assert not join(tmp_path / "absent", tmp_path / "there" / "checkpoint.pt")
    split(checkpoint, tmp_path / "out")
    before = checkpoint.read_bytes()
    assert not join(tmp_path / "out", checkpoint)
    assert checkpoint.read_bytes() == before


@pytest.mark.parametrize("names", [["checkpoint-1-of-2"], ["checkpoint-1-of-1", "checkpoint-2-of-2"]])
def test_pieces_that_make_no_whole_are_refused(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).write_bytes(b"piece")
    with pytest.raises(RunError, match="lacks a piece of the checkpoint, or mixes two"):
        join(tmp_path, tmp_path / "there" / "checkpoint.pt")


def test_what_is_rounded_to_what() -> None:
    wide = torch.ones(2, 2)
    saved = {
        "purifier": {"weight": wide},
        "average": {"weight": wide},
        "optimiser": {"state": {0: {"step": torch.tensor(3.0), "exp_avg": wide}}},
        "history": [{"step": 1.0}],
        "pairs": torch.ones(2, dtype=torch.uint8),
    }
    light = lighter(saved)
    assert light["purifier"]["weight"].dtype == torch.float32
    assert light["average"]["weight"].dtype == torch.float16
    assert light["optimiser"]["state"][0]["exp_avg"].dtype == torch.bfloat16
    assert light["optimiser"]["state"][0]["step"].dtype == torch.float32
    assert light["pairs"].dtype == torch.uint8
    assert light["history"] == [{"step": 1.0}]


def test_the_gpu_recipes_checkpoint_fits_two_pieces() -> None:
    assert weight_of(read_recipe("purifier-real-gpu", PurifierRecipe)) < 2 * carrying.PIECE
