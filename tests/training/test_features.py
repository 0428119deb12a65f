"""The feature network: from the store, or torchvision's own, whose weights the tests make up."""

import argparse
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from torchvision.models import VGG16_Weights, vgg16

from model_store.errors import UnavailableModelError
from model_store.store import ModelStore
from training.commands import configure_train, run_train
from training.errors import RecipeError
from training.features import OFFICIAL, load_features


@pytest.fixture
def official(monkeypatch: pytest.MonkeyPatch) -> torch.nn.Module:
    """Stands in for the download: torchvision's VGG-16 with random weights (its large head left out)."""
    torch.manual_seed(0)
    network = vgg16(weights=None, init_weights=False).features
    state = {f"features.{name}": value for name, value in network.state_dict().items()}
    state["classifier.0.weight"] = torch.zeros(2, 2)
    monkeypatch.setattr(VGG16_Weights, "get_state_dict", lambda *_, **__: state)
    return network.eval()


def train_purifier(recipes: Path, photos: Path) -> int:
    parser = argparse.ArgumentParser()
    configure_train(parser)
    command = ["purifier", photos, "--recipe", recipes / "purifier.toml", "--store", recipes / "store", "--quiet"]
    options = ["--run", recipes / "run", "--feature-network", OFFICIAL]
    return run_train(parser.parse_args([str(word) for word in (*command, *options)]))


def test_the_official_network_gives_conv3_3_after_its_relu(official: torch.nn.Module, tmp_path: Path) -> None:
    features = load_features(OFFICIAL, ModelStore(tmp_path)).module
    images = torch.rand(2, 3, 32, 32)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    normalised = (images - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)
    with torch.no_grad():
        torch.testing.assert_close(features.extract(images), official[:16](normalised))
    assert features.extract(images).shape == (2, 256, 8, 8)
    with pytest.raises(TypeError, match="no head"):
        features(images)


def test_where_it_cannot_be_downloaded_the_error_names_the_next_step(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr(VGG16_Weights, "get_state_dict", fail)
    with pytest.raises(UnavailableModelError, match=r"no route to host.*nrp train feature-net"):
        load_features(OFFICIAL, ModelStore(tmp_path))


@pytest.mark.usefixtures("official")
def test_a_purifier_trains_on_the_official_network(recipes: Path, photos: Path) -> None:
    text = (recipes / "purifier.toml").read_text()
    text = text.replace("prediction_weight = 0.05\n", "").replace('kinds = ["ssp", "prediction"]\n', "")
    (recipes / "purifier.toml").write_text(text)
    assert train_purifier(recipes, photos) == 0
    assert ModelStore(recipes / "store").verify("tiny-purifier").recipe["feature_network"] == OFFICIAL


@pytest.mark.usefixtures("official")
def test_a_recipe_that_wants_predictions_is_refused_a_network_without_a_head(recipes: Path, photos: Path) -> None:
    with pytest.raises(RecipeError, match="purifier-vgg16"):
        train_purifier(recipes, photos)
