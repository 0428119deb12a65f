"""Image folders in, published checkpoints out: the commands end to end, killed and resumed."""

import argparse
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from model_store.architectures.vgg_features import VGG16Features
from model_store.errors import ModelExistsError, UnknownModelError
from model_store.pixels import to_float
from model_store.store import ModelStore
from training.adversaries import attack
from training.commands import configure_train, run_train
from training.errors import RunError
from training.recipe import AdversaryRecipe


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

    monkeypatch.setattr("training.adversaries.attack", refuse)
    assert purifier(recipes, photos, "run") == 0


def test_adversaries_keep_their_budgets(recipes: Path, photos: Path) -> None:
    features(recipes, photos)
    purifier(recipes, photos, "run", "--stop-at", 0)
    banks = sorted((recipes / "run" / "adversaries").glob("*.safetensors"))
    reached = []
    for bank in banks:
        pairs = load_file(bank)["pairs"].int()
        reached.append((pairs[:, 0] - pairs[:, 1]).abs().max().item())
    # twelve photos in fours: SSP at 4, its own answer at 4, SSP at 8
    assert sorted(reached) == [4, 4, 8]


def test_the_two_kinds_of_adversary_raise_what_they_aim_at() -> None:
    torch.manual_seed(0)
    network = VGG16Features(width=0.125).eval()
    clean = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8)
    recipe = AdversaryRecipe(kinds=("ssp", "prediction"), eps=(8.0,), iterations=8)
    before, answer = network.extract(to_float(clean)), network(to_float(clean)).argmax(1)
    with torch.no_grad():
        features, predictions = (to_float(attack(clean, turn, recipe, network, seed=0)) for turn in (0, 1))

        def moved(images: torch.Tensor) -> float:
            return (network.extract(images) - before).square().mean().item()

        def doubt(images: torch.Tensor) -> float:
            return torch.nn.functional.cross_entropy(network(images), answer).item()

        assert moved(features) > moved(predictions)
        assert doubt(predictions) > doubt(features) > 0
        assert doubt(predictions) > doubt(to_float(clean))


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
