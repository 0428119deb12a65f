"""Image folders in, published checkpoints out: the commands end to end, killed and resumed."""

import argparse
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from model_store.errors import ModelExistsError, UnknownModelError
from model_store.store import ModelStore
from training.banks import OUT_OF_TIME, Bank, Banks
from training.commands import configure_train, run_train
from training.errors import DataError, OutOfTimeError, RunError
from training.validation import RobustValidation, Scores
from training.watching import LogLines


def nrp_train(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    configure_train(parser)
    return run_train(parser.parse_args([str(argument) for argument in arguments]))


def features(recipes: Path, photos: Path, *more: object) -> int:
    command = ("feature-net", photos, "--recipe", recipes / "features.toml", "--store", recipes / "store", "--quiet")
    return nrp_train(*command, "--run", recipes / "run-features", *more)


def purifier(recipes: Path, photos: Path, run: str, *more: object) -> int:
    command = ("purifier", photos, "--recipe", recipes / "purifier.toml", "--store", recipes / "store", "--quiet")
    return nrp_train(*command, "--run", recipes / run, *more)


def weights(recipes: Path, name: str) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = load_file(recipes / "store" / name / "weights.safetensors")
    return state


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_folders_in_checkpoints_out(recipes: Path, photos: Path) -> None:
    assert features(recipes, photos) == 0
    assert purifier(recipes, photos, "run") == 0
    store = ModelStore(recipes / "store")
    card = store.load("tiny-features").card
    assert card.labels == ("first", "two")
    assert card.recipe["folders"] == ["one", "two"]
    trained = store.load("tiny-purifier")
    for made in (card, trained.card):
        assert made.training_cost is not None
        assert 0 < made.training_cost.seconds < 600
        assert made.training_cost.hardware.startswith("CPU, ")
    assert trained.card.inference is not None
    assert trained.card.inference.default == "noise"
    assert set(trained.card.inference.modes) == {"static", "published", "noise"}
    assert trained.module(torch.rand(1, 3, 9, 7)).shape == (1, 3, 9, 7)


def test_training_lowers_the_loss(recipes: Path, photos: Path) -> None:
    features(recipes, photos)
    text = (recipes / "purifier.toml").read_text().replace("steps = 6", "steps = 150").replace("1e-3", "5e-3")
    (recipes / "purifier.toml").write_text(text)
    purifier(recipes, photos, "run")
    module = ModelStore(recipes / "store").load("tiny-purifier").module
    clean = torch.linspace(0.4, 0.6, 16).expand(4, 3, 16, 16)
    noisy = clean + 0.2 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    assert (module(noisy) - clean).abs().mean() < 0.7 * (noisy - clean).abs().mean()


@pytest.mark.parametrize("stop", [1, 2, 5])
def test_a_purifier_run_killed_and_resumed_gives_the_same_bits(recipes: Path, photos: Path, stop: int) -> None:
    features(recipes, photos)
    purifier(recipes, photos, "straight")
    whole = weights(recipes, "tiny-purifier")
    purifier(recipes, photos, "killed", "--stop-at", stop)
    purifier(recipes, photos, "killed", "--replace")
    assert same(whole, weights(recipes, "tiny-purifier"))
    purifier(recipes, photos, "other", "--seed", 7, "--replace")
    assert not same(whole, weights(recipes, "tiny-purifier"))


def test_a_feature_network_run_killed_and_resumed_gives_the_same_bits(recipes: Path, photos: Path) -> None:
    features(recipes, photos)
    whole = weights(recipes, "tiny-features")
    features(recipes, photos, "--run", recipes / "killed", "--stop-at", 5)
    features(recipes, photos, "--run", recipes / "killed", "--replace")
    assert same(whole, weights(recipes, "tiny-features"))


def test_adversaries_are_made_once(recipes: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    features(recipes, photos)
    purifier(recipes, photos, "run", "--stop-at", 1)

    def refuse(*_: object) -> None:
        raise AssertionError("attacked again")

    monkeypatch.setattr("training.banks.attack", refuse)
    assert purifier(recipes, photos, "run") == 0


def test_adversaries_keep_their_budgets(recipes: Path, photos: Path) -> None:
    features(recipes, photos)
    purifier(recipes, photos, "run", "--stop-at", 0)
    banks = sorted((recipes / "run" / "adversaries").rglob("*.safetensors"))
    reached = []
    for bank in banks:
        pairs = load_file(bank)["pairs"].int()
        reached.append((pairs[:, 0] - pairs[:, 1]).abs().max().item())
    # twelve photos in fours: SSP at 4, its own answer at 4, SSP at 8
    assert sorted(reached) == [4, 4, 8]


def test_a_published_name_is_refused_before_any_work(recipes: Path, photos: Path) -> None:
    features(recipes, photos)
    with pytest.raises(ModelExistsError, match="--replace"):
        features(recipes, photos)


def test_a_missing_feature_network_is_named(recipes: Path, photos: Path) -> None:
    with pytest.raises(UnknownModelError, match="tiny-features"):
        purifier(recipes, photos, "run")


def test_a_run_folder_of_another_recipe_is_refused(recipes: Path, photos: Path) -> None:
    features(recipes, photos, "--stop-at", 2)
    with pytest.raises(RunError, match="another recipe"):
        features(recipes, photos, "--seed", 5)


def test_a_packed_file_serves_where_folders_do(recipes: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packed = recipes / "photos.safetensors"
    assert nrp_train("pack", photos, "--output", packed, "--side", 24, "--quiet") == 0
    assert "packed 12 of 12 photos" in capsys.readouterr().out
    assert features(recipes, packed) == 0
    assert purifier(recipes, packed, "run") == 0
    card = ModelStore(recipes / "store").card("tiny-features")
    assert card.labels == ("first", "two")
    assert card.training_data[0].images == 12


def test_too_few_photos_for_a_batch_are_refused(recipes: Path, photos: Path) -> None:
    path = recipes / "features.toml"
    path.write_text(path.read_text().replace("batch = 4", "batch = 13"))
    with pytest.raises(DataError, match="12 photos, fewer than the 13"):
        features(recipes, photos)
    assert not (recipes / "run-features").exists()


def test_when_the_minutes_are_over_it_stops_saved_and_publishes_nothing(
    recipes: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert features(recipes, photos, "--minutes", 0) == 0
    assert "run the same command again" in capsys.readouterr().out
    assert ModelStore(recipes / "store").names() == []
    assert features(recipes, photos, "--minutes", 10) == 0
    assert ModelStore(recipes / "store").names() == ["tiny-features"]


def test_minutes_that_end_before_the_adversaries_are_made_leave_the_run_to_go_on(
    recipes: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    features(recipes, photos)
    capsys.readouterr()
    assert purifier(recipes, photos, "run", "--minutes", 0) == 0
    assert capsys.readouterr().out == f"{OUT_OF_TIME}\n"
    assert purifier(recipes, photos, "run", "--minutes", 10) == 0
    assert "tiny-purifier" in ModelStore(recipes / "store").names()


def test_a_missing_tensorboard_is_one_clear_error(recipes: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(RunError, match=r"\.\[train\].*leave out --tensorboard"):
        features(recipes, photos, "--tensorboard")


def test_what_validated_best_is_published_and_its_scores_are_in_the_card(
    recipes: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    features(recipes, photos)
    path = recipes / "purifier.toml"
    validated = 'validate_every = 2\nheld_back = 4\njudge = "tiny-features"\n\n[arguments]'
    path.write_text(path.read_text().replace("[arguments]", validated, 1))
    agreement = iter([0.5, 0.75, 0.25])

    def measure(*_: object) -> Scores:
        return Scores(30.0, 25.0, 1.0, next(agreement))

    monkeypatch.setattr(RobustValidation, "measure", measure)
    purifier(recipes, photos, "run", "--stop-at", 4)
    best = torch.load(recipes / "run" / "checkpoint.pt", weights_only=True)["state"]["work"]["average"]
    purifier(recipes, photos, "run")
    published = weights(recipes, "tiny-purifier")
    assert same({name: value.half() for name, value in best.items()}, published)
    last = torch.load(recipes / "run" / "checkpoint.pt", weights_only=True)["state"]["work"]["average"]
    assert not same({name: value.half() for name, value in last.items()}, published)
    card = ModelStore(recipes / "store").card("tiny-purifier")
    assert card.recipe["chosen_by"]["step"] == 4
    assert card.recipe["chosen_by"]["agrees_adversary"] == 0.75


ROUNDS = "[adversaries]\nrefresh_every = 2\nrounds_kept = 2"


def test_a_bank_that_is_refreshed_resumes_to_the_same_bits_and_forgets_old_rounds(recipes: Path, photos: Path) -> None:
    features(recipes, photos)
    path = recipes / "purifier.toml"
    path.write_text(path.read_text().replace("[adversaries]", ROUNDS).replace("count = 16", "count = 4"))
    purifier(recipes, photos, "straight")
    whole = weights(recipes, "tiny-purifier")
    for stop in (1, 3, 4):
        purifier(recipes, photos, "killed", "--stop-at", stop)
    purifier(recipes, photos, "killed", "--replace")
    assert same(whole, weights(recipes, "tiny-purifier"))
    kept = sorted(folder.name for folder in (recipes / "killed" / "adversaries").iterdir())
    assert kept == ["round-1", "round-2"]


def test_minutes_that_end_while_a_round_is_made_save_the_run(
    recipes: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    features(recipes, photos)
    path = recipes / "purifier.toml"
    path.write_text(path.read_text().replace("[adversaries]", ROUNDS).replace("count = 16", "count = 4"))

    def late(self: Banks, number: int) -> Bank:
        if number:
            raise OutOfTimeError(OUT_OF_TIME)
        return self._filled(number)

    with monkeypatch.context() as patched:
        patched.setattr(Banks, "_round", late)
        assert purifier(recipes, photos, "run") == 0
    assert torch.load(recipes / "run" / "checkpoint.pt", weights_only=True)["step"] == 2
    assert "tiny-purifier" not in ModelStore(recipes / "store").names()
    assert purifier(recipes, photos, "run") == 0
    assert "tiny-purifier" in ModelStore(recipes / "store").names()


def test_the_best_of_an_unfinished_run_can_be_published_and_the_run_goes_on(
    recipes: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    features(recipes, photos)
    with pytest.raises(RunError, match="train first"):
        purifier(recipes, photos, "run", "--publish-best")
    purifier(recipes, photos, "run", "--stop-at", 4)
    saved = torch.load(recipes / "run" / "checkpoint.pt", weights_only=True)["state"]["work"]["average"]
    assert purifier(recipes, photos, "run", "--publish-best") == 0
    assert "the best of 4 of 6 steps" in capsys.readouterr().out
    assert same({name: value.half() for name, value in saved.items()}, weights(recipes, "tiny-purifier"))
    assert ModelStore(recipes / "store").card("tiny-purifier").recipe["steps_done"] == 4
    assert purifier(recipes, photos, "run", "--replace") == 0
    assert "steps_done" not in ModelStore(recipes / "store").card("tiny-purifier").recipe


def test_a_training_that_is_told_to_end_saves_first(
    recipes: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    features(recipes, photos)
    seen: list[int] = []

    class Killer(LogLines):
        def scalars(self, done: int, values: Mapping[str, float]) -> None:
            del values
            seen.append(done)
            os.kill(os.getpid(), signal.SIGTERM)

    path = recipes / "purifier.toml"
    path.write_text(path.read_text().replace("steps = 6", "steps = 30").replace("save_every = 2", "save_every = 100"))
    monkeypatch.setattr("training.commands.LogLines", Killer)
    with pytest.raises(KeyboardInterrupt):
        purifier(recipes, photos, "run", "--log-every", 1)
    assert seen == [10]
    assert torch.load(recipes / "run" / "checkpoint.pt", weights_only=True)["step"] == 10
