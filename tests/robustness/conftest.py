from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from model_store.architectures import build
from model_store.card import Card, Inference, InputConvention
from model_store.inference import STATIC, InferenceMode
from model_store.pixels import bytes_to_image, image_to_bytes, to_bytes, to_float
from model_store.store import ModelStore
from robustness.cache import Cache
from robustness.conditions import Conditions
from robustness.examples import Examples
from robustness.judgement import Bench
from robustness.progress import Progress
from robustness.surrogates import Surrogate, load_surrogate
from robustness.victims.classification import Classifier, load_classifiers

FOLDERS = ["n00000001", "n00000002", "n00000003"]
PER_CLASS = 4
CONVENTION = InputConvention(short_side=16, crop=16)
VICTIM = {"classes": 3, "widths": [4, 4], "blocks": 1}
CPU = torch.device("cpu")


def photo(label: int, generator: torch.Generator) -> Image.Image:
    """A noisy photo, 24 wide and 20 high, whose colour tells its class, faintly enough to be attacked."""
    pixels = 0.35 + 0.3 * torch.rand(3, 20, 24, generator=generator)
    pixels[label] += 0.08
    return bytes_to_image(to_bytes(pixels))


def trained_victim(seed: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    module = build("resnet_small", VICTIM).train()
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(48) % 3
    images = torch.stack([to_float(image_to_bytes(photo(int(y), generator)))[:, :16, :16] for y in labels])
    optimiser = torch.optim.Adam(module.parameters(), 0.02)
    for _ in range(25):
        optimiser.zero_grad()
        torch.autograd.backward(F.cross_entropy(module(images), labels))
        optimiser.step()
    return module.eval()


@pytest.fixture(scope="session")
def built_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tiny victims, two purifiers that change nothing (one static, one noisy), and a feature network."""
    store = ModelStore(tmp_path_factory.mktemp("store"))
    for seed, name in enumerate(("victim-a", "victim-b")):
        card = Card(
            name=name,
            summary="a victim",
            task="classifier",
            architecture="resnet_small",
            arguments=VICTIM,
            input=CONVENTION,
            labels=("red", "green", "blue"),
            recipe={"folders": FOLDERS},
        )
        store.publish(card, trained_victim(seed))
    plain = Card(name="plain", summary="does nothing", task="purifier", architecture="identity")
    plain = plain.model_copy(update={"inference": Inference(default="static", modes={"static": STATIC})})
    store.publish(plain, build("identity"))
    modes = {"heavy": InferenceMode(noise_std=0.1, draws=3)}
    noisy = plain.model_copy(update={"name": "noisy", "inference": Inference(default="heavy", modes=modes)})
    store.publish(noisy, build("identity"))
    torch.manual_seed(2)
    shape = {"classes": 3, "width": 0.0625}
    features = Card(
        name="features",
        summary="s",
        task="feature-network",
        architecture="vgg16_conv3_3",
        arguments=shape,
        recipe={"folders": FOLDERS},
    )
    store.publish(features, build("vgg16_conv3_3", shape))
    return store.root


@pytest.fixture
def store(built_store: Path, tmp_path: Path) -> ModelStore:
    """A copy of the built store that a test may change."""
    shutil.copytree(built_store, tmp_path / "store")
    return ModelStore(tmp_path / "store")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Twelve PNG photos in three class folders."""
    generator = torch.Generator().manual_seed(7)
    for label, folder in enumerate(FOLDERS):
        (tmp_path / "val" / folder).mkdir(parents=True)
        for index in range(PER_CLASS):
            photo(label, generator).save(tmp_path / "val" / folder / f"{index}.png")
    return tmp_path / "val"


@pytest.fixture(scope="session")
def examples() -> Examples:
    """Twelve photos at the victims' size, one class after another in turn."""
    generator = torch.Generator().manual_seed(7)
    labels = torch.arange(12) % 3
    pixels = torch.stack([image_to_bytes(photo(int(y), generator))[:, :16, :16] for y in labels])
    return Examples(pixels, {"labels": labels}, tuple(f"{i}.png" for i in range(12)))


@pytest.fixture(scope="session")
def victims(built_store: Path) -> tuple[Classifier, ...]:
    return load_classifiers(ModelStore(built_store), ["victim-a", "victim-b"], CPU)


@pytest.fixture(scope="session")
def surrogate(built_store: Path) -> Surrogate:
    return load_surrogate(ModelStore(built_store), "features", CPU)


@pytest.fixture
def bench(examples: Examples, tmp_path: Path) -> Bench:
    """The twelve photos and an empty cache."""
    return Bench(examples, Conditions(0, 5, CPU), Cache(tmp_path / "cache"), Progress(quiet=True))
