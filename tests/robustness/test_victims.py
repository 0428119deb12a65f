from __future__ import annotations

import pytest
import torch

from model_store.architectures import build
from model_store.card import InputConvention
from model_store.errors import UnknownModelError
from model_store.store import ModelStore
from robustness.errors import VictimError
from robustness.victims import load_victims

CPU = torch.device("cpu")


def republish(store: ModelStore, **changes: object) -> None:
    card = store.card("victim-b").model_copy(update=changes)
    store.publish(card, build(card.architecture, card.arguments), replace=True)


def test_victims_share_convention_and_folders(store: ModelStore) -> None:
    victims = load_victims(store, ["victim-a", "victim-b"], CPU)
    assert [victim.name for victim in victims] == ["victim-a", "victim-b"]
    assert victims[0].folders == ("n01", "n02", "n03")
    assert not any(p.requires_grad for victim in victims for p in victim.module.parameters())


def test_an_unknown_victim_is_told_who_there_is(store: ModelStore) -> None:
    with pytest.raises(UnknownModelError, match=r"'nobody'.*victim-a"):
        load_victims(store, ["victim-a", "nobody"], CPU)


def test_a_purifier_is_no_victim(store: ModelStore) -> None:
    with pytest.raises(VictimError, match="plain is a purifier, not a classifier"):
        load_victims(store, ["plain"], CPU)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input": InputConvention(short_side=20, crop=16)}, "share one input convention"),
        ({"input": InputConvention()}, "fixes no short_side and crop"),
        ({"recipe": {"folders": ["n01", "n03", "n02"]}}, "trained on other classes"),
        ({"recipe": {}}, "recipe.folders"),
        ({"recipe": {"folders": ["n01"]}}, "recipe.folders"),
    ],
)
def test_victims_that_do_not_fit_are_refused(store: ModelStore, changes: dict[str, object], message: str) -> None:
    republish(store, **changes)
    with pytest.raises(VictimError, match=message):
        load_victims(store, ["victim-a", "victim-b"], CPU)
