from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torchvision.models import ResNet18_Weights, get_model, get_model_weights, list_models, resnet18
from torchvision.models._api import WeightsEnum
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign

from model_store.errors import (
    IncompatibleWeightsError,
    InvalidCardError,
    UnavailableModelError,
    UnknownModelError,
)
from model_store.official import OfficialModel
from model_store.pixels import image_to_bytes, to_float
from model_store.scenes import SceneScale
from model_store.store import ModelStore
from service import downstream_loading
from service.downstream import Detector, Segmenter
from service.downstream_loading import load_downstream
from service.findings import is_finite
from tests.model_store.timm_cache import NAME, cache_random, hub_cache


@pytest.fixture
def official_weights(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Weights made here in the place of the download; records how they were asked for."""
    torch.manual_seed(0)
    state = resnet18(weights=None).state_dict()
    asked = []

    def give(_: WeightsEnum, *args: Any, **options: Any) -> Any:
        asked.append(options)
        return state

    monkeypatch.setattr(WeightsEnum, "get_state_dict", give)
    return state, asked


def test_torchvision_brings_its_weights_labels_and_preprocessing(
    official_weights: Any, store_root: Path, photo: Callable[..., Image.Image]
) -> None:
    state, asked = official_weights
    classifier = load_downstream("classifier", "torchvision:resnet18", ModelStore(store_root))
    assert classifier.name == "torchvision:resnet18"
    assert classifier.labels[:2] == ("tench", "goldfish")
    assert len(classifier.labels) == 1000
    assert torch.equal(classifier.module.state_dict()["fc.weight"], state["fc.weight"])
    assert not classifier.module.training
    assert asked[0]["weights_only"] is True
    image = photo(300, 260)
    batch = to_float(image_to_bytes(image)).unsqueeze(0)
    assert torch.equal(classifier.inputs(batch), ResNet18_Weights.DEFAULT.transforms()(batch))


def test_a_torchvision_classifier_serves(
    official_weights: Any, client_for: Any, photo: Callable[..., Image.Image], file_of: Callable[..., bytes]
) -> None:
    client = client_for(classifier="torchvision:resnet18")
    answer = client.post("/classify-robust?top_k=3&compare=true", content=file_of(photo())).json()
    assert answer["model"] == "torchvision:resnet18"
    assert len(answer["predictions"]) == len(answer["undefended"]) == 3
    assert client.get("/models").json()["labels"] == 1000


def test_a_timm_classifier_serves(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    client_for: Any,
    photo: Callable[..., Image.Image],
    file_of: Callable[..., bytes],
) -> None:
    cache_random(hub_cache(monkeypatch, tmp_path / "hub"))
    client = client_for(classifier=f"timm:{NAME}")
    answer = client.post("/classify-robust?top_k=3&compare=true", content=file_of(photo(300, 200))).json()
    assert answer["model"] == f"timm:{NAME}"
    assert len(answer["predictions"]) == len(answer["undefended"]) == 3
    assert client.get("/models").json()["labels"] == 1000


def test_a_timm_classifier_that_cannot_be_had_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, store_root: Path
) -> None:
    hub_cache(monkeypatch, tmp_path / "hub")
    with pytest.raises(UnavailableModelError, match=r"hf download timm/resnet18\.a1_in1k.*or unset NRP_CLASSIFIER"):
        load_downstream("classifier", "timm:resnet18.a1_in1k", ModelStore(store_root))


def test_batch_norms_are_folded_with_the_same_answers(official_weights: Any, store_root: Path) -> None:
    images = torch.rand(2, 3, 64, 64)
    network = resnet18(weights=None).eval()
    network.load_state_dict(official_weights[0])
    tiny = ModelStore(store_root).load("tiny").module
    for name, original in (("torchvision:resnet18", network), ("tiny", tiny)):
        module = load_downstream("classifier", name, ModelStore(store_root)).module
        assert not any(isinstance(part, nn.BatchNorm2d) for part in module.modules())
        with torch.inference_mode():
            torch.testing.assert_close(module(images), original(images), rtol=1e-4, atol=1e-4)


def test_a_classifier_without_labels_is_refused(store_root: Path, tmp_path: Path) -> None:
    store = ModelStore(shutil.copytree(store_root, tmp_path / "store"))
    loaded = store.load("tiny")
    store.publish(loaded.card.model_copy(update={"labels": ()}), loaded.module, replace=True)
    with pytest.raises(InvalidCardError, match="tiny names no classes; add them"):
        load_downstream("classifier", "tiny", store)


def test_a_download_that_is_impossible_is_one_line_with_the_next_step(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, store_root: Path
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with pytest.raises(UnavailableModelError) as failure:
        load_downstream("classifier", "torchvision:squeezenet1_1", ModelStore(store_root))
    text = str(failure.value)
    assert "\n" not in text
    assert "TORCH_HOME" in text
    assert "squeezenet1_1-" in text
    assert "unset NRP_CLASSIFIER" in text


def test_cached_weights_that_hold_more_than_tensors_are_not_unpickled(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, store_root: Path
) -> None:
    ran = tmp_path / "ran"

    class Trap:
        def __reduce__(self) -> Any:
            return Path.touch, (ran,)

    weights = tmp_path / "hub" / "checkpoints"
    weights.mkdir(parents=True)
    out = io.BytesIO()
    torch.save({"x": Trap()}, out)
    (weights / Path(ResNet18_Weights.DEFAULT.url).name).write_bytes(out.getvalue())
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(UnavailableModelError):
        load_downstream("classifier", "torchvision:resnet18", ModelStore(store_root))
    assert not ran.exists()


@pytest.mark.parametrize("name", ["nonsense", "", "fcn_resnet50", "quantized_resnet18"])
def test_what_torchvision_does_not_classify_with_is_refused(store_root: Path, name: str) -> None:
    with pytest.raises(UnavailableModelError, match="torchvision:resnet50"):
        load_downstream("classifier", f"torchvision:{name}", ModelStore(store_root))


def test_a_strip_is_cut_before_it_is_scaled_up(store_root: Path) -> None:
    classifier = load_downstream("classifier", "tiny", ModelStore(store_root))
    strip = torch.rand(1, 3, 2, 200_000)
    assert classifier.inputs(strip).shape == (1, 3, 32, 32)
    middle = classifier.inputs(strip[..., 100_000 - 4 : 100_000 + 4])
    assert torch.equal(classifier.inputs(strip), middle)


def test_ordinary_shapes_are_prepared_as_evaluation_prepares_them(
    store_root: Path, photo: Callable[..., Image.Image]
) -> None:
    classifier = load_downstream("classifier", "tiny", ModelStore(store_root))
    batch = to_float(image_to_bytes(photo(60, 40).resize((60, 40), Image.Resampling.BILINEAR))).unsqueeze(0)
    assert torch.equal(classifier.inputs(batch), classifier.prepare(batch))


@pytest.fixture
def random_official(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random weights in the place of every download."""

    def give(weights: WeightsEnum, *args: Any, **options: Any) -> Any:
        torch.manual_seed(0)
        name = next(n for n in list_models() if weights in list(get_model_weights(n)))
        return get_model(name, weights=None, weights_backbone=None).state_dict()

    monkeypatch.setattr(WeightsEnum, "get_state_dict", give)


def test_a_torchvision_segmenter_sees_what_its_own_transforms_make(
    random_official: None, store_root: Path, photo: Callable[..., Image.Image]
) -> None:
    segmenter = load_downstream("segmenter", "torchvision:lraspp_mobilenet_v3_large", ModelStore(store_root))
    assert segmenter.labels[:2] == ("__background__", "aeroplane")
    batch = to_float(image_to_bytes(photo(78, 52))).unsqueeze(0)
    inputs = segmenter.inputs(batch)
    assert inputs.shape == (1, 3, 520, 780)
    with torch.inference_mode():
        (probabilities,) = segmenter.findings(segmenter.module(inputs), 52, 78)
    assert probabilities.shape == (21, 520, 780)
    settled = segmenter.settled(probabilities, 1, 52, 78)
    assert settled.classes.shape == (52, 78)


def test_a_torchvision_detector_gets_images_as_they_are(random_official: None, store_root: Path) -> None:
    name = "torchvision:ssdlite320_mobilenet_v3_large"
    detector = load_downstream("detector", name, ModelStore(store_root))
    assert (detector.labels[1], detector.labels[90]) == ("person", "toothbrush")
    assert detector.exact
    images = torch.rand(2, 3, 40, 60)
    assert detector.inputs(images) is images
    with torch.inference_mode():
        findings = detector.findings(detector.module(images), 40, 60)
    assert len(findings) == 2
    for found in findings:
        assert (found.boxes >= 0).all()
        assert (found.boxes <= torch.tensor([60, 40, 60, 40])).all()


def test_a_model_of_another_task_is_refused_with_the_variable(store_root: Path) -> None:
    with pytest.raises(UnknownModelError, match="NRP_DETECTOR"):
        load_downstream("detector", "tiny", ModelStore(store_root))
    with pytest.raises(UnavailableModelError, match="NRP_SEGMENTER"):
        load_downstream("segmenter", "torchvision:resnet18", ModelStore(store_root))


def test_mask_r_cnn_makes_no_masks(monkeypatch: pytest.MonkeyPatch, store_root: Path) -> None:
    backbone = nn.Sequential(nn.Conv2d(3, 8, 3, stride=8))
    backbone.out_channels = 8
    network = MaskRCNN(
        backbone,
        2,
        min_size=32,
        max_size=64,
        rpn_anchor_generator=AnchorGenerator(((16,),), ((1.0,),)),
        box_roi_pool=MultiScaleRoIAlign(["0"], 2, 1),
        mask_roi_pool=MultiScaleRoIAlign(["0"], 2, 1),
        box_score_thresh=0.0,
    ).eval()
    official = OfficialModel("torchvision:mask", "detector", ("none", "thing"), "", nn.Identity(), network)
    monkeypatch.setattr(downstream_loading, "load_official", lambda *_: official)
    detector = load_downstream("detector", "torchvision:mask", ModelStore(store_root))
    with torch.inference_mode():
        (found,) = detector.module(torch.rand(1, 3, 32, 48))
    assert len(found["boxes"])
    assert set(found) == {"boxes", "labels", "scores"}


def made_up_detector() -> Detector:
    return Detector("made-up", ("a", "b"), "", nn.Identity(), False, SceneScale(short_side=10))


def test_boxes_are_scaled_back_cut_to_the_image_and_sorted() -> None:
    found = {
        "boxes": torch.tensor([[0.0, 0, 5, 5], [-4, 2, 30, 8], [20, 0, 21, 4]]),
        "scores": torch.tensor([0.2, 0.8, 0.9]),
        "labels": torch.tensor([1, 0, 0]),
    }
    (detections,) = made_up_detector().findings([found], 20, 40)
    assert detections.boxes.tolist() == [[0, 4, 40, 16], [0, 0, 10, 10]]  # the third lies outside
    assert detections.scores.tolist() == pytest.approx([0.8, 0.2])
    assert detections.labels.tolist() == [0, 1]


def test_a_box_that_is_nan_stays_so_that_it_is_told() -> None:
    found = {"boxes": torch.full((1, 4), torch.nan), "scores": torch.ones(1), "labels": torch.zeros(1)}
    (detections,) = made_up_detector().findings([found], 20, 40)
    assert not is_finite(detections)


@pytest.mark.parametrize(
    "found",
    [
        {"boxes": torch.zeros(0, 4)},
        torch.zeros(3),
        {"boxes": torch.ones(1, 4), "scores": torch.ones(1), "labels": torch.tensor([2])},
        {"boxes": torch.ones(1, 4), "scores": torch.ones(1), "labels": torch.tensor([-1])},
    ],
)
def test_a_detector_that_answers_otherwise_is_told(found: Any) -> None:
    with pytest.raises(IncompatibleWeightsError, match="made-up"):
        made_up_detector().findings([found], 20, 40)


@pytest.mark.parametrize("output", [torch.zeros(1, 2, 4, 4), torch.zeros(1, 3), [torch.zeros(1, 3, 4, 4)]])
def test_a_segmenter_that_answers_otherwise_is_told(output: Any) -> None:
    segmenter = Segmenter("made-up", ("a", "b", "c"), "", nn.Identity(), False, SceneScale(short_side=10))
    with pytest.raises(IncompatibleWeightsError, match="3 labels"):
        segmenter.findings(output, 4, 4)


def test_a_mask_is_the_maximum_of_the_bilinear_probabilities() -> None:
    segmenter = Segmenter("made-up", ("a", "b", "c"), "", nn.Identity(), False, SceneScale(short_side=10))
    summed = torch.rand(3, 6, 8, generator=torch.Generator().manual_seed(0))
    wanted = F.interpolate(summed[None], size=(15, 31), mode="bilinear", antialias=True)[0].argmax(dim=0)
    mask = segmenter.settled(summed, 4, 15, 31).classes
    assert mask.dtype is torch.uint8
    assert torch.equal(mask.long(), wanted)
