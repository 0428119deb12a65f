"""`nrp attack`, from a drawn picture to the PNG that fools the model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import nrp
from model_store.card import Card, InputConvention
from model_store.errors import UnavailableModelError
from model_store.store import ModelStore
from robustness.attack_verb import class_named, plan_outputs, write_png
from robustness.errors import AttackError, EvaluationError, VictimError
from robustness.photo_attack import Target, load_target

IMAGES = Path(nrp.__file__).parent / "docs" / "images"

Attack = Callable[..., int]


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A drawn picture, 40 wide and 30 high, greenish as the victims' second class is."""
    rows, columns = np.mgrid[0:30, 0:40]
    values = np.stack([110 + columns, 150 + rows, 120 + (rows + columns) // 4], axis=-1).astype(np.uint8)
    Image.fromarray(values).save(tmp_path / "drawn.png")
    return tmp_path / "drawn.png"


@pytest.fixture
def attack(store: ModelStore, picture: Path, tmp_path: Path) -> Attack:
    """Run ``nrp attack`` on the picture, against victim-a unless told otherwise."""

    def run(*words: str, inputs: tuple[Path, ...] = (picture,), model: str = "victim-a") -> int:
        options = ["--store", str(store.root), "--output", str(tmp_path / "out"), "--device", "cpu"]
        return nrp.main(["attack", *map(str, inputs), "--model", model, *options, *words])

    return run


def pixels_of(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def test_a_picture_is_attacked_written_and_said(
    attack: Attack, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert attack("--eps", "16", "--steps", "10", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    written = tmp_path / "out" / "drawn-adversarial.png"
    assert [entry.name for entry in (tmp_path / "out").iterdir()] == [written.name]
    change = np.abs(pixels_of(written) - pixels_of(picture))
    assert pixels_of(written).shape == (30, 40, 3)
    (outcome,) = said["images"]
    assert 0 < change.max() == outcome["largest_change"] <= 16
    assert (outcome["file"], outcome["output"]) == (str(picture), str(written))
    assert outcome["fooled"]
    assert outcome["before"]["label"] == outcome["truth"] != outcome["after"]["label"]
    assert said["attack"] == "PGD-10 untargeted"
    assert (said["model"], said["eps"], said["seed"], said["surrogate"]) == ("victim-a", 16, 0, None)


def test_the_seed_decides_all(attack: Attack, tmp_path: Path) -> None:
    def made(seed: str) -> bytes:
        assert attack("--steps", "2", "--seed", seed) == 0
        return (tmp_path / "out" / "drawn-adversarial.png").read_bytes()

    assert made("1") == made("1") != made("2")


def test_the_table_says_what_changed(attack: Attack, capsys: pytest.CaptureFixture[str]) -> None:
    assert attack("--eps", "16", "--steps", "10") == 0
    title, heads, row = capsys.readouterr().out.splitlines()
    assert title == "PGD-10 untargeted, 16/255"
    assert heads.split("  ")[0] == "photo"
    assert "victim-a before" in heads
    assert " yes " in row
    assert "16/255" in row
    assert row.endswith("drawn-adversarial.png")


def test_a_class_is_aimed_at_by_name_or_number(attack: Attack, capsys: pytest.CaptureFixture[str]) -> None:
    assert attack("--json", "--steps", "1") == 0
    own = json.loads(capsys.readouterr().out)["images"][0]["before"]["index"]
    other = (own + 1) % 3
    for text in (str(other), ("RED", "green", "Blue")[other]):
        assert attack("--json", "--eps", "16", "--attack", "PGD-10", "--targeted", text) == 0
        said = json.loads(capsys.readouterr().out)
        assert said["attack"] == "PGD-10 targeted"
        (outcome,) = said["images"]
        assert outcome["aim"] == ("red", "green", "blue")[other]
        assert outcome["fooled"] == (outcome["after"]["index"] == other)
    assert attack("--attack", "PGD-10", "--targeted", str(own)) == 1
    assert "already; aim at another class" in capsys.readouterr().err


def test_the_true_class_may_be_told(attack: Attack, capsys: pytest.CaptureFixture[str]) -> None:
    assert attack("--json", "--steps", "1", "--label", "blue") == 0
    (outcome,) = json.loads(capsys.readouterr().out)["images"]
    assert outcome["truth"] == "blue"
    assert outcome["fooled"] == (outcome["after"]["label"] != "blue")


@pytest.mark.parametrize(
    "words",
    [
        ("--attack", "SSP", "--steps", "2", "--surrogate", "features"),
        ("--attack", "FSA", "--steps", "2", "--surrogate", "features"),
        ("--attack", "SSP", "--steps", "2", "--surrogate", "features,victim-b:stages.0"),
        ("--attack", "MI-FGSM", "--steps", "2", "--surrogate", "victim-b"),
        ("--attack", "FSA", "--steps", "2"),
        ("--attack", "Square", "--steps", "5"),
    ],
)
def test_other_attacks_and_surrogates_write_their_picture(
    attack: Attack, tmp_path: Path, words: tuple[str, ...]
) -> None:
    assert attack(*words) == 0
    assert (tmp_path / "out" / "drawn-adversarial.png").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--attack", "magic"), "no attack 'magic'; there are: FGSM"),
        (("--targeted", "grene"), "victim-a has no class 'grene'; did you mean green?"),
        (("--label", "7"), "victim-a has no class 7; give 0 to 2"),
        (("--attack", "SSP"), "SSP attacks features"),
        (("--surrogate", "nobody"), "no model 'nobody'"),
    ],
)
def test_what_cannot_be_asked_is_one_line_and_writes_nothing(
    attack: Attack, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    assert attack(*words) == 1
    shown = capsys.readouterr()
    assert message in shown.err
    assert shown.err.count("\n") == 1
    assert shown.out == ""
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_no_image_stops_the_run_before_anything_is_attacked(
    attack: Attack, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "words.png").write_text("no image")
    for other in ("words.png", "nowhere.png"):
        assert attack(inputs=(picture, tmp_path / other)) == 1
        assert f"{other} cannot be decoded" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_onnx_program_is_attacked_by_queries_alone(
    store: ModelStore, attack: Attack, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    helper = onnx.helper
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Mul", ["flat", "fifty"], ["logits"]),
    ]
    floats = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "shades",
        [helper.make_tensor_value_info("x", floats, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info("logits", floats, ["n", 3])],
        [helper.make_tensor("fifty", floats, [], [50.0])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    card = Card(
        name="shades",
        summary="s",
        task="classifier",
        architecture="onnx",
        input=InputConvention(short_side=16, crop=16),
        labels=("red", "green", "blue"),
    )
    store.publish_program(card, model.SerializeToString())
    assert attack(model="shades") == 1
    assert "shades is an ONNX program, which gives no gradient for PGD-50 untargeted" in capsys.readouterr().err
    assert attack("--attack", "Square", "--steps", "4", model="shades") == 0
    assert (tmp_path / "out" / "drawn-adversarial.png").is_file()


def test_a_picture_that_is_there_is_replaced_and_an_input_never(
    attack: Attack, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = tmp_path / "out" / "drawn-adversarial.png"
    written.parent.mkdir()
    written.write_bytes(b"old")
    assert attack("--steps", "1") == 0
    assert pixels_of(written).shape == (30, 40, 3)
    source = picture.with_name("drawn-adversarial.png")
    source.write_bytes(picture.read_bytes())
    assert attack("--output", str(tmp_path), inputs=(picture, source)) == 1
    assert "drawn-adversarial.png is an input and would be overwritten" in capsys.readouterr().err


def test_two_photos_never_become_one_file(tmp_path: Path) -> None:
    with pytest.raises(AttackError, match=r"a.png and .*b.*a.jpg would both become .*a-adversarial.png"):
        plan_outputs([tmp_path / "a.png", tmp_path / "b" / "a.jpg"], tmp_path / "out")


def test_a_name_of_several_classes_wants_a_number() -> None:
    cranes = Target("birds", torch.nn.Identity(), InputConvention(), ("crane", "hen", "crane"), ())
    assert class_named("hen", cranes) == 1
    assert class_named("2", cranes) == 2
    with pytest.raises(VictimError, match="several classes 'crane'; give one of the numbers 0, 2"):
        class_named("crane", cranes)
    with pytest.raises(VictimError, match="no class 'zzz'; `nrp models show birds` lists"):
        class_named("zzz", cranes)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EvaluationError, match=r"x\.png cannot be written .*; choose another --output"):
        write_png(tmp_path / "file" / "x.png", torch.zeros(3, 4, 4, dtype=torch.uint8))


def test_the_documentations_photo_is_attacked_within_the_budget_it_states() -> None:
    clean, attacked = (pixels_of(IMAGES / name) for name in ("photo.png", "photo-adversarial.png"))
    assert clean.shape == attacked.shape == (299, 299, 3)
    assert np.abs(attacked - clean).max() == 8
    try:
        target = load_target(ModelStore(), "efficientnet-lite0", torch.device("cpu"))
    except UnavailableModelError as missing:
        pytest.skip(str(missing))
    before, after = (
        target.probabilities(torch.from_numpy(pixels).permute(2, 0, 1).to(torch.uint8), torch.device("cpu"))
        for pixels in (clean, attacked)
    )
    bus = class_named("school bus", target)
    assert before[bus] > 0.9
    assert after[bus] < 0.01
    assert after.max() > 0.9
