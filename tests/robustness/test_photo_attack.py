"""Attacks through a model's preprocessing, by names as people type them."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from model_store.card import InputConvention
from model_store.errors import UnknownModelError
from model_store.store import ModelStore
from robustness.attacks.attack import Attack, Knowledge
from robustness.attacks.iterative import MIFGSM
from robustness.attacks.pgd import PGD
from robustness.attacks.registry import ATTACKS
from robustness.attacks.scattering import FSA
from robustness.attacks.square import Square
from robustness.attacks.ssp import SSP
from robustness.errors import AttackError, VictimError
from robustness.photo_attack import (
    Source,
    Target,
    attack_named,
    attack_photo,
    check_budget,
    load_source,
    load_target,
)

CPU = torch.device("cpu")
PIXELS = torch.randint(0, 256, (3, 20, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def target(store: ModelStore) -> Target:
    return load_target(store, "victim-a", CPU)


@pytest.mark.parametrize("key", ATTACKS)
def test_every_attack_of_the_registry_goes_by_its_name(key: str) -> None:
    found = attack_named(key.upper(), 8, targeted=key.endswith(" targeted"))
    assert found == ATTACKS[key](8)


def test_what_is_aimed_and_how_long_may_be_left_out_or_said() -> None:
    assert attack_named("PGD-50", 8) == PGD(8, iterations=50)
    assert attack_named("pgd-50", 8, targeted=True) == PGD(8, targeted=True, iterations=50)
    assert attack_named("PGD-10", 8, steps=3) == PGD(8, iterations=3)
    assert attack_named("MI-FGSM", 4, steps=3) == MIFGSM(4, iterations=3)
    assert attack_named("Square", 4, steps=30) == Square(4, queries=30)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("PGD-7", {}, "no attack 'PGD-7'; there are: FGSM, R-FGSM, "),
        ("FGSM", {"steps": 3}, "FGSM takes one step; leave out --steps"),
        ("DIM", {"targeted": True}, "DIM aims at no class; leave out --targeted"),
        ("PGD-10 targeted", {}, "PGD-10 targeted needs a class to aim at; name it with --targeted"),
    ],
)
def test_what_makes_no_attack_is_one_line(name: str, options: dict[str, int], message: str) -> None:
    with pytest.raises(AttackError, match=message):
        attack_named(name, 8, **options)


def test_a_target_sees_a_photo_of_any_size_and_is_differentiated_through_its_preprocessing(target: Target) -> None:
    images = torch.rand(1, 3, 40, 56, requires_grad=True)
    (slope,) = torch.autograd.grad(target.logits(images).sum(), images)
    inside = slope[..., 8:48].abs().amax((0, 1, 2)) > 0
    assert inside.all()  # resized to 16x22, of which the middle 16 are seen
    assert (slope[..., :4] == 0).all()
    assert (slope[..., -4:] == 0).all()
    said = target.probabilities(PIXELS, CPU)
    torch.testing.assert_close(said, target.logits(PIXELS.unsqueeze(0) / 255).softmax(1)[0].detach())


def test_only_classifiers_are_targets(store: ModelStore) -> None:
    with pytest.raises(VictimError, match="plain is a purifier, not a classifier"):
        load_target(store, "plain", CPU)
    with pytest.raises(UnknownModelError, match="nobody"):
        load_target(store, "nobody", CPU)


def test_an_official_network_of_imagenet_tells_the_stores_classes_apart(
    store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    convention = InputConvention(short_side=16, crop=16)

    def official(kind: str, name: str, otherwise: str) -> SimpleNamespace:
        assert (kind, otherwise[:2]) == ("classifier", "or")
        labels = tuple("abc"[: int(name[-1])])
        return SimpleNamespace(convention=convention, labels=labels, on_pixels=nn.Identity)

    monkeypatch.setattr("robustness.photo_attack.load_official", official)
    monkeypatch.setattr("robustness.photo_attack.imagenet_folders", lambda: ("n1", "n2", "n3"))
    found = load_target(store, "torchvision:net3", CPU)
    assert (found.labels, found.classes, found.convention) == (("a", "b", "c"), ("n1", "n2", "n3"), convention)
    assert load_target(store, "timm:net2", CPU).classes == ("a", "b")


def test_a_targeted_attack_nears_its_class_and_an_untargeted_one_leaves_its_own(
    store: ModelStore, target: Target
) -> None:
    before = target.probabilities(PIXELS, CPU)
    label, aim = before.argsort(descending=True)[:2]
    for attack in (PGD(8, targeted=True), PGD(8)):
        source = load_source(store, target, None, attack, CPU)
        known = source.knowledge(label.view(1), aim.view(1) if attack.targeted else None)
        found = attack_photo(PIXELS, attack, known, torch.Generator().manual_seed(0), CPU)
        after = target.probabilities(found, CPU)
        assert (found.dtype, found.shape) == (torch.uint8, PIXELS.shape)
        assert 0 < check_budget(found, PIXELS, attack) <= 8
        assert after[label] < before[label]
        if attack.targeted:
            assert after[aim] > before[aim]


class Breach(Attack):
    """Moves every value by twice its budget."""

    eps = 4.0

    @property
    def name(self) -> str:
        return "Breach"

    def __call__(self, images: Tensor, knowledge: Knowledge, generator: torch.Generator) -> Tensor:
        del knowledge, generator
        return (images + torch.where(images > 0.5, -8 / 255, 8 / 255)).clamp(0, 1)


def test_pixels_beyond_the_budget_are_never_given_back() -> None:
    with pytest.raises(AttackError, match="Breach changed a pixel by 8/255 with a budget of 4/255"):
        attack_photo(PIXELS, Breach(), Knowledge(), torch.Generator(), CPU)
    with pytest.raises(AttackError, match="changed the size"):
        check_budget(PIXELS[:, 1:], PIXELS, Breach())


def test_a_target_without_gradients_is_attacked_by_queries_or_through_another(
    store: ModelStore, target: Target
) -> None:
    program = replace(target, name="program", gradients=False)
    message = "program is an ONNX program.*PGD-10 untargeted; .*--surrogate, or use --attack Square"
    with pytest.raises(AttackError, match=message):
        load_source(store, program, None, PGD(8), CPU)
    assert load_source(store, program, None, Square(8), CPU).logits is not None
    assert load_source(store, program, "victim-b", PGD(8), CPU).logits is not None


def test_a_surrogate_is_followed_in_the_targets_place(store: ModelStore, target: Target) -> None:
    other = load_target(store, "victim-b", CPU)
    images = torch.rand(1, 3, 20, 28)
    by_answer = load_source(store, target, "victim-b", PGD(8), CPU)
    assert by_answer.logits is not None
    torch.testing.assert_close(by_answer.logits(images), other.logits(images))
    for name, channels in (("features", [16]), ("victim-a:stages.0", [4]), ("features,victim-a:stages.0", [16, 4])):
        source = load_source(store, target, name, SSP(8), CPU)
        assert source.logits is None
        assert source.features is not None
        found = source.features(images)
        maps = [found] if isinstance(found, Tensor) else found
        assert [each.shape[1] for each in maps] == channels
        assert maps[0].shape[-1] <= 16  # of the photo as the target sees it


@pytest.mark.parametrize(
    ("surrogate", "attack", "message"),
    [
        (None, SSP(8), "SSP attacks features; name a feature network.*--surrogate, such as vgg16-hed"),
        ("victim-b", SSP(8), "SSP attacks features"),
        ("features", PGD(8), "PGD-10 untargeted follows a classifier's answer, and features gives none"),
        ("victim-b", FSA(8, space="features"), "FSA .* attacks features"),
    ],
)
def test_an_attack_that_lacks_what_it_follows_says_what_to_name(
    store: ModelStore, target: Target, surrogate: str | None, attack: Attack, message: str
) -> None:
    with pytest.raises(AttackError, match=message):
        load_source(store, target, surrogate, attack, CPU)


def test_a_classifier_of_other_classes_gives_no_answer_to_follow(store: ModelStore, target: Target) -> None:
    stranger = Target("stranger", nn.Identity(), InputConvention(), ("a",), ("n00000009",))
    with pytest.raises(AttackError, match="victim-a gives none for the classes of stranger"):
        load_source(store, stranger, "victim-a", PGD(8), CPU)


def test_a_source_tells_what_there_is() -> None:
    label = torch.tensor([1])
    blind = Source("s", None, lambda images: images).knowledge(label, None)
    assert (blind.loss, blind.targeted_loss, blind.logits) == (None, None, None)
    known = Source("s", lambda images: images.mean((2, 3)), None).knowledge(label, torch.tensor([2]))
    images = torch.rand(4, 3, 5, 5)
    assert known.loss is not None
    assert known.targeted_loss is not None
    expected = images.mean((2, 3)).log_softmax(1)
    torch.testing.assert_close(known.loss(images), -expected[:, 1])
    torch.testing.assert_close(known.targeted_loss(images), expected[:, 2])
