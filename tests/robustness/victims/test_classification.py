from __future__ import annotations

import pytest
import torch

from model_store.architectures import build
from model_store.card import InputConvention
from model_store.errors import UnavailableModelError, UnknownModelError
from model_store.store import ModelStore
from robustness.errors import VictimError
from robustness.victims.classification import Classifier, load_classifiers, top

CPU = torch.device("cpu")


def republish(store: ModelStore, **changes: object) -> None:
    card = store.card("victim-b").model_copy(update=changes)
    store.publish(card, build(card.architecture, card.arguments), replace=True)


def test_victims_share_convention_and_folders(store: ModelStore) -> None:
    victims = load_classifiers(store, ["victim-a", "victim-b"], CPU)
    assert [victim.name for victim in victims] == ["victim-a", "victim-b"]
    assert victims[0].folders == ("n00000001", "n00000002", "n00000003")
    assert not any(p.requires_grad for victim in victims for p in victim.module.parameters())


def test_norms_are_folded_with_the_same_logits_and_slopes(store: ModelStore) -> None:
    (victim,) = load_classifiers(store, ["victim-a"], CPU)
    assert not any(isinstance(part, torch.nn.BatchNorm2d) for part in victim.module.modules())
    stored = store.load("victim-a").module
    images = torch.rand(2, 3, 16, 16)
    found = []
    for logits in (victim.logits, stored):
        leaf = images.clone().requires_grad_(True)
        said = logits(leaf)
        found.append((said.detach(), *torch.autograd.grad(said[:, 0].sum(), leaf)))
    torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=1e-4)


def test_an_unknown_victim_is_told_who_there_is(store: ModelStore) -> None:
    with pytest.raises(UnknownModelError, match=r"'nobody'.*victim-a"):
        load_classifiers(store, ["victim-a", "nobody"], CPU)


def test_a_purifier_is_no_victim(store: ModelStore) -> None:
    with pytest.raises(VictimError, match="plain is a purifier, not a classifier"):
        load_classifiers(store, ["plain"], CPU)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input": InputConvention(short_side=20, crop=16)}, "share one input convention"),
        ({"input": InputConvention()}, "fixes no short_side and crop"),
        ({"recipe": {"folders": ["n00000001", "n00000003", "n00000002"]}}, "trained on other classes"),
        ({"recipe": {}}, "recipe.folders"),
        ({"recipe": {"folders": ["n00000001"]}}, "recipe.folders"),
    ],
)
def test_victims_that_do_not_fit_are_refused(store: ModelStore, changes: dict[str, object], message: str) -> None:
    republish(store, **changes)
    with pytest.raises(VictimError, match=message):
        load_classifiers(store, ["victim-a", "victim-b"], CPU)


def test_the_answer_is_the_logarithm_of_the_mean_probability(victims: tuple[Classifier, ...]) -> None:
    versions = torch.rand(2, 5, 3, 16, 16)
    expected = torch.stack([victims[0].logits(v).softmax(1).mean(0) for v in versions]).log()
    found = victims[0].answer(versions)["log_probabilities"]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.exp().sum(1), torch.ones(2))


def test_the_loss_is_the_true_class_and_the_score_is_top_1(victims: tuple[Classifier, ...]) -> None:
    versions, labels = torch.rand(6, 2, 3, 16, 16), torch.arange(6) % 3
    answers = victims[0].answer(versions)
    expected = -answers["log_probabilities"][torch.arange(6), labels]
    torch.testing.assert_close(victims[0].loss(versions, {"labels": labels}), expected)
    guesses = answers["log_probabilities"].argmax(1)
    assert victims[0].score(answers, {"labels": guesses}).percent == 100
    assert victims[0].score(answers, {"labels": (guesses + 1) % 3}).percent == 0


def test_top_counts_the_true_class_among_the_first_places() -> None:
    said = torch.tensor([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2], [0.5, 0.3, 0.2]]).log()
    truths = {"labels": torch.tensor([0, 1, 2])}
    found = [top({"log_probabilities": said}, truths, places) for places in (1, 2, 3, 5)]
    assert [score.percent for score in found] == pytest.approx([100 / 3, 200 / 3, 100, 100])
    assert found[1].each is not None
    assert found[1].each.tolist() == [1, 1, 0]


def test_wrong_classes_are_wrong_and_every_wrong_class_comes_up(victims: tuple[Classifier, ...]) -> None:
    labels = torch.arange(300) % 3
    wrong = victims[0].wrong({"labels": labels}, torch.Generator().manual_seed(0))["labels"]
    shifts = (wrong - labels) % 3
    assert set(shifts.tolist()) == {1, 2}
    assert 100 < (shifts == 1).sum() < 200


def test_a_targeted_attacker_nears_a_wrong_class_and_moves_no_other_draw(victims: tuple[Classifier, ...]) -> None:
    images, truths = torch.rand(4, 3, 16, 16), {"labels": torch.tensor([0, 1, 2, 0])}
    generator = torch.Generator().manual_seed(5)
    known = victims[0].knowledge(truths, generator)
    assert torch.equal(generator.get_state(), torch.Generator().manual_seed(5).get_state())
    assert known.loss is not None
    assert known.targeted_loss is not None
    losses = torch.stack([victims[0].loss(images.unsqueeze(1), {"labels": torch.full((4,), y)}) for y in range(3)])
    aimed = (losses - -known.targeted_loss(images)).abs().argmin(0)
    assert (aimed != truths["labels"]).all()
    torch.testing.assert_close(known.loss(images), losses[truths["labels"], torch.arange(4)])


def test_the_data_sets_own_targets_are_aimed_at(victims: tuple[Classifier, ...]) -> None:
    images, labels, targets = torch.rand(3, 3, 16, 16), torch.tensor([0, 1, 2]), torch.tensor([2, 0, 1])
    truths = {"labels": labels, "targets": targets}
    assert torch.equal(victims[0].wrong(truths, torch.Generator())["labels"], targets)
    known = victims[0].knowledge(truths, torch.Generator())
    assert known.targeted_loss is not None
    expected = -victims[0].loss(images.unsqueeze(1), {"labels": targets})
    torch.testing.assert_close(known.targeted_loss(images), expected)


def test_one_convention_may_be_given_to_all(store: ModelStore) -> None:
    republish(store, input=InputConvention())
    wanted = InputConvention(short_side=20, crop=18)
    victims = load_classifiers(store, ["victim-a", "victim-b"], CPU, wanted)
    assert [victim.convention for victim in victims] == [wanted, wanted]
    assert victims[0].logits(torch.rand(2, 3, 18, 18)).shape == (2, 3)
    with pytest.raises(VictimError, match="fixes no short_side and crop"):
        load_classifiers(store, ["victim-a"], CPU, InputConvention(short_side=20))


def test_imagenets_networks_agree_at_one_size() -> None:
    names = ["efficientnet-lite1", "squeezenet", "efficientnet-lite0"]
    convention = InputConvention(short_side=256, crop=224)
    try:
        victims = load_classifiers(ModelStore(), names, CPU, convention)
    except UnavailableModelError as missing:
        pytest.skip(str(missing))
    assert [victim.name for victim in victims] == names
    assert {len(victim.folders) for victim in victims} == {1000}
    images = torch.rand(1, 3, 224, 224)
    assert {tuple(victim.logits(images).shape) for victim in victims} == {(1, 1000)}
