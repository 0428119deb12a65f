"""torchvision's official models, with weights made here in the place of the download."""

from __future__ import annotations

from typing import Any
from urllib.error import URLError

import pytest
import torch
from torchvision.models import MobileNet_V3_Small_Weights, WeightsEnum, get_model
from torchvision.models.segmentation import LRASPP_MobileNet_V3_Large_Weights

from model_store.card import InputConvention
from model_store.errors import UnavailableModelError
from model_store.official import file_name, load_official, official_kind, read_official

CLASSIFIER = "torchvision:mobilenet_v3_small"
SEGMENTER = "torchvision:lraspp_mobilenet_v3_large"
DETECTOR = "torchvision:ssdlite320_mobilenet_v3_large"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Random weights in the place of the download; records how they were asked for."""
    options: list[dict[str, Any]] = []

    def give(weights: WeightsEnum, *_: object, **how: Any) -> Any:
        options.append(how)
        torch.manual_seed(0)
        name = type(weights).__name__.removesuffix("_Weights").lower()
        more = {} if "small" in name else {"weights_backbone": None}
        return get_model(name, weights=None, **more).state_dict()

    monkeypatch.setattr(WeightsEnum, "get_state_dict", give)
    return options


@pytest.mark.parametrize(
    ("kind", "name", "labels", "third", "convention"),
    [
        ("classifier", CLASSIFIER, 1000, "great white shark", InputConvention(short_side=256, crop=224)),
        ("segmenter", SEGMENTER, 21, "bicycle", InputConvention(short_side=520)),
        ("detector", DETECTOR, 91, "bicycle", InputConvention()),
    ],
)
def test_a_model_comes_with_labels_identity_and_convention(
    asked: list[dict[str, Any]], kind: Any, name: str, labels: int, third: str, convention: InputConvention
) -> None:
    official = load_official(kind, name, "or not")
    assert (official.name, official.kind, official.convention) == (name, kind, convention)
    assert (len(official.labels), official.labels[2]) == (labels, third)
    assert official.identity.startswith(name.removeprefix("torchvision:"))
    assert not official.module.training
    assert not any(parameter.requires_grad for parameter in official.module.parameters())
    assert asked[0]["weights_only"] is True
    assert official_kind(name, "or not") == kind


@pytest.mark.usefixtures("asked")
def test_on_pixels_it_answers_images_of_final_size_as_behind_its_own_transforms() -> None:
    official = load_official("classifier", CLASSIFIER, "or not")
    images = torch.rand(2, 3, 256, 256)
    middle = images[..., 16:240, 16:240]
    torch.testing.assert_close(official.on_pixels()(middle), official.module(official.transforms(images)))
    assert not official.on_pixels().training


@pytest.mark.usefixtures("asked")
def test_a_detector_normalises_by_itself() -> None:
    official = load_official("detector", DETECTOR, "or not")
    assert official.on_pixels() is official.module


@pytest.mark.parametrize(
    ("kind", "name", "example"),
    [
        ("classifier", "torchvision:nonsense", "torchvision:resnet50"),
        ("classifier", "torchvision:fcn_resnet50", "torchvision:resnet50"),
        ("segmenter", "torchvision:resnet50", "torchvision:fcn_resnet50"),
        ("detector", "", "torchvision:retinanet_resnet50_fpn"),
    ],
)
def test_a_name_of_another_kind_is_refused_with_an_example(kind: Any, name: str, example: str) -> None:
    with pytest.raises(UnavailableModelError, match=f"no {kind}.*{example}, or stay at home") as refused:
        load_official(kind, name, "or stay at home")
    assert "\n" not in str(refused.value)


def test_a_name_of_no_kind_is_refused_with_an_example_of_each() -> None:
    with pytest.raises(UnavailableModelError, match=r"'x'.*resnet50.*fcn_resnet50.*retinanet_resnet50_fpn, or leave"):
        official_kind("torchvision:x", "or leave")


@pytest.mark.parametrize("failure", [URLError("no\nroute"), RuntimeError("invalid hash value"), EOFError("cut short")])
def test_where_weights_cannot_be_had_the_error_names_file_and_next_step(
    monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise failure

    monkeypatch.setattr(WeightsEnum, "get_state_dict", fail)
    with pytest.raises(UnavailableModelError, match=r"TORCH_HOME/hub/checkpoints, or walk") as refused:
        load_official("segmenter", SEGMENTER, "or walk")
    assert file_name(LRASPP_MobileNet_V3_Large_Weights.DEFAULT) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_weights_alone_are_read_without_building(asked: list[dict[str, Any]]) -> None:
    state = read_official(MobileNet_V3_Small_Weights.IMAGENET1K_V1, CLASSIFIER, "or not")
    assert state["classifier.3.weight"].shape == (1000, 1024)
    assert asked == [{"progress": False, "check_hash": True, "weights_only": True}]


def test_the_files_name_ends_in_its_hash() -> None:
    assert file_name(MobileNet_V3_Small_Weights.IMAGENET1K_V1) == "mobilenet_v3_small-047dcff4.pth"
