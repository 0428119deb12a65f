"""Detectors as victims, on a module whose boxes and losses are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from model_store.architectures import build
from model_store.card import Card
from model_store.store import ModelStore
from robustness.attacks.pgd import PGD
from robustness.errors import VictimError
from robustness.victims.detection import Detector, load_detector

CLASSES = ("small", "large")
TINY = {"classes": 2, "widths": [8, 8, 8, 8], "blocks": 1, "channels": 8}


class Square(nn.Module):
    """Finds one box from the corner, as wide as the image is bright; loses by its targets' count and brightness."""

    def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
        return [
            {"boxes": torch.tensor([[0.0, 0, 10, 10]]) * level, "scores": level.view(1), "labels": torch.tensor([1])}
            for level in images.mean((1, 2, 3))
        ]

    def losses(self, images: Tensor, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        counts = torch.tensor([float(len(target["labels"])) for target in targets])
        sides = torch.tensor([target["boxes"].sum() for target in targets])
        return {"classification": counts + images.mean((1, 2, 3)), "box": sides}


@pytest.fixture
def victim() -> Detector:
    return Detector("square", "0" * 64, Square(), CLASSES, (8, 8))


def levels(*values: float) -> Tensor:
    """Grey images (N, 3, 8, 8)."""
    return torch.tensor(values).view(-1, 1, 1, 1).expand(-1, 3, 8, 8).clone()


def truths(*boxes: list[float]) -> dict[str, Tensor]:
    """One box of class 1 an image, and one place left empty."""
    padded = torch.tensor([[box, [0.0, 0, 9, 9]] for box in boxes])
    return {"boxes": padded, "labels": torch.tensor([[1, -1]] * len(boxes))}


def test_answers_are_padded_to_a_hundred_detections(victim: Detector) -> None:
    answers = victim.answer(levels(1.0, 0.5).unsqueeze(1))
    assert {key: tuple(value.shape) for key, value in answers.items()} == {
        "boxes": (2, 100, 4),
        "scores": (2, 100),
        "labels": (2, 100),
    }
    assert answers["boxes"][:, 0].tolist() == [[0, 0, 10, 10], [0, 0, 5, 5]]
    assert answers["scores"][:, :2].tolist() == [[1, 0], [0.5, 0]]
    assert (answers["labels"][:, 0] == 1).all()
    assert (answers["labels"][:, 1:] == -1).all()


def test_of_several_draws_it_sees_the_mean_image(victim: Detector) -> None:
    draws = torch.stack([levels(0.2), levels(0.6), levels(1.0)], dim=1)
    torch.testing.assert_close(victim.answer(draws), victim.answer(levels(0.6).unsqueeze(1)))
    known = truths([0, 0, 6, 6])
    torch.testing.assert_close(victim.loss(draws, known), victim.loss(levels(0.6).unsqueeze(1), known))


def test_the_loss_adds_both_parts_of_each_image_and_ignores_empty_places(victim: Detector) -> None:
    loss = victim.loss(levels(0.25, 0.5).unsqueeze(1), truths([0, 0, 6, 6], [0, 0, 1, 1]))
    torch.testing.assert_close(loss, torch.tensor([1 + 0.25 + 12, 1 + 0.5 + 2]))


def test_the_score_is_map_with_an_interval_over_images(victim: Detector) -> None:
    answers = victim.answer(levels(1.0, 0.9).unsqueeze(1))
    score = victim.score(answers, truths([0, 0, 10, 10], [30, 30, 40, 40]))
    assert (score.metric, score.count, score.each) == ("mAP@0.5", 2, None)
    assert score.percent == pytest.approx(100 * 51 / 101)
    assert score.interval == pytest.approx((0, 100))


def test_the_interval_is_the_same_each_time_and_quick(victim: Detector) -> None:
    answers = victim.answer(torch.rand(20, 1, 3, 8, 8))
    known = truths(*[[0.0, 0, side / 2, side / 2] for side in range(1, 21)])
    assert victim.score(answers, known) == victim.score(answers, known)


def test_images_without_any_box_have_no_score(victim: Detector) -> None:
    known = {"boxes": torch.zeros(1, 3, 4), "labels": torch.full((1, 3), -1)}
    with pytest.raises(VictimError, match="no image has a box"):
        victim.score(victim.answer(levels(1.0).unsqueeze(1)), known)


def published(store: ModelStore, **changes: Any) -> Card:
    facts = {
        "name": "cells",
        "summary": "a test's",
        "task": "detector",
        "architecture": "retinanet_small",
        "arguments": TINY,
        "labels": CLASSES,
        "recipe": {"size": [48, 64]},
    }
    card = Card(**(facts | changes))
    return store.publish(card, build(card.architecture, card.arguments))


def test_a_detector_is_loaded_with_its_classes_and_size(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    card = published(store)
    victim = load_detector(store, "cells", torch.device("cpu"))
    assert (victim.identity, victim.classes, victim.size) == (card.sha256, CLASSES, (48, 64))
    assert not victim.module.training


def test_an_attack_raises_its_loss_within_the_budget(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    published(store)
    victim = load_detector(store, "cells", torch.device("cpu"))
    images, generator = torch.rand(2, 3, 48, 64), torch.Generator().manual_seed(0)
    known = truths([4, 4, 30, 30], [10, 2, 40, 36])
    knowledge = victim.knowledge(known, generator)
    adversaries = PGD(8.0, iterations=4)(images, knowledge, generator)
    before, after = (victim.loss(x.unsqueeze(1), known) for x in (images, adversaries))
    assert before.shape == (2,)
    assert (after > before).all()
    assert (adversaries - images).abs().max() <= 8 / 255 + 1e-6


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"task": "classifier", "architecture": "resnet_small", "arguments": {"classes": 2}}, "not a detector"),
        ({"labels": ()}, "names no classes"),
        ({"recipe": {}}, "no height and width"),
    ],
)
def test_a_model_that_cannot_serve_is_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    store = ModelStore(tmp_path)
    published(store, **changes)
    with pytest.raises(VictimError, match=said):
        load_detector(store, "cells", torch.device("cpu"))


class Boxes(nn.Module):
    """Finds the same box everywhere, as a program does: without a loss."""

    def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
        box = {"boxes": torch.tensor([[0.0, 0, 4, 4]]), "scores": torch.tensor([0.5]), "labels": torch.tensor([1])}
        return [box for _ in images]


def test_a_detector_without_a_loss_is_judged_and_refuses_attacks_made_on_it_in_one_line() -> None:
    victim = Detector("boxes", "0" * 64, Boxes(), CLASSES, (8, 8))
    known = truths([0, 0, 4, 4])
    assert victim.score(victim.answer(levels(1.0).unsqueeze(1)), known).percent == 100
    generator = torch.Generator().manual_seed(0)
    knowledge = victim.knowledge(known, generator)
    with pytest.raises(VictimError, match=r"boxes gives boxes and no loss.*by transfer") as failure:
        PGD(8.0, iterations=1)(levels(1.0), knowledge, generator)
    assert "\n" not in str(failure.value)
