"""The service as it is without a setting: the default classifier names what a photo shows among ImageNet's classes."""

from __future__ import annotations

import csv
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from model_store.pixels import fit, image_to_bytes, to_float
from model_store.store import ModelStore
from service.app import create_app
from service.downstream_loading import load_downstream
from service.downstreams import Downstreams
from service.settings import Settings
from tests.service.conftest import Client

ROOT = Path(__file__).parents[2]
PICTURE = ROOT / "docs" / "images" / "photo.png"
NIPS17 = ROOT.parent / "shared" / "data" / "nips17"
PHOTO = "014f0024918a7b6f"  # an ostrich
DEFAULT = str(Settings.model_fields["classifier"].default)


@pytest.fixture(scope="module")
def shipped() -> Iterator[Client]:
    """The application with no setting set."""
    with pytest.MonkeyPatch.context() as patch:
        for name in Settings.model_fields:
            patch.delenv(f"NRP_{name.upper()}", raising=False)
        client = Client(create_app(Settings()))
    client.start()
    give_up = time.monotonic() + 90
    while not (client.state.warm or client.state.warm_up_failure) and time.monotonic() < give_up:
        time.sleep(0.05)
    yield client
    client.stop()


@pytest.fixture(scope="module")
def photo() -> Path:
    """A photo of the NeurIPS 2017 set, which cannot be part of the project."""
    path = NIPS17 / "images" / f"{PHOTO}.webp"
    if not path.is_file():
        pytest.skip("no photos of the NeurIPS 2017 set in shared/data/nips17")
    return path


def tensor_of(path: Path) -> Tensor:
    with Image.open(path) as image:
        return to_float(image_to_bytes(image.convert("RGB"))).unsqueeze(0)


def test_any_picture_gets_one_of_a_thousand_labels_with_a_probability(shipped: Any) -> None:
    answer = shipped.post("/classify-robust?seed=0&compare=true", content=PICTURE.read_bytes()).json()
    labels = ModelStore().card(DEFAULT).labels
    assert (answer["model"], len(labels)) == ("efficientnet-lite0", 1000)
    for kind in ("predictions", "undefended"):
        best = answer[kind][0]
        assert labels[best["index"]] == best["label"]
        assert 0 < best["probability"] <= 1


def test_a_photo_is_named_as_people_named_it(shipped: Any, photo: Path) -> None:
    with (NIPS17 / "images.csv").open() as file:
        (row,) = (row for row in csv.DictReader(file) if row["ImageId"] == PHOTO)
    truth = int(row["TrueLabel"]) - 1
    answer = shipped.post("/classify-robust?seed=0&compare=true&top_k=1", content=photo.read_bytes()).json()
    for kind in ("predictions", "undefended"):
        (best,) = answer[kind]
        assert (best["index"], best["label"]) == (truth, "ostrich")
        assert best["probability"] > 0.5


def test_models_are_listed_without_a_thousand_labels_each(shipped: Any) -> None:
    listed = shipped.get("/models").json()
    assert (listed["classifier"], listed["labels"]) == (DEFAULT, 1000)
    models = {model["card"]["name"]: model for model in listed["models"]}
    brief = models[DEFAULT]
    assert (brief["labels"], brief["loaded"]) == (1000, True)
    assert (brief["card"]["labels"], brief["card"]["recipe"]) == ([], {})
    assert models["camvid-segnet"]["labels"] == len(models["camvid-segnet"]["card"]["labels"]) == 11
    whole = shipped.get(f"/models/{DEFAULT}").json()
    assert whole["labels"] == len(whole["card"]["labels"]) == len(whole["card"]["recipe"]["folders"]) == 1000


def test_the_inference_protocol_describes_and_serves_it(shipped: Any) -> None:
    metadata = shipped.get(f"/v2/models/{DEFAULT}").json()
    assert metadata["outputs"] == [{"name": "probabilities", "datatype": "FP32", "shape": [-1, 1000]}]
    assert metadata["parameters"]["labels"][:2] == ["tench", "goldfish"]
    image = {"name": "image", "datatype": "UINT8", "shape": [1, 40, 40, 3], "data": [128] * 4800}
    answer = shipped.post(f"/v2/models/{DEFAULT}/infer", json={"inputs": [image]}).json()
    (output,) = answer["outputs"]
    assert output["shape"] == [1, 1000]
    assert sum(output["data"]) == pytest.approx(1, abs=1e-3)


def test_its_batch_norms_are_folded_and_its_answers_those_of_the_network_in_the_store() -> None:
    model = load_downstream("classifier", DEFAULT, ModelStore())
    assert not any(isinstance(part, nn.BatchNorm2d) for part in model.module.modules())
    check_answers([PICTURE], torch.float32, within=1e-4)


def test_in_bfloat16_its_answers_are_near(photo: Path) -> None:
    """Depthwise convolutions add up few products, so that little is lost in them."""
    check_answers([PICTURE, photo], torch.bfloat16, within=0.1)


def check_answers(pictures: list[Path], precision: torch.dtype, within: float) -> None:
    """The service's probabilities for each picture are those of the stored network in float32."""
    cpu = torch.device("cpu")
    downstreams = Downstreams({"classifier": load_downstream("classifier", DEFAULT, ModelStore())}, cpu, precision)
    loaded = ModelStore().load(DEFAULT)
    for path in pictures:
        images = tensor_of(path)
        with torch.inference_mode():
            (found,) = downstreams.findings("classifier", images, 1)
            wanted = loaded.module(fit(images, loaded.card.input)).softmax(dim=1)[0]
        assert isinstance(found, Tensor)
        assert (found - wanted).abs().max() < within
        assert found.argmax() == wanted.argmax()
