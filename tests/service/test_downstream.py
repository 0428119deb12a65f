from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torchvision.models import ResNet18_Weights, resnet18
from torchvision.models._api import WeightsEnum

from model_store.errors import UnavailableModelError
from model_store.pixels import image_to_bytes, to_float
from model_store.store import ModelStore
from service.downstream_loading import load_downstream


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
