"""Plans: what is carried of a network, and the names in a plan."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from model_store.architectures import build
from robustness.features import read_layers
from tests.training.conftest import tiny_recipe
from training.errors import RecipeError
from training.plan import Planned, bundle, planned_names, read_plan, trimmed, unbundle, write_plan
from training.purifier_recipe import AdversaryRecipe
from training.stages import Network

DEEP = {"classes": None, "width": 1 / 16, "blocks": 5}


def network() -> Network:
    torch.manual_seed(0)
    module = build("vgg16_conv3_3", DEEP).eval().requires_grad_(False)
    return Network(module, "deep", "feature-network", "vgg16_conv3_3", DEEP)


@pytest.mark.parametrize(
    ("layers", "blocks"),
    [({"features.8", "features.15"}, 3), ({"features.15", "features.22"}, 4), ({"features.29"}, 5), ({"normalise"}, 5)],
)
def test_a_feature_network_is_carried_as_far_as_it_is_read(layers: set[str], blocks: int) -> None:
    whole = network()
    part = trimmed(whole, layers)
    assert part.arguments["blocks"] == blocks
    assert part.identity == "deep"
    images = torch.rand(2, 3, 32, 32)
    for layer in layers:
        assert torch.equal(*(read_layers(one.module, (layer,), images)[0] for one in (whole, part)))


def test_other_networks_are_carried_whole() -> None:
    module = build("resnet_small", {"classes": 2, "widths": [4, 4], "blocks": 1})
    other = Network(module, "r", "classifier", "resnet_small", {"classes": 2, "widths": [4, 4], "blocks": 1})
    assert trimmed(other, {"stem"}) is other


def test_a_plan_carries_the_layers_of_its_recipe(tmp_path: Path) -> None:
    recipe = tiny_recipe(
        feature_network="deep", layers={"deep": ("features.8",)}, adversaries=AdversaryRecipe(kinds=("ssp",))
    )
    path = tmp_path / "plan.json"
    write_plan([Planned("purifier", recipe)], lambda _: network(), path, code_revision="here")
    (carried,) = read_plan(path).models.values()
    assert carried.arguments["blocks"] == 3
    assert planned_names(path) == ("tiny",)
    with pytest.raises(RecipeError, match="no plan"):
        planned_names(tmp_path / "absent.json")


def test_a_bundle_is_read_back_and_a_damaged_one_refused(tmp_path: Path) -> None:
    written = bundle({"deep": network()}, tmp_path / "models")
    read = unbundle(written, tmp_path)["deep"]
    images = torch.rand(1, 3, 32, 32)
    assert torch.allclose(read.module.features(images), network().module.features(images), atol=1e-2)
    (path,) = (tmp_path / "models").iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(RecipeError, match="copy it again"):
        unbundle(written, tmp_path)
