"""``nrp detect`` and ``nrp segment``: as the routes answer, for files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

import nrp
from model_store.errors import NrpError
from service.commands import asking
from tests.service.scenes import SHADES, SIDE, Blackout, SceneEngine


@pytest.fixture
def on_store(store_root: Path, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The options that choose the tiny store, with the scene networks beside it."""
    monkeypatch.setenv("NRP_PRECISION", "float32")
    monkeypatch.setattr(asking, "Engine", lambda settings, **_: SceneEngine(settings))
    return ["--store", store_root, "--purifier", "plain", "--device", "cpu"]


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """A scene with a white box, one that is half grey, and one that is black, in nested folders."""
    root = tmp_path / "album"
    (root / "deep").mkdir(parents=True)
    scene = Image.new("RGB", (32, SIDE))
    ImageDraw.Draw(scene).rectangle((8, 4, 19, 11), fill="white")
    scene.save(root / "box.png")
    half = Image.new("RGB", (32, SIDE))
    ImageDraw.Draw(half).rectangle((16, 0, 31, SIDE), fill=(128, 128, 128))
    half.save(root / "deep" / "half.bmp")
    Image.new("RGB", (32, SIDE)).save(root / "none.png")
    return root


def run(verb: str, *words: object) -> int:
    return nrp.run([verb, *map(str, words)])


def test_detect_prints_a_line_for_each_object(
    on_store: list[object], album: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("detect", album / "none.png", album / "box.png", "--score-threshold", 0.2, *on_store) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{album}/none.png  nothing found",
        f"{album}/box.png   bright 90.0%  8,4 to 20,12",
        f"{album}/box.png   faint 30.0%  8,4 to 20,12",
    ]


def test_detect_takes_the_threshold_of_the_route_by_default(
    on_store: list[object], album: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("detect", album / "box.png", *on_store) == 0
    assert "faint" not in capsys.readouterr().out


def test_detect_compares(
    on_store: list[object], album: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def blind(settings: Any, tasks: Any) -> SceneEngine:
        engine = SceneEngine(settings)
        engine._loaded["plain"] = Blackout()
        return engine

    monkeypatch.setattr(asking, "Engine", blind)
    assert run("detect", album / "box.png", "--compare", *on_store) == 0
    assert [line.split("  ", 1)[1] for line in capsys.readouterr().out.splitlines()] == [
        "nothing found", "unpurified: bright 90.0%  8,4 to 20,12",
    ]  # fmt: skip


def test_detect_as_json_agrees_with_the_service(
    on_store: list[object], album: Path, capsys: pytest.CaptureFixture[str], client_for: Any
) -> None:
    client = client_for(SceneEngine)
    capsys.readouterr()
    words = ["--compare", "--score-threshold", 0.2, "--json", "--mode", "noisy", "--seed", 3]
    assert run("detect", album / "box.png", *words, *on_store) == 0
    printed = json.loads(capsys.readouterr().out)
    query = "compare=true&score_threshold=0.2&mode=noisy&seed=3"
    served = client.post(f"/detect-robust?{query}", content=(album / "box.png").read_bytes()).json()
    (result,) = printed["results"]
    assert printed["failed"] == []
    assert len(result["undefended"]) == 2
    for part in ("objects", "undefended", "suspicion", "mode", "model", "purifier", "width", "height"):
        assert result[part] == served[part]


def test_segment_writes_masks_under_the_files_names_and_prints_shares(
    on_store: list[object], album: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "masks"
    assert run("segment", album, "--output", out, *on_store) == 0
    lines = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    assert {name.strip(): said.strip() for name, said in lines.items()} == {
        f"{album}/box.png": "black 87.5%, white 12.5%",
        f"{album}/deep/half.bmp": "black 50.0%, grey 50.0%",
        f"{album}/none.png": "black 100.0%",
    }
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*.*")) == [
        "box.png", "deep/half.png", "none.png",
    ]  # fmt: skip
    with Image.open(out / "box.png") as mask:
        assert (mask.mode, mask.size) == ("P", (32, SIDE))
        assert (np.asarray(mask)[4:12, 8:20] == SHADES.index("white")).all()


def test_segment_as_json_agrees_with_the_service(
    on_store: list[object], album: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], client_for: Any
) -> None:
    client = client_for(SceneEngine)
    capsys.readouterr()
    assert run("segment", album / "deep", "--output", tmp_path / "out", "--json", *on_store) == 0
    (result,) = json.loads(capsys.readouterr().out)["results"]
    data = (album / "deep" / "half.bmp").read_bytes()
    served = client.post("/segment-robust", content=data, headers={"accept": "application/json"}).json()
    assert result["classes"] == served["defended"]["classes"]
    assert (result["width"], result["height"]) == (32, SIDE)
    assert Path(result["mask"]).read_bytes() == client.post("/segment-robust", content=data).content
    for part in ("suspicion", "mode", "model", "purifier"):
        assert result[part] == served[part]


@pytest.mark.parametrize("verb", ["detect", "segment"])
def test_what_failed_is_named_and_the_rest_is_answered(
    on_store: list[object], album: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    (album / "bad.png").write_bytes(b"text")
    output = ["--output", tmp_path / "out"] if verb == "segment" else []
    assert run(verb, album, "--json", *output, *on_store) == 1
    captured = capsys.readouterr()
    printed = json.loads(captured.out)
    assert [Path(entry["file"]).name for entry in printed["failed"]] == ["bad.png"]
    assert [Path(entry["file"]).name for entry in printed["results"]] == ["box.png", "half.bmp", "none.png"]
    assert "1 of 4 images failed" in captured.err


def test_segment_names_what_cannot_be_written(
    on_store: list[object], album: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out" / "box.png").mkdir(parents=True)
    assert run("segment", album, "--output", tmp_path / "out", *on_store) == 1
    captured = capsys.readouterr()
    assert "box.png: cannot write" in captured.err
    assert len(captured.out.splitlines()) == 2
    assert not list(tmp_path.rglob("*.part"))


def test_segment_refuses_masks_of_one_name_and_masks_over_images(
    on_store: list[object], album: Path, tmp_path: Path
) -> None:
    Image.new("RGB", (4, 4)).save(album / "box.bmp")
    with pytest.raises(NrpError, match="both become"):
        run("segment", album, "--output", tmp_path / "out", *on_store)
    with pytest.raises(NrpError, match="overwritten"):
        run("segment", album / "box.png", "--output", album, *on_store)


@pytest.mark.parametrize(
    "words",
    [
        ("detect", "--score-threshold", "2"),
        ("detect", "--score-threshold", "nan"),
        ("segment",),
        ("segment", "--output", "x", "--top-k", "2"),
    ],
)
def test_what_no_option_takes_is_a_usage_error(on_store: list[object], album: Path, words: tuple[str, ...]) -> None:
    verb, *rest = words
    with pytest.raises(SystemExit) as usage:
        run(verb, album, *rest, *on_store)
    assert usage.value.code == 2


@pytest.mark.parametrize(("verb", "variable"), [("detect", "NRP_DETECTOR"), ("segment", "NRP_SEGMENTER")])
def test_without_a_model_for_the_task_the_setting_is_named(
    store_root: Path, album: Path, tmp_path: Path, verb: str, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "none")
    output = ["--output", tmp_path / "out"] if verb == "segment" else []
    with pytest.raises(NrpError, match=variable):
        run(verb, album, "--store", store_root, "--purifier", "plain", "--device", "cpu", *output)
