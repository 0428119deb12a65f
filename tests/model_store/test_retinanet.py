"""RetinaNetSmall: boxes in the pixels of the image it is given, and losses in either mode."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.models.detection import RetinaNet

from model_store.architectures import ARCHITECTURES, build
from model_store.architectures.resnet import ResNetSmall
from model_store.architectures.retinanet import RetinaNetSmall
from model_store.card import Card
from model_store.errors import UnknownArchitectureError
from model_store.store import ModelStore

TINY = {"classes": 3, "widths": [8, 8, 8, 8], "blocks": 1, "channels": 8}
TARGET = {"boxes": torch.tensor([[4.0, 6, 30, 32], [40, 8, 56, 24]]), "labels": torch.tensor([0, 2])}
NOTHING = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}


def tiny() -> RetinaNetSmall:
    """Random weights, sure enough of themselves to find something everywhere."""
    module = build("retinanet_small", TINY).eval()
    assert isinstance(module, RetinaNetSmall)
    with torch.no_grad():
        for parameter in module.detector.head.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
        module.detector.head.classification_head.cls_logits.bias.zero_()
    return module


def torchvisions_answer(module: RetinaNetSmall, images: Tensor) -> list[dict[str, Tensor]]:
    """What torchvision's own forward pass makes of images that it need not resize."""
    detector = module.detector
    detector.transform.min_size, detector.transform.max_size = (min(images.shape[-2:]),), max(images.shape[-2:])
    found: list[dict[str, Tensor]] = detector(list(images))
    return found


@pytest.mark.parametrize("size", [(64, 64), (48, 96), (33, 65), (1, 1)])
def test_boxes_lie_in_the_image_and_the_best_comes_first(size: tuple[int, int]) -> None:
    height, width = size
    found = tiny()(torch.rand(2, 3, height, width))
    assert len(found) == 2
    for one in found:
        boxes, scores, labels = one["boxes"], one["scores"], one["labels"]
        assert boxes.shape == (len(scores), 4)
        assert 1 <= len(scores) <= 100
        assert (boxes >= 0).all()
        assert (boxes <= torch.tensor([width, height, width, height])).all()
        assert torch.equal(scores, scores.sort(descending=True).values)
        assert set(labels.tolist()) <= {0, 1, 2}


@pytest.mark.parametrize("size", [(64, 96), (48, 72)])
def test_it_answers_as_torchvisions_forward_pass_does(size: tuple[int, int]) -> None:
    module, images = tiny(), torch.rand(2, 3, *size)
    assert isinstance(module.detector, RetinaNet)
    torch.testing.assert_close(module(images), torchvisions_answer(module, images), rtol=1e-4, atol=1e-4)


def test_an_images_losses_are_torchvisions_for_that_image_alone() -> None:
    module, images = tiny(), torch.rand(2, 3, 64, 64)
    losses = module.losses(images, [TARGET, NOTHING])
    assert losses["classification"].shape == losses["box"].shape == (2,)
    module.detector.transform.min_size, module.detector.transform.max_size = (64,), 64
    for place, target in enumerate((TARGET, NOTHING)):
        module.detector.training = True  # the flag alone: batch statistics stay frozen in the submodules
        theirs = module.detector([images[place]], [target])
        torch.testing.assert_close(losses["classification"][place], theirs["classification"])
        torch.testing.assert_close(losses["box"][place], theirs["bbox_regression"])
    assert losses["box"][1] == 0


def test_in_evaluation_mode_the_losses_can_be_attacked_and_change_no_buffer() -> None:
    module = tiny().requires_grad_(False)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    images = torch.rand(2, 3, 64, 64, requires_grad=True)
    for loss in module.losses(images, [TARGET, TARGET]).values():
        (gradient,) = torch.autograd.grad(loss.sum(), images, retain_graph=True)
        assert (gradient.abs().flatten(1).sum(1) > 0).all()
    torch.testing.assert_close(module.state_dict(), before, rtol=0, atol=0)


def test_published_and_loaded_again_it_finds_the_same(store: ModelStore) -> None:
    module = tiny()
    card = Card(name="m", summary="s", task="detector", architecture="retinanet_small", arguments=TINY)
    store.publish(card, module)
    images = torch.rand(1, 3, 64, 64)
    assert len(module(images)[0]["labels"]) > 0
    torch.testing.assert_close(store.load("m").module(images), module(images), rtol=0, atol=0)


def test_the_default_fits_the_shipped_classifier_and_the_limit_on_files() -> None:
    assert ARCHITECTURES["retinanet_small"].task == "detector"
    with torch.device("meta"):
        module, classifier = build("retinanet_small", {"classes": 3}), ResNetSmall(10)
    assert isinstance(module, RetinaNetSmall)
    backbone = module.detector.backbone
    for part in ("stem", "stages"):
        shapes = {key: value.shape for key, value in getattr(backbone, part).state_dict().items()}
        assert shapes == {key: value.shape for key, value in getattr(classifier, part).state_dict().items()}
    assert 2 * sum(value.numel() for value in module.state_dict().values()) < 12 * 2**20


@pytest.mark.parametrize("wrong", [{"widths": [8, 8, 8]}, {"anchor_sizes": [[8], [16]]}, {"classes": "x"}])
def test_arguments_that_make_no_pyramid_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UnknownArchitectureError, match="retinanet_small"):
        build("retinanet_small", TINY | wrong)
