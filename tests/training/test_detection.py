"""Training a detector: boxes that follow their discs, a loss that falls, exact resume, a card that says enough."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from model_store.architectures import build
from model_store.architectures.retinanet import RetinaNetSmall
from model_store.card import Card, Source
from model_store.store import ModelStore
from robustness.examples import Examples
from training.detection import DetectionTraining, DetectorRecipe, detector_card, reframe, start_from, tinted
from training.errors import RecipeError
from training.loop import Run, train
from training.publish import publish
from training.recipe import read_recipe

HEIGHT, WIDTH = 48, 64
WIDTHS = [8, 8, 8, 8]
CPU = torch.device("cpu")


def discs(count: int) -> Examples:
    """Bright discs on black, one an image, of two sizes, with their boxes; the second place is empty."""
    generator = torch.Generator().manual_seed(3)
    labels = torch.arange(count) % 2
    radius = torch.where(labels == 0, 6.0, 12.0)
    room = torch.tensor([WIDTH, HEIGHT]) - 2 * radius[:, None]
    centre = radius[:, None] + torch.rand(count, 2, generator=generator) * room
    y, x = torch.meshgrid(torch.arange(HEIGHT) + 0.5, torch.arange(WIDTH) + 0.5, indexing="ij")
    inside = (x - centre[:, 0, None, None]) ** 2 + (y - centre[:, 1, None, None]) ** 2 < radius[:, None, None] ** 2
    pixels = torch.where(inside, 220, 0).to(torch.uint8).unsqueeze(1).expand(-1, 3, -1, -1).contiguous()
    boxes = torch.cat([centre - radius[:, None], centre + radius[:, None]], dim=1).unsqueeze(1)
    padded = torch.cat([boxes, torch.zeros_like(boxes)], dim=1)
    truths = {"boxes": padded, "labels": torch.stack([labels, torch.full_like(labels, -1)], dim=1)}
    return Examples(pixels, truths, tuple(str(n) for n in range(count)))


def tiny_recipe(**changes: Any) -> DetectorRecipe:
    facts: dict[str, Any] = {
        "name": "discs",
        "summary": "discs",
        "architecture": "retinanet_small",
        "arguments": {"widths": WIDTHS, "blocks": 1, "channels": 8, "anchor_sizes": [[12], [24], [40]]},
        "size": (HEIGHT, WIDTH),
        "epochs": 3,
        "batch": 4,
        "learning_rate": 5e-3,
        "precision": "float32",
        "labels": ("small", "large"),
        "save_every": 2,
    }
    return DetectorRecipe(**(facts | changes))


def test_boxes_follow_their_discs_through_zoom_and_mirror() -> None:
    examples = discs(24)
    boxes, labels = examples.truths["boxes"], examples.truths["labels"]
    images, targets = reframe(examples.pixels, boxes, labels, (0.7, 1.6), torch.Generator().manual_seed(0))
    assert images.shape == (24, 3, HEIGHT, WIDTH)
    followed = 0
    for image, target in zip(images, targets, strict=True):
        for left, top, right, bottom in target["boxes"].tolist():
            rows, columns = (image[0] > 0.4).nonzero(as_tuple=True)
            found = torch.tensor([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]).float()
            torch.testing.assert_close(found, torch.tensor([left, top, right, bottom]), rtol=0, atol=2.5)
            followed += 1
    assert followed >= 16


def test_boxes_are_cut_at_the_frame_and_left_out_when_little_of_them_stays() -> None:
    examples = discs(64)
    boxes, labels = examples.truths["boxes"], examples.truths["labels"]
    _, targets = reframe(examples.pixels, boxes, labels, (1.8, 2.2), torch.Generator().manual_seed(1))
    kept = [len(target["labels"]) for target in targets]
    assert 0 < sum(kept) < 64
    for target in targets:
        low, high = target["boxes"].view(-1, 2, 2).unbind(1)
        assert (low >= 0).all()
        assert (high <= torch.tensor([WIDTH, HEIGHT])).all()
        assert (high > low).all()
        assert (target["labels"] >= 0).all()


def test_no_zoom_leaves_images_and_boxes_as_they_are_but_for_mirrors() -> None:
    examples = discs(8)
    images, targets = reframe(
        examples.pixels, examples.truths["boxes"], examples.truths["labels"], (1.0, 1.0), torch.Generator()
    )
    for image, pixels, target, boxes in zip(images, examples.pixels, targets, examples.truths["boxes"], strict=True):
        mirrors = [pixels.flip(dims) / 255 for dims in ([], [1], [2], [1, 2])]
        assert any(torch.allclose(image, mirror, atol=1e-4) for mirror in mirrors)
        sides = boxes[0, 2:] - boxes[0, :2]
        torch.testing.assert_close(target["boxes"][0, 2:] - target["boxes"][0, :2], sides, rtol=1e-4, atol=1e-4)


def test_tint_gives_each_channel_its_own_gain() -> None:
    grey = torch.full((2, 3, 4, 4), 0.5)
    gains = tinted(grey, 0.1, torch.Generator().manual_seed(0)) / 0.5
    assert gains.flatten(2).std(dim=2).max() < 1e-6
    assert gains[..., 0, 0].unique().numel() == 6
    assert ((gains >= 0.9) & (gains <= 1.1)).all()


def test_the_loss_falls(tmp_path: Path) -> None:
    work = DetectionTraining(tiny_recipe(epochs=10), discs(8), ModelStore(tmp_path), CPU)
    assert work.total == 20
    losses = [sum(work.step(number).values()) for number in range(work.total)]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def finished(folder: Path, store: ModelStore, stops: list[int]) -> dict[str, Tensor]:
    run = Run(folder, "same", save_every=2)
    for stop in stops:
        assert not train(DetectionTraining(tiny_recipe(), discs(8), store, CPU), run, stop_at=stop, quiet=True)
    work = DetectionTraining(tiny_recipe(), discs(8), store, CPU)
    assert train(work, run, quiet=True)
    return work.average.state_dict()


def test_a_resumed_run_ends_where_a_straight_one_does(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "store")
    straight = finished(tmp_path / "straight", store, [])
    torch.testing.assert_close(finished(tmp_path / "halting", store, [1, 4]), straight, rtol=0, atol=0)


def classifier(store: ModelStore, widths: list[int]) -> None:
    """A classifier of other weights than a fresh backbone's."""
    arguments = {"classes": 2, "widths": widths, "blocks": 1}
    module = build("resnet_small", arguments)
    with torch.no_grad():
        for value in module.state_dict().values():
            value.add_(1)
    card = Card(
        name="photos-resnet",
        summary="a test's",
        task="classifier",
        architecture="resnet_small",
        arguments=arguments,
        training_data=(Source(name="photos", images=9, terms="theirs"),),
    )
    store.publish(card, module)


