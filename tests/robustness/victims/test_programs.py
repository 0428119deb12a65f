"""Programs in ONNX as victims: judged, attacked by transfer and by score, and never by a gradient."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

import nrp
from model_store.card import Card, InputConvention
from model_store.errors import IncompatibleWeightsError, UnavailableModelError
from model_store.pixels import to_float
from model_store.store import ModelStore
from robustness.attacks.pgd import PGD
from robustness.attacks.square import Square
from robustness.attacks.ssp import SSP
from robustness.datasets.yolo import read_yolo
from robustness.surrogates import Surrogate
from robustness.victims.classification import Classifier, load_classifier
from robustness.victims.detection import Detector
from robustness.victims.loading import load_victim
from tests.robustness.conftest import FOLDERS

parser = pytest.importorskip("onnx.parser", reason="the extra onnx is not installed")

COCO = Path(__file__).parents[3] / ".." / "shared" / "data" / "coco-val128"
# The probabilities of red, green and blue, by the mean of each channel.
GRAPH = """network (float[N,16,16,3] images) => (float[N,3] colours)
{ means = ReduceMean <axes = [1, 2], keepdims = 0> (images)  colours = Softmax <axis = 1> (means) }"""


@pytest.fixture
def with_program(built_store: Path, tmp_path: Path) -> ModelStore:
    store = ModelStore(shutil.copytree(built_store, tmp_path / "with-program"))
    card = Card(
        name="colours",
        summary="a program",
        task="classifier",
        architecture="onnx",
        labels=("red", "green", "blue"),
        input=InputConvention(layout="NHWC", high=40.0, short_side=16, crop=16),
        output="probabilities",
        recipe={"folders": FOLDERS},
    )
    store.publish_program(
        card, parser.parse_model(f'<ir_version: 9, opset_import: ["" : 17]> {GRAPH}').SerializeToString()
    )
    return store


@pytest.fixture
def victim(with_program: ModelStore) -> Classifier:
    return load_classifier(with_program, "colours", torch.device("cpu"))


def reddish() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    images = torch.full((2, 3, 16, 16), 0.5)
    images[:, 0] += 0.01
    return images, {"labels": torch.zeros(2, dtype=torch.int64)}


def test_it_is_judged_by_its_own_probabilities(victim: Classifier) -> None:
    images, truths = reddish()
    answers = victim.answer(images.unsqueeze(1))
    expected = (40 * images.mean(dim=(2, 3))).log_softmax(dim=1)
    torch.testing.assert_close(answers["log_probabilities"], expected, atol=1e-4, rtol=0)
    assert victim.score(answers, truths).percent == 100


def test_a_white_box_attack_ends_in_one_line_that_names_the_next_step(victim: Classifier) -> None:
    images, truths = reddish()
    generator = torch.Generator().manual_seed(0)
    with pytest.raises(IncompatibleWeightsError, match=r"by transfer \(SSP, a surrogate\) or by score") as failure:
        PGD(8.0, iterations=1)(images, victim.knowledge(truths, generator), generator)
    assert "\n" not in str(failure.value)


def test_an_attack_by_score_finds_its_way(victim: Classifier) -> None:
    images, truths = reddish()
    generator = torch.Generator().manual_seed(0)
    adversaries = Square(8.0, queries=30)(images, victim.knowledge(truths, generator), generator)
    assert victim.score(victim.answer(adversaries.unsqueeze(1)), truths).percent == 0


def test_an_attack_by_transfer_is_judged_on_it(victim: Classifier, surrogate: Surrogate) -> None:
    images, truths = reddish()
    generator = torch.Generator().manual_seed(0)
    adversaries = SSP(8.0, iterations=1)(images, surrogate.learn(truths, generator), generator)
    assert victim.answer(adversaries.unsqueeze(1))["log_probabilities"].isfinite().all()


def test_nrp_evaluate_says_it_in_one_line_and_writes_no_result(
    with_program: ModelStore, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", "purifier", "plain", "--victims", "colours", "--data", str(data), "--modes", "static"]
    more = ["--store", str(with_program.root), "--limit", "3", "--eps", "4", "--output", str(tmp_path / "out")]
    assert nrp.main([*words, *more, "--selection-fraction", "0", "--adaptive-count", "0"]) != 0
    said = [line for line in capsys.readouterr().err.splitlines() if "nrp: error" in line]
    assert len(said) == 1
    assert said[0].endswith("attack it by transfer (SSP, a surrogate) or by score (Square)")
    assert not (tmp_path / "out" / "evaluation.json").exists()


@pytest.mark.skipif(not COCO.is_dir(), reason="no shared/data/coco-val128")
def test_fastestdet_finds_what_coco_s_photos_show() -> None:
    pytest.importorskip("pycocotools", reason="the extra evaluate is not installed")
    try:
        found = load_victim(ModelStore(), "fastestdet", torch.device("cpu"))
    except UnavailableModelError as error:
        pytest.skip(str(error))
    assert isinstance(found, Detector)
    assert (found.size, len(found.classes)) == ((352, 352), 80)
    examples = read_yolo(COCO, found.size, 24)
    answers = found.answer(to_float(examples.pixels).unsqueeze(1))
    assert found.score(answers, examples.truths).percent > 25
    shuffled = {"boxes": examples.truths["boxes"].roll(1, 0), "labels": examples.truths["labels"].roll(1, 0)}
    assert found.score(answers, shuffled).percent < 5
