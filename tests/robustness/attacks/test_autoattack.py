from __future__ import annotations

import logging
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from robustness.attacks.attack import Knowledge
from robustness.attacks.autoattack import AutoAttack, Version
from robustness.errors import AttackError

Seeded = Callable[..., torch.Generator]
Known = Callable[[nn.Module, Tensor], Knowledge]
QUICK = AutoAttack(16, iterations=5, queries=20)


@pytest.mark.parametrize("installed", ["standard", "pair", "rand"])
def test_a_missing_package_is_named_with_its_extra(
    installed: Version,
    network: nn.Module,
    images: Tensor,
    known: Known,
    seeded: Seeded,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pyautoattack", None)
    with pytest.raises(AttackError, match=r'pip install -e "\.\[evaluate\]"'):
        AutoAttack(8, installed)(images, known(network, images), seeded())


@pytest.mark.parametrize(("version", "classes", "enough"), [("standard", 3, 4), ("pair", 3, 4), ("rand", 2, 3)])
def test_too_few_classes_are_refused(
    version: Version, classes: int, enough: int, images: Tensor, seeded: Seeded
) -> None:
    pytest.importorskip("pyautoattack")
    labels = torch.zeros(len(images), dtype=torch.int64)
    few = Knowledge(logits=lambda candidates: candidates.flatten(1)[:, :classes], labels=labels)
    with pytest.raises(AttackError, match=f"at least {enough} classes"):
        AutoAttack(8, version)(images, few, seeded())


class Watched:
    """Four classes that no small step confuses; counts by which wrong class it was differentiated towards."""

    def __init__(self) -> None:
        torch.manual_seed(3)
        self.weights = torch.randn(4, 3 * 12 * 9) / 50
        self.queries = 0

    def __call__(self, images: Tensor) -> Tensor:
        self.queries += len(images)
        return images.flatten(1) @ self.weights.T + torch.tensor([50.0, 0.0, 0.0, 0.0])


def test_every_part_runs_where_nothing_breaks_and_the_images_come_back(images: Tensor, seeded: Seeded) -> None:
    pytest.importorskip("pyautoattack")
    network = Watched()
    labels = torch.zeros(len(images), dtype=torch.int64)
    found = QUICK(images, Knowledge(logits=network, labels=labels), seeded())
    assert torch.equal(found, images)
    apgd_and_fab = (1 + 3 + 3) * 5  # one run, then one towards each of the three wrong classes, twice
    assert network.queries > len(images) * (apgd_and_fab + 20)


def test_only_images_that_were_broken_are_changed(
    network: nn.Module, images: Tensor, known: Known, seeded: Seeded
) -> None:
    pytest.importorskip("pyautoattack")
    knowledge = known(network, images)
    assert knowledge.labels is not None
    labels = knowledge.labels.clone()
    labels[0] = (labels[0] + 1) % 6  # wrong before any attack
    found = QUICK(images, Knowledge(logits=network, labels=labels), seeded())
    changed = (found != images).flatten(1).any(1)
    with torch.no_grad():
        right = network(found).argmax(1) == labels
    assert not changed[0]
    assert changed.any()
    assert torch.equal(changed[1:], ~right[1:])


def test_the_pair_leaves_out_the_parts_that_follow(images: Tensor, seeded: Seeded) -> None:
    pytest.importorskip("pyautoattack")
    network = Watched()
    labels = torch.zeros(len(images), dtype=torch.int64)
    pair = AutoAttack(16, "pair", iterations=5)
    assert torch.equal(pair(images, Knowledge(logits=network, labels=labels), seeded()), images)
    assert pair.name == "AutoAttack pair (iterations 5)"
    apgd = (1 + 3) * 5  # one run, then one towards each of the three wrong classes
    every = apgd + 3 * 5 + 20  # with FAB's runs and Square's queries
    assert len(images) * apgd < network.queries < len(images) * every


@pytest.mark.parametrize("version", ["standard", "pair", "rand"])
def test_the_package_leaves_no_trace_in_the_process(
    version: Version,
    network: nn.Module,
    images: Tensor,
    known: Known,
    seeded: Seeded,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    pytest.importorskip("pyautoattack")
    caplog.set_level(logging.DEBUG)

    def tracer(frame: object, event: str, argument: object) -> None:
        return None

    before, state = sys.gettrace(), torch.random.get_rng_state()
    sys.settrace(tracer)
    try:
        AutoAttack(1, version, iterations=2, queries=2)(images, known(network, images), seeded())
        assert sys.gettrace() is tracer
    finally:
        sys.settrace(before)
    assert torch.equal(state, torch.random.get_rng_state())
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []
    assert not logging.getLogger("auto-attack").disabled
    assert all(parameter.grad is None for parameter in network.parameters())


def test_cut_schedules_show_in_the_name() -> None:
    assert QUICK.name == "AutoAttack standard (iterations 5, queries 20)"
    assert AutoAttack(8, "rand").name == "AutoAttack rand"


def test_rand_hands_back_no_clean_image_after_one_lucky_draw(
    network: nn.Module, images: Tensor, known: Known, seeded: Seeded
) -> None:
    pytest.importorskip("pyautoattack")
    knowledge = known(network, images)
    noise = torch.Generator().manual_seed(2)

    def lucky(candidates: Tensor) -> Tensor:
        logits: Tensor = network(candidates)
        return logits + 4 * torch.randn(logits.shape, generator=noise)

    attack = AutoAttack(8, "rand", iterations=5)
    found = attack(images, Knowledge(logits=lucky, labels=knowledge.labels), seeded())
    assert (found != images).flatten(1).any(1).all()
    assert knowledge.loss is not None
    assert (knowledge.loss(found) > knowledge.loss(images)).all()
