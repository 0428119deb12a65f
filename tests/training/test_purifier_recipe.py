"""The shipped purifier recipes: that each can be trained on the networks it names, and published in its modes."""

from __future__ import annotations

from functools import cache

import pytest
from torch import nn

from model_store.architectures import ARCHITECTURES, build
from model_store.architectures.vgg_features import VGG16Features
from model_store.inference import STANDARD_MODES, InferenceMode
from model_store.store import ModelStore
from training.ensemble import Ensemble, Member
from training.features import OFFICIAL
from training.purifier_recipe import AdversaryRecipe, PurifierRecipe
from training.recipe import RECIPES, SupervisedRecipe, read_recipe, recipe_from_json, recipe_json

SHIPPED = sorted(path.stem for path in RECIPES.glob("purifier*.toml"))
FEATURE_NETWORK = "imagenette-vgg-features"


@cache
def network(name: str) -> nn.Module | None:
    """The network that a recipe names, untrained; None where its architecture is not registered."""
    if name == OFFICIAL:
        return VGG16Features(classes=None)
    file = "feature-net" if name == FEATURE_NETWORK else name
    if not (RECIPES / f"{file}.toml").is_file():  # trained by others, or by a recipe of another name
        card = ModelStore().card(name)
        return build(card.architecture, card.arguments)
    recipe = read_recipe(file, SupervisedRecipe)
    assert recipe.name == name
    if recipe.architecture not in ARCHITECTURES:
        return None
    return build(recipe.architecture, {**recipe.arguments, "classes": 10})


@pytest.mark.parametrize("name", SHIPPED)
def test_its_networks_have_the_layers_and_heads_it_asks_for(name: str) -> None:
    recipe = read_recipe(name, PurifierRecipe)
    networks = {member: network(member) for member in recipe.members}
    members = [Member(k, k, v, recipe.layers.get(k, ())) for k, v in networks.items() if v is not None]
    Ensemble(tuple(members)).require(recipe)


@pytest.mark.parametrize("name", SHIPPED)
def test_its_default_mode_is_one_of_its_modes(name: str) -> None:
    recipe = read_recipe(name, PurifierRecipe)
    modes = {mode: InferenceMode.model_validate(settings) for mode, settings in recipe.modes.items()}
    assert recipe.default_mode in {*STANDARD_MODES, *modes}


@pytest.mark.parametrize("name", SHIPPED)
def test_what_it_starts_from_has_its_shape(name: str) -> None:
    recipe = read_recipe(name, PurifierRecipe)
    if recipe.initial:
        first = next(
            other for other in (read_recipe(s, PurifierRecipe) for s in SHIPPED) if other.name == recipe.initial
        )
        assert (first.architecture, first.arguments) == (recipe.architecture, recipe.arguments)


def test_no_two_recipes_publish_under_one_name() -> None:
    names = [read_recipe(name, PurifierRecipe).name for name in SHIPPED]
    assert len(set(names)) == len(names)


def test_the_published_method_is_the_published_one() -> None:
    recipe = read_recipe("purifier-paper", PurifierRecipe)
    assert (recipe.adversarial_weight, recipe.pixel_weight, recipe.feature_weight) == (5e-3, 1e-2, 1.0)
    assert (recipe.crop, recipe.batch, recipe.learning_rate) == (128, 16, 1e-4)
    attack = recipe.adversaries
    assert (attack.kinds, attack.eps, attack.iterations, attack.start) == (("ssp",), (16.0,), 100, "corner")
    assert attack.step_share * 16 == pytest.approx(2.55)
    assert recipe.adversary_share == 1
    assert recipe.noise_high == 0
    light = read_recipe("purifier-paper-resg", PurifierRecipe)
    varied = {"name", "summary", "architecture", "steps"}
    assert recipe_json(light, without=varied) == recipe_json(recipe, without=varied)


def test_the_certified_one_meets_noise_of_one_strength_and_no_adversary() -> None:
    recipe = read_recipe("purifier-smoothing", PurifierRecipe)
    assert recipe.noise_low == recipe.noise_high == 0.25
    assert recipe.noise_share == 1
    assert recipe.adversary_share == recipe.adaptive.share == recipe.jpeg_share == 0
    assert recipe.pixel_norm == "squared"
    assert recipe.prediction_weight > 0


def test_members_and_needs_follow_from_the_fields() -> None:
    recipe = read_recipe("purifier-adaptive", PurifierRecipe)
    assert recipe.members[0] == FEATURE_NETWORK
    assert len(recipe.members) == 6
    assert not recipe.uses_bank
    assert recipe.needs_features
    assert recipe.needs_predictions
    bank = recipe_from_json(PurifierRecipe, {**recipe_json(recipe), "adversaries": recipe_json(AdversaryRecipe())})
    assert bank.uses_bank