def test_the_backbone_starts_from_a_published_classifier(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    classifier(store, WIDTHS)
    recipe = tiny_recipe(pretrained="photos-resnet")
    work = DetectionTraining(recipe, discs(4), store, CPU)
    given = store.load("photos-resnet").module.state_dict()
    for module in (work.module, work.average):
        own = module.detector.backbone.state_dict()
        shared = [key for key in own if key.startswith(("stem.", "stages."))]
        assert len(shared) > 20
        assert all(torch.equal(own[key], given[key]) for key in shared)
    sources = detector_card(recipe, discs(4), store).training_data
    assert [(source.images, source.terms) for source in sources] == [(4, "not stated"), (9, "theirs")]
    assert "photos-resnet" in sources[1].name


def test_a_classifier_of_other_widths_is_refused(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    classifier(store, [4, 4, 4, 4])
    module = build("retinanet_small", {"classes": 2, "widths": WIDTHS, "blocks": 1, "channels": 8})
    assert isinstance(module, RetinaNetSmall)
    with pytest.raises(RecipeError, match="same widths"):
        start_from(module, "photos-resnet", store)


def test_an_architecture_that_is_no_detector_is_refused(tmp_path: Path) -> None:
    recipe = tiny_recipe(architecture="resnet_small", arguments={})
    with pytest.raises(RecipeError, match="no detector"):
        DetectionTraining(recipe, discs(4), ModelStore(tmp_path), CPU)


def test_what_is_published_is_the_average_with_its_size_and_classes(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    recipe = tiny_recipe(limits=("discs only",))
    work = DetectionTraining(recipe, discs(8), store, CPU)
    work.step(0)
    card = publish(store, detector_card(recipe, discs(8), store), work.average, replace=False)
    assert (card.task, card.labels, card.limits) == ("detector", ("small", "large"), ("discs only",))
    assert card.recipe["size"] == [HEIGHT, WIDTH]
    assert card.arguments["ratios"] == [0.7, 1.0, 1.43]
    assert card.training_data[0].images == 8
    assert store.load("discs").card == card


def test_the_shipped_recipe_states_the_resolution_and_the_origin() -> None:
    recipe = read_recipe("detector", DetectorRecipe)
    assert recipe.size == (240, 320)
    assert recipe.labels == ("RBC", "WBC", "Platelets")
    assert recipe.pretrained == "imagenette-resnet"
    assert any("240x320" in limit for limit in recipe.limits)
