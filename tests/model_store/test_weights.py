"""The weights that ship with the code."""

from __future__ import annotations

import pytest
import torch

from model_store.card import Card
from model_store.errors import UnavailableModelError
from model_store.store import SHIPPED, ModelStore

SHIPPED_NAMES = ModelStore().names()


def test_a_purifier_and_a_classifier_are_shipped() -> None:
    tasks = {card.task for card in ModelStore().cards()}
    assert {"purifier", "classifier"} <= tasks, f"{SHIPPED} has {SHIPPED_NAMES}"


@pytest.fixture(params=SHIPPED_NAMES)
def shipped(request: pytest.FixtureRequest) -> Card:
    card = ModelStore().card(str(request.param))
    try:
        ModelStore().path_of(card)
    except UnavailableModelError as error:
        pytest.skip(str(error))
    return card


def test_shipped_weights_are_what_their_card_says(shipped: Card) -> None:
    assert ModelStore().verify(shipped.name) == shipped


def test_shipped_weights_are_finite_numbers(shipped: Card) -> None:
    state = ModelStore().load(shipped.name).module.state_dict()
    assert all(torch.isfinite(tensor).all() for tensor in state.values())


def test_the_weights_of_the_default_classifier_come_with_the_installation() -> None:
    assert ModelStore().verify("efficientnet-lite0").origin is not None


def test_what_is_farther_than_its_reach_does_not_show_in_a_shipped_purifiers_output(shipped: Card) -> None:
    if shipped.task != "purifier":
        return
    module = ModelStore().load(shipped.name).module
    cut = 96
    images = torch.rand(1, 3, 16, 2 * cut, generator=torch.Generator().manual_seed(0))
    images[..., cut // 2 :].round_()  # the hardest known: black and white noise
    with torch.inference_mode():
        whole, part = module(images)[..., :cut], module(images[..., :cut])
    change = (whole - part).abs().amax(dim=(0, 1, 2)) * 255
    assert change[-1] > 1
    assert change[: cut - int(module.reach)].max() < 0.5


def test_a_shipped_card_says_what_a_user_must_know(shipped: Card) -> None:
    assert shipped.licence
    assert shipped.recipe or shipped.origin
    assert shipped.training_data
    assert all(source.terms for source in shipped.training_data)
    assert (shipped.inference is not None) == (shipped.task == "purifier")
    answers = shipped.task not in ("purifier", "perturber") and shipped.arguments.get("classes", 1) is not None
    assert bool(shipped.labels) == answers
    if shipped.task not in ("feature-network", "perturber"):  # these serve attacks, and answer nobody
        assert shipped.figures or shipped.origin
        assert shipped.limits
