"""Official models as victims, with random weights in the place of the download."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import WeightsEnum, get_model
from torchvision.models.detection import RetinaNet

from model_store.card import InputConvention
from model_store.errors import UnavailableModelError
from model_store.official import OfficialModel
from model_store.store import ModelStore
from robustness.errors import VictimError
from robustness.victims.classification import agreeing
from robustness.victims.detection import Detector
from robustness.victims.loading import load_victim
from robustness.victims.official import AttackedBoxes, OfficialClassifier, OfficialDetector, load_official_victim
from robustness.victims.segmentation import Segmenter
from tests.model_store.timm_cache import NAME, cache_random, hub_cache

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _no_download(monkeypatch: pytest.MonkeyPatch) -> None:
    def give(weights: WeightsEnum, *_: object, **__: object) -> Any:
        torch.manual_seed(0)
        name = type(weights).__name__.removesuffix("_Weights").lower()
        more = {} if name.startswith("mobilenet") else {"weights_backbone": None}
        return get_model(name, weights=None, **more).state_dict()

    monkeypatch.setattr(WeightsEnum, "get_state_dict", give)


def slope(victim: Any, images: Tensor, truths: dict[str, Tensor]) -> Tensor:
    leaf = images.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(victim.loss(leaf.unsqueeze(1), truths).sum(), leaf)
    return gradient


def test_a_classifier_is_attacked_at_its_crop_in_pixels() -> None:
    victim = load_official_victim("torchvision:mobilenet_v3_small", CPU)
    assert isinstance(victim, OfficialClassifier)
    assert victim.convention == InputConvention(short_side=256, crop=224)
    assert (len(victim.folders), victim.folders[0], victim.classes[0]) == (1000, "n01440764", "tench")
    assert victim.folders == tuple(ModelStore().card("efficientnet-lite0").recipe["folders"])
    assert victim.identity == "mobilenet_v3_small-047dcff4.pth"
    images, truths = torch.rand(2, 3, 224, 224), {"labels": torch.tensor([3, 999])}
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    torch.manual_seed(0)
    network = get_model("mobilenet_v3_small", weights=None).eval()  # what _no_download gives
    assert not any(isinstance(part, nn.BatchNorm2d) for part in victim.module.modules())
    expected = network((images - mean.view(3, 1, 1)) / std.view(3, 1, 1))
    torch.testing.assert_close(victim.logits(images), expected, rtol=1e-3, atol=1e-5)
    assert slope(victim, images, truths).abs().sum() > 0
    answers = victim.answer(images.unsqueeze(1))
    assert answers["log_probabilities"].shape == (2, 1000)
    best = {"labels": answers["log_probabilities"].argmax(1)}
    assert victim.score(answers, best).percent == 100
    wrong = victim.wrong(truths, torch.Generator().manual_seed(0))["labels"]
    assert (wrong != truths["labels"]).all()


def test_timms_classifiers_are_victims_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cache_random(hub_cache(monkeypatch, tmp_path / "hub"))
    victim = load_victim(ModelStore(), f"timm:{NAME}", CPU)
    assert isinstance(victim, OfficialClassifier)
    assert victim.convention == InputConvention(short_side=168, crop=160)
    assert (victim.folders[0], victim.classes[0]) == ("n01440764", "tench")
    assert NAME in victim.identity
    images, truths = torch.rand(2, 3, 160, 160), {"labels": torch.tensor([3, 999])}
    assert victim.answer(images.unsqueeze(1))["log_probabilities"].shape == (2, 1000)
    assert slope(victim, images, truths).abs().sum() > 0


def test_official_classifiers_and_the_stores_of_imagenet_agree(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cache_random(hub_cache(monkeypatch, tmp_path / "hub"))
    at = InputConvention(short_side=64, crop=64)
    names = ("efficientnet-lite0", f"timm:{NAME}", "torchvision:mobilenet_v3_small")
    agreeing([load_victim(ModelStore(), name, CPU, at) for name in names])  # type: ignore[misc]


def test_classifiers_of_other_classes_than_imagenets_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    official = OfficialModel("timm:other", "classifier", ("a", "b"), "", nn.Identity(), nn.Identity())
    monkeypatch.setattr("robustness.victims.official.load_official", lambda *_: official)
    with pytest.raises(VictimError, match="timm:other tells 2 classes apart, not ImageNet's 1000; name one such as"):
        load_official_victim("timm:other", CPU)


def test_a_classifiers_size_is_its_own() -> None:
    with pytest.raises(VictimError, match="its own crop"):
        load_official_victim("torchvision:mobilenet_v3_small", CPU, (32, 32))


def test_a_segmenter_answers_masks_of_voc_classes() -> None:
    victim = load_official_victim("torchvision:lraspp_mobilenet_v3_large", CPU, (40, 56))
    assert isinstance(victim, Segmenter)
    assert victim.size == (40, 56)
    assert (len(victim.classes), victim.classes[0]) == (21, "__background__")
    images = torch.rand(2, 3, 40, 56)
    answers = victim.answer(images.unsqueeze(1))
    assert (answers["mask"].shape, answers["mask"].dtype) == ((2, 40, 56), torch.uint8)
    truths = {"mask": answers["mask"].long()}
    assert victim.score(answers, truths).percent == 100
    assert slope(victim, images, truths).abs().sum() > 0
    assert load_official_victim("torchvision:lraspp_mobilenet_v3_large", CPU).size == (520, 520)  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def retinanet() -> OfficialDetector:
    """A RetinaNet with random weights, made to work on 64 px so that a test takes a second."""
    with pytest.MonkeyPatch.context() as patch:
        torch.manual_seed(0)
        state = get_model("retinanet_resnet50_fpn", weights=None, weights_backbone=None).state_dict()
        patch.setattr(WeightsEnum, "get_state_dict", lambda *_, **__: state)
        victim = load_official_victim("torchvision:retinanet_resnet50_fpn", CPU)
    assert isinstance(victim, OfficialDetector)
    transform = cast(Any, victim.module).network.transform
    transform.min_size, transform.max_size = (64,), 64
    return victim


def aims() -> list[dict[str, Tensor]]:
    some = {"boxes": torch.tensor([[4.0, 6.0, 40.0, 44.0]]), "labels": torch.tensor([18])}
    none = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    return [some, none]


def test_a_detector_answers_boxes_in_pixels_of_its_images(retinanet: OfficialDetector) -> None:
    assert retinanet.size == (640, 640)
    assert (len(retinanet.classes), retinanet.classes[90]) == (91, "toothbrush")
    network = cast(Any, retinanet.module).network
    network.score_thresh = 0.0
    answers = retinanet.answer(torch.rand(2, 1, 3, 48, 48))
    assert answers["boxes"].shape == (2, 100, 4)
    found = answers["boxes"][answers["labels"] >= 0]
    assert len(found) > 0
    assert 0 <= found.min() <= found.max() <= 48


def test_a_detectors_losses_are_torchvisions_own_image_by_image(retinanet: OfficialDetector) -> None:
    images = torch.rand(2, 3, 48, 48)
    module = cast(AttackedBoxes, retinanet.module)
    losses = module.losses(images, aims())
    network = module.network
    assert isinstance(network, RetinaNet)
    # Frozen batch norm and a transform of one size: training mode changes nothing but that losses are returned.
    for place, aim in enumerate(aims()):
        network.train()
        theirs = network([images[place]], [aim])
        network.eval()
        torch.testing.assert_close(losses["classification"][place], theirs["classification"])
        torch.testing.assert_close(losses["box"][place], theirs["bbox_regression"])


def test_a_gradient_of_a_detectors_loss_reaches_its_images(retinanet: OfficialDetector) -> None:
    boxes = torch.zeros(2, 1, 4)
    boxes[0, 0] = torch.tensor([4.0, 6.0, 40.0, 44.0])
    truths = {"boxes": boxes, "labels": torch.tensor([[18], [-1]])}
    gradient = slope(retinanet, torch.rand(2, 3, 48, 48), truths)
    assert (gradient.flatten(1).abs().sum(1) > 0).all()


def test_a_detector_of_another_family_answers_but_gives_no_loss() -> None:
    victim = load_official_victim("torchvision:ssdlite320_mobilenet_v3_large", CPU)
    assert isinstance(victim, Detector)
    assert victim.answer(torch.rand(1, 1, 3, 40, 40))["labels"].shape == (1, 100)
    with pytest.raises(VictimError, match=r"SSD gives no loss.*retinanet_resnet50_fpn"):
        cast(AttackedBoxes, victim.module).losses(torch.rand(2, 3, 40, 40), aims())


def test_a_name_torchvision_does_not_know_is_refused() -> None:
    with pytest.raises(UnavailableModelError, match="nrp models list"):
        load_official_victim("torchvision:nothing", CPU)
