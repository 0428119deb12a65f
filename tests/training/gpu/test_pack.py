"""What a GPU is given: everything it needs, within what can be carried, and nothing where that does not fit."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from model_store.architectures import build
from model_store.card import Card, Inference, InputConvention
from model_store.inference import InferenceMode
from model_store.store import ModelStore
from tests.training.conftest import PURIFIER
from training.errors import DataError, RecipeError
from training.gpu import pack as module
from training.gpu.aware import defences, read_judged, victims
from training.gpu.folder import Folder
from training.gpu.pack import Order, pack
from training.packing import PackedPhotos
from training.plan import read_plan

CLASSIFIER = {"classes": 3, "widths": [4, 4], "blocks": 1}
LITE = {"widths": [8, 8], "encoder": [1, 1], "decoder": [1]}
MEGABYTE = 1e6


def publish(store: ModelStore) -> None:
    torch.manual_seed(0)
    features = {"width": 0.0625, "classes": 2}
    cards = [
        Card(
            name="tiny-features", summary="f", task="feature-network", architecture="vgg16_conv3_3", arguments=features
        ),
        Card(
            name="tiny-victim",
            summary="v",
            task="classifier",
            architecture="resnet_small",
            arguments=CLASSIFIER,
            input=InputConvention(short_side=256, crop=224),
            recipe={"folders": ["a", "b", "c"]},
        ),
        Card(
            name="tiny-beside",
            summary="p",
            task="purifier",
            architecture="nrp_lite",
            arguments=LITE,
            inference=Inference(default="noise", modes={"noise": InferenceMode(noise_std=0.1, draws=2)}),
        ),
    ]
    for card in cards:
        store.publish(card, build(card.architecture, card.arguments))


def photos_in(folder: Path, count: int, generator: np.random.Generator) -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        pixels = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((48, 40), Image.Resampling.BICUBIC).save(folder / f"{number}.png")


def judged_in(root: Path, count: int, generator: np.random.Generator) -> None:
    (root / "images").mkdir(parents=True)
    with (root / "images.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["ImageId", "TrueLabel", "TargetClass", "License", "Author", "OriginalLandingURL"])
        for number in range(count):
            pixels = generator.integers(0, 256, (20, 20, 3), dtype=np.uint8)
            image = Image.fromarray(pixels).resize((299, 299), Image.Resampling.BICUBIC)
            image.save(root / "images" / f"id{number}.webp", lossless=True)
            table.writerow([f"id{number}", number % 3 + 1, (number + 1) % 3 + 1, "CC BY", "someone", "a page"])


@pytest.fixture
def order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Order:
    monkeypatch.setattr(module, "VICTIMS", ("tiny-victim",))
    monkeypatch.setattr(module, "BESIDE", ("tiny-beside",))
    monkeypatch.setattr(module, "TIMED", ("tiny-beside",))
    monkeypatch.setattr(module, "LEAST_JUDGED_MB", 0.1)
    monkeypatch.setattr(module, "MARGIN_MB", 0.02)
    store, generator = ModelStore(tmp_path / "store"), np.random.default_rng(0)
    publish(store)
    for root, count in (("photos/one", 8), ("photos/two", 4), ("imagenet-samples", 6), ("imagenette2-160/train/n1", 4)):
        photos_in(tmp_path / "data" / root, count, generator)
    judged_in(tmp_path / "data" / "nips17", 6, generator)
    text = PURIFIER.replace("\n[arguments]", "\nadversarial_weight = 0.0\ninitial = 'tiny-beside'\n[arguments]", 1)
    (tmp_path / "recipe.toml").write_text(text)
    return Order(tmp_path / "data", Folder(tmp_path / "packed"), store, str(tmp_path / "recipe.toml"), 20.0, quiet=True)


def size(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / MEGABYTE


def test_everything_is_there_and_can_be_read_back(order: Order) -> None:
    told: list[str] = []
    pack(order, told.append)
    folder = order.folder
    plan = read_plan(folder.plan)
    assert set(plan.models) == {"tiny-features", "tiny-beside"}
    assert len(PackedPhotos(folder.photos).labels) == 22
    facts = json.loads(folder.judge.read_text())
    examples = read_judged(folder, facts)  # which checks that they are home's, to the bit
    assert examples.pixels.shape == (6, 3, 224, 224)
    assert list(victims(folder, facts)) == ["tiny-victim"]
    (beside,) = defences(folder, facts, None)  # out of the plan, since the training begins with it
    assert beside.name == "tiny-beside noise"
    assert beside.mode.noise_std == 0.1
    assert beside.weights == order.store.card("tiny-beside").sha256
    assert set(folder.facts()["serving"]) == {"tiny-beside", "nrp", "nrp_resg"}
    assert [line.partition(":")[0] for line in told] == ["train", "judge", "resume"]
    assert "22 of 22 photos" in told[0]
    assert "6 of 6 photos" in told[1]


def test_what_is_carried_together_stays_within_the_limit(order: Order, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "weight_of", lambda _: 1000)
    whole = Order(order.data, order.folder, order.store, order.recipe, 20.0, quiet=True)
    pack(whole, lambda _: None)
    networks = size(order.folder.root) - size(order.folder.photos.parent / "photos.safetensors")
    most = networks - order.folder.judged.stat().st_size / MEGABYTE + 0.12 + 0.03
    told: list[str] = []
    pack(Order(order.data, order.folder, order.store, order.recipe, most, quiet=True), told.append)
    assert size(order.folder.plan.parent) + size(order.folder.judge.parent) <= most
    assert len(PackedPhotos(order.folder.judged).labels) < 6


def test_networks_that_leave_no_room_are_refused_with_what_to_do(order: Order) -> None:
    with pytest.raises(DataError, match=r"leave no room for photos within 0\.1 MB; allow more with --most-mb"):
        pack(Order(order.data, order.folder, order.store, order.recipe, 0.1, quiet=True), lambda _: None)


def test_counts_can_be_bounded(order: Order) -> None:
    few = Order(order.data, order.folder, order.store, order.recipe, 20.0, photos=9, judged=2, quiet=True)
    pack(few, lambda _: None)
    packed = PackedPhotos(order.folder.photos)
    assert len(packed.labels) == 9
    assert packed.folders == ("imagenet-samples", "one", "two")  # imagenette's ten classes come last
    assert len(PackedPhotos(order.folder.judged).labels) == 2


def test_a_checkpoint_that_came_back_is_not_removed(order: Order) -> None:
    order.folder.resume.mkdir(parents=True)
    (order.folder.resume / "checkpoint-1-of-1").write_bytes(b"piece")
    pack(order, lambda _: None)
    assert (order.folder.resume / "checkpoint-1-of-1").read_bytes() == b"piece"


def test_a_recipe_that_cannot_be_timed_is_refused_before_anything_is_written(order: Order) -> None:
    path = Path(order.recipe)
    path.write_text(path.read_text().replace("adversarial_weight = 0.0", "adversarial_weight = 0.1"))
    with pytest.raises(RecipeError, match="adversarial_from"):
        pack(order, lambda _: None)
    assert not order.folder.root.exists()


def test_the_shipped_recipe_can_be_timed_and_sees_no_victim() -> None:
    recipe = module.read_purifier_recipe("purifier-real-gpu")
    assert recipe.learning_rate <= 5e-4
    assert not {"efficientnet-lite1", "squeezenet"} & {*recipe.members, recipe.judge}
