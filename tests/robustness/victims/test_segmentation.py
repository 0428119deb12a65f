"""Segmenters as victims, on masks and probabilities small enough to count by hand."""

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
from robustness.victims.segmentation import Segmenter, load_segmenter, mean_iou

CLASSES = ("dark", "bright", "red")
VOID = len(CLASSES)


class Brightness(nn.Module):
    """Logits (N, 3, H, W): dark where the image is dark, bright where it is bright, never red."""

    def forward(self, images: Tensor) -> Tensor:
        level = images.mean(1)
        return torch.stack([-8 * (level - 0.5), 8 * (level - 0.5), torch.full_like(level, -9.0)], dim=1)


@pytest.fixture
def victim() -> Segmenter:
    return Segmenter("by-brightness", "0" * 64, Brightness(), CLASSES, (2, 4))


def scene() -> Tensor:
    """One image, left half dark, right half bright: (1, 3, 2, 4)."""
    image = torch.full((1, 3, 2, 4), 0.1)
    image[..., 2:] = 0.9
    return image


def truth(*rows: list[int]) -> dict[str, Tensor]:
    return {"mask": torch.tensor([rows])}


def test_it_answers_the_most_probable_class_of_every_pixel(victim: Segmenter) -> None:
    answers = victim.answer(scene().unsqueeze(1))
    assert answers["mask"].dtype == torch.uint8
    assert answers["mask"].tolist() == [[[0, 0, 1, 1]] * 2]


def test_the_loss_is_the_mean_over_scored_pixels(victim: Segmenter) -> None:
    versions = scene().unsqueeze(1)
    known = truth([1, 0, VOID, VOID], [VOID, VOID, VOID, VOID])
    expected = -victim.log_probabilities(versions)[0, [1, 0], [0, 0], [0, 1]].mean()
    torch.testing.assert_close(victim.loss(versions, known), expected.unsqueeze(0))
    nothing = victim.loss(versions, truth([VOID] * 4, [VOID] * 4))
    assert nothing.tolist() == [0]


def test_each_image_has_its_own_loss(victim: Segmenter) -> None:
    known = {"mask": torch.tensor([[[0, 0, 1, 1]] * 2, [[1, 1, 0, 0]] * 2])}
    right, wrong = victim.loss(scene().expand(2, 3, 2, 4).unsqueeze(1), known)
    assert right < 0.1
    assert wrong > 5


def test_of_several_draws_the_probabilities_are_averaged(victim: Segmenter) -> None:
    draws = torch.stack([scene(), 1 - scene(), scene()], dim=1)
    probabilities = [victim.log_probabilities(draws[:, [draw]]).exp() for draw in range(3)]
    averaged = victim.log_probabilities(draws).exp()
    torch.testing.assert_close(averaged, torch.stack(probabilities).mean(0))
    assert victim.answer(draws)["mask"].tolist() == [[[0, 0, 1, 1]] * 2]


def test_pixel_accuracy_counts_all_scored_pixels_together(victim: Segmenter) -> None:
    guess = torch.zeros(2, 2, 4, dtype=torch.uint8)
    mask = torch.zeros(2, 2, 4, dtype=torch.int64)
    mask[0], mask[0, 0, 0], mask[0, 0, 1] = VOID, 0, 1  # one of two
    mask[1, 0, 0] = 2  # seven of eight
    score = victim.score({"mask": guess}, {"mask": mask})
    assert score.metric == "pixel accuracy"
    assert score.percent == pytest.approx(100 * 8 / 10)
    assert score.count == 2
    assert score.each is not None
    assert score.each.tolist() == [0.5, 0.875]
    low, high = score.interval
    assert low == pytest.approx(50)
    assert high == pytest.approx(87.5)


def test_void_pixels_are_never_right(victim: Segmenter) -> None:
    """A guess of the void's own number scores nothing."""
    score = victim.score({"mask": torch.tensor([[[VOID, 0]]], dtype=torch.uint8)}, truth([VOID, 0]))
    assert score.percent == 100
    score = victim.score({"mask": torch.tensor([[[VOID, 0]]], dtype=torch.uint8)}, truth([VOID, 1]))
    assert score.percent == 0


def test_an_image_without_a_scored_pixel_is_refused(victim: Segmenter) -> None:
    with pytest.raises(VictimError, match="image 0 has no scored pixel"):
        victim.score({"mask": torch.zeros(1, 1, 2, dtype=torch.uint8)}, truth([VOID, VOID]))


def test_mean_iou_is_over_the_classes_that_are_shown() -> None:
    guess = {"mask": torch.tensor([[[0, 0, 1, 2, 0]]], dtype=torch.uint8)}
    # class 0: 1 of 2 (the void pixel is not counted); class 1: 1 of 3; class 2 is never shown
    assert mean_iou(guess, truth([0, 1, 1, 1, VOID]), VOID) == pytest.approx((1 / 2 + 1 / 3) / 2)
    with pytest.raises(VictimError, match="no pixel is scored"):
        mean_iou(guess, truth([VOID] * 5), VOID)


def test_an_attack_on_its_loss_turns_pixels(victim: Segmenter) -> None:
    image = torch.full((1, 3, 2, 4), 0.48)
    known = victim.knowledge(truth([0, 0, 0, VOID], [0, 0, 0, 0]), torch.Generator())
    adversary = PGD(eps=16)(image, known, torch.Generator().manual_seed(0))
    assert victim.answer(adversary.unsqueeze(1))["mask"][0].tolist()[0][:3] == [1, 1, 1]
    assert known.logits is None
    assert known.labels is None


def stored(tmp_path: Path, **changes: Any) -> ModelStore:
    arguments = {"classes": 3, "width": 4, "kernel": 3}
    facts: dict[str, Any] = {
        "task": "segmenter",
        "architecture": "segnet_basic",
        "arguments": arguments,
        "labels": CLASSES,
        "recipe": {"size": [18, 24]},
    } | changes
    store = ModelStore(tmp_path)
    store.publish(Card(name="tiny", summary="a test's", **facts), build(facts["architecture"], facts["arguments"]))
    return store


def test_a_stored_segmenter_is_loaded_with_its_classes_and_size(tmp_path: Path) -> None:
    loaded = load_segmenter(stored(tmp_path), "tiny", torch.device("cpu"))
    assert loaded.classes == CLASSES
    assert loaded.size == (18, 24)
    assert len(loaded.identity) == 64
    assert loaded.answer(torch.rand(2, 3, 3, 18, 24))["mask"].shape == (2, 18, 24)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"task": "purifier", "architecture": "identity", "arguments": {}}, "tiny is a purifier, not a segmenter"),
        ({"labels": ()}, "names no classes"),
        ({"recipe": {}}, r"recipe\.size"),
    ],
)
def test_a_model_that_cannot_serve_is_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(VictimError, match=said):
        load_segmenter(stored(tmp_path, **changes), "tiny", torch.device("cpu"))
