"""The frozen networks as one: features at named layers, answers, distances, and that nothing of them is trained."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from model_store.architectures import build
from model_store.architectures.vgg_features import VGG16Features
from tests.training.conftest import tiny_recipe as recipe
from training.ensemble import CONV3_3, Ensemble, Member, View
from training.errors import RecipeError
from training.losses import feature_distance, prediction_shift
from training.purifier_recipe import AdversaryRecipe

CPU = torch.device("cpu")


def vgg(classes: int | None = 4) -> VGG16Features:
    torch.manual_seed(0)
    return VGG16Features(classes, width=0.0625)


def resnet() -> nn.Module:
    torch.manual_seed(1)
    return build("resnet_small", {"classes": 4, "widths": [4, 8], "blocks": 1})


def ensemble() -> Ensemble:
    return Ensemble((Member("vgg", "a", vgg()), Member("resnet", "b", resnet(), ("stages.0",))))


def images(seed: int = 0) -> Tensor:
    return torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def test_every_member_is_frozen() -> None:
    networks = [vgg().train(), resnet().train()]
    both = Ensemble((Member("vgg", "a", networks[0]), Member("resnet", "b", networks[1])))
    for network in networks:
        assert not network.training
        assert not any(parameter.requires_grad for parameter in network.parameters())
    assert both.on(CPU).logits(1, images()).requires_grad is False


def test_features_and_logits_are_the_networks_own() -> None:
    both = ensemble()
    network = vgg().eval()
    with torch.no_grad():
        assert torch.equal(both.features(0, images(), CONV3_3), network.extract(images()))
        assert torch.equal(both.logits(0, images()), network(images()))
        module = resnet().eval()
        assert torch.equal(both.logits(1, images()), module(images()))
        stem = module.stem(module.normalise(images()))
        torch.testing.assert_close(both.features(1, images(), "stages.0"), module.stages[0](stem))


@pytest.mark.parametrize("number", [0, 1])
def test_one_pass_gives_what_two_do(number: int) -> None:
    both = ensemble()
    member = both.members[number]
    features, logits = member.features_and_logits(images(), member.layers[0])
    torch.testing.assert_close(features, member.features(images(), member.layers[0]))
    torch.testing.assert_close(logits, member.logits(images()))
    assert not any(module._forward_hooks for module in member.module.modules())


def test_features_are_those_before_a_layer_in_place_overwrites_them() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(4 * 256, 2))
    member = Ensemble.of(network).members[0]
    assert (member.features_and_logits(images(), "0")[0] < 0).any()


def test_distances_are_means_over_the_members_that_have_them() -> None:
    both = ensemble()
    purified, clean = images(1), images(2)
    views = (View(both.members[0], CONV3_3), View(both.members[1], None))
    found = both.distances(purified, clean, views)
    features = feature_distance(both.features(0, purified, CONV3_3), both.features(0, clean, CONV3_3))
    shifts = [prediction_shift(both.logits(k, purified), both.logits(k, clean)) for k in (0, 1)]
    torch.testing.assert_close(found["feature"], features)
    torch.testing.assert_close(found["prediction"], torch.stack(shifts).mean())
    assert set(both.distances(purified, clean, views, answer=False)) == {"feature"}


def test_distances_pass_a_gradient_to_the_purified_images_alone() -> None:
    both = ensemble()
    purified, clean = images(1).requires_grad_(True), images(2).requires_grad_(True)
    losses = both.distances(purified, clean, both.views(0, torch.Generator().manual_seed(0)))
    slopes = torch.autograd.grad(sum(losses.values()), (purified, clean), allow_unused=True)
    assert slopes[0].abs().sum() > 0
    assert slopes[1] is None
    assert all(p.grad is None for member in both.members for p in member.module.parameters())


def test_views_are_drawn_from_members_and_layers() -> None:
    both = Ensemble((Member("vgg", "a", vgg(), ("features.1", CONV3_3)), *ensemble().members[1:]))
    draws = [both.views(1, torch.Generator().manual_seed(seed)) for seed in range(40)]
    assert {(view.member.name, view.layer) for (view,) in draws} == {
        ("vgg", "features.1"),
        ("vgg", CONV3_3),
        ("resnet", "stages.0"),
    }
    assert [view.member.name for view in both.views(0, torch.Generator())] == ["vgg", "resnet"]


def test_a_network_without_a_head_serves_its_features() -> None:
    headless = Ensemble.of(vgg(classes=None))
    assert headless.answering == ()
    found = headless.distances(images(1), images(2), headless.views(0, torch.Generator()))
    assert set(found) == {"feature"}
    headless.require(recipe(adversaries=AdversaryRecipe(side=96)))
    for changes in ({"prediction_weight": 0.1}, {"adversaries": AdversaryRecipe(kinds=("diverse",))}):
        with pytest.raises(RecipeError, match="no head to predict with; use --recipe purifier-vgg16"):
            headless.require(recipe(**changes))


def test_a_classifier_without_a_layer_cannot_serve_ssp() -> None:
    answers = Ensemble.of(resnet())
    with pytest.raises(RecipeError, match=r"no layer to take features from; name one in \[layers\]"):
        answers.require(recipe())
    predictions = AdversaryRecipe(kinds=("prediction",))
    answers.require(recipe(adversaries=predictions, feature_weight=0.0, prediction_weight=0.1))


def test_an_unknown_layer_is_named_with_those_there_are() -> None:
    with pytest.raises(RecipeError, match=r"resnet has no layer 'blocks.7'.*stages\.1"):
        Member("resnet", "b", resnet(), ("blocks.7",))


def test_the_identity_tells_networks_and_layers_apart() -> None:
    one = Ensemble.of(vgg(), identity="sha")
    assert one.identity == "sha"
    others = (ensemble(), Ensemble(ensemble().members[::-1]), Ensemble((Member("v", "sha", vgg(), ("features.1",)),)))
    assert len({one.identity, *(other.identity for other in others)}) == 4


def test_compiled_answers_are_the_same_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda module: lambda images: module(images) + 1)
    both = ensemble()
    before = copy.deepcopy(both)
    faster = both.on(CPU, compiled=True)
    assert torch.equal(faster.logits(1, images()), before.logits(1, images()) + 1)
    assert torch.equal(faster.features(1, images(), "stages.0"), before.features(1, images(), "stages.0"))


def test_layers_of_a_stranger_are_refused() -> None:
    with pytest.raises(ValueError, match="layers names 'nobody', which is neither"):
        recipe(layers={"nobody": ("features",)})
