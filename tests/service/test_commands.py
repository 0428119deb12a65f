from __future__ import annotations

import argparse
import importlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog
import torch
from PIL import Image

import nrp
from model_store.errors import NrpError, TamperedWeightsError
from service.engine import Engine


def run(verb: str, *words: object) -> Any:
    """One command, as ``nrp`` calls it."""
    parser = argparse.ArgumentParser()
    module = importlib.import_module(nrp.VERBS[verb].module)
    getattr(module, f"configure_{verb}")(parser)
    return getattr(module, f"run_{verb}")(parser.parse_args([str(word) for word in words]))


@pytest.fixture
def on_store(store_root: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The options that choose the tiny store."""
    monkeypatch.setenv("NRP_CLASSIFIER", "tiny")
    monkeypatch.setenv("NRP_PRECISION", "float32")
    return ["--store", store_root, "--purifier", "plain", "--device", "cpu"]


@pytest.fixture
def album(tmp_path: Path, photo: Callable[..., Image.Image]) -> Any:
    """Images of several shapes and formats, one of them broken, in nested folders."""
    root = tmp_path / "album"
    (root / "deep").mkdir(parents=True)
    photo(20, 10, 1).save(root / "one.png")
    photo(20, 10, 2).save(root / "two.png")
    photo(16, 16, 3).save(root / "deep" / "three.webp", lossless=True)
    photo(20, 10, 4).save(root / "deep" / "four.bmp")
    photo(20, 10, 5).save(root / "five.jpg")
    return root


@pytest.fixture(autouse=True)
def _logging_put_back() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def test_what_is_logged_does_not_mix_with_the_result(
    on_store: list[object],
    album: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    forward = Engine._forward

    def tight(engine: Engine, module: Any, images: Any) -> Any:
        if len(images) > 1:
            raise torch.OutOfMemoryError("no memory")
        return forward(engine, module, images)

    monkeypatch.setattr(Engine, "_forward", tight)
    assert run("purify", album, "--output", tmp_path / "out", "--json", *on_store) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["written"] == 5
    assert "out_of_memory" in captured.err


def test_purify_keeps_names_folders_sizes_and_pixels(
    on_store: list[object], album: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run("purify", album, "--output", out, *on_store) == 0
    for name, became in {
        "one.png": "one.png",
        "two.png": "two.png",
        "deep/three.webp": "deep/three.webp",
        "deep/four.bmp": "deep/four.png",
    }.items():
        assert np.array_equal(np.asarray(Image.open(out / became)), np.asarray(Image.open(album / name)))
    with Image.open(out / "five.jpg") as jpeg:
        assert (jpeg.format, jpeg.size) == ("JPEG", (20, 10))
    captured = capsys.readouterr()
    assert "5/5" in captured.err
    assert captured.out == ""
    assert not list(out.rglob("*.part"))


def test_purify_goes_on_past_bad_files_names_them_and_says_so_in_its_status(
    on_store: list[object], album: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (album / "empty.png").write_bytes(b"")
    (album / "text.jpg").write_text("hello")
    (album / "short.png").write_bytes((album / "one.png").read_bytes()[:200])
    assert run("purify", album, "--output", tmp_path / "out", *on_store, "--json") == 1
    captured = capsys.readouterr()
    summary = json.loads(captured.out)
    assert summary["written"] == 5
    assert {entry["file"].rsplit("/", 1)[1] for entry in summary["failed"]} == {"empty.png", "text.jpg", "short.png"}
    for name in ("empty.png: the body is empty", "text.jpg: the bytes are no", "short.png: the image cannot be read"):
        assert name in captured.err
    assert "3 of 8 images failed" in captured.err
    assert not (tmp_path / "out" / "empty.png").exists()


def test_purify_reports_what_cannot_be_written(
    on_store: list[object], album: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    (out / "one.png").mkdir(parents=True)
    assert run("purify", album, "--output", out, *on_store) == 1
    assert "one.png: cannot write" in capsys.readouterr().err
    assert (out / "two.png").is_file()


def test_purify_with_a_seed_is_reproducible_and_agrees_with_the_service(
    on_store: list[object], album: Path, tmp_path: Path, client: Any, image_of: Callable[[bytes], Image.Image]
) -> None:
    for name in ("first", "second"):
        assert (
            run("purify", album / "one.png", "--output", tmp_path / name, *on_store, "--mode", "noisy", "--seed", 7)
            == 0
        )
    first = np.asarray(Image.open(tmp_path / "first" / "one.png"))
    assert np.array_equal(first, np.asarray(Image.open(tmp_path / "second" / "one.png")))
    served = client.post("/purify?mode=noisy&seed=7", content=(album / "one.png").read_bytes())
    assert np.array_equal(first, np.asarray(image_of(served.content)))
    assert not np.array_equal(first, np.asarray(Image.open(album / "one.png")))


def test_purify_many_images_of_a_few_shapes(
    on_store: list[object], tmp_path: Path, photo: Callable[..., Image.Image]
) -> None:
    source = tmp_path / "many"
    source.mkdir()
    for number in range(100):
        photo(16 + number % 3, 16, number).save(source / f"{number}.png")
    assert run("purify", source, "--output", tmp_path / "out", *on_store) == 0
    for number in (0, 31, 32, 99):
        assert np.array_equal(
            np.asarray(Image.open(tmp_path / "out" / f"{number}.png")), np.asarray(photo(16 + number % 3, 16, number))
        )
    assert len(list((tmp_path / "out").iterdir())) == 100


def test_purify_needs_no_classifier(
    on_store: list[object], album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NRP_CLASSIFIER", "torchvision:nonsense")
    assert run("purify", album / "one.png", "--output", tmp_path / "out", *on_store) == 0


@pytest.mark.parametrize("wrong", [["--mode", "wild"], ["--purifier", "nope"], ["--samples", "99", "--mode", "noisy"]])
def test_a_wrong_option_is_an_error_of_one_line_and_writes_nothing(
    on_store: list[object], album: Path, tmp_path: Path, wrong: list[str]
) -> None:
    with pytest.raises(NrpError) as failure:
        run("purify", album, "--output", tmp_path / "out", *on_store, *wrong)
    assert "\n" not in str(failure.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("wrong", [["--seed", "-1"], ["--samples", "0"], ["--device", "abacus"], ["--format", "tiff"]])
def test_what_no_option_takes_is_a_usage_error(
    on_store: list[object], album: Path, tmp_path: Path, wrong: list[str]
) -> None:
    with pytest.raises(SystemExit) as usage:
        run("purify", album, "--output", tmp_path / "out", *on_store, *wrong)
    assert usage.value.code == 2


def test_classify_prints_a_row_for_each_file_in_order(
    on_store: list[object], album: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("classify", album / "two.png", album / "one.png", *on_store, "--compare") == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(str(album / "two.png"))
    assert second.startswith(str(album / "one.png"))
    for line in (first, second):
        assert any(label in line for label in ("cat", "dog", "newt"))
        assert "%" in line
        assert "unpurified" in line


def test_classify_as_json_agrees_with_the_service(
    on_store: list[object], album: Path, capsys: pytest.CaptureFixture[str], client: Any
) -> None:
    capsys.readouterr()
    assert run("classify", album / "one.png", *on_store, "--compare", "--top-k", 3, "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    served = client.post("/classify-robust?compare=true", content=(album / "one.png").read_bytes()).json()
    result = printed["results"][0]
    assert printed["failed"] == []
    for part in ("predictions", "undefended", "suspicion", "mode", "model", "purifier"):
        assert result[part] == served[part]


def test_classify_names_what_failed(on_store: list[object], album: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (album / "bad.png").write_bytes(b"\x89PNG nonsense")
    assert run("classify", album, *on_store) == 1
    captured = capsys.readouterr()
    assert "bad.png" in captured.err
    assert len(captured.out.splitlines()) == 5


def test_serve_stops_at_tampered_weights_before_it_listens(
    on_store: list[object], store_root: Path, tmp_path: Path
) -> None:
    root = shutil.copytree(store_root, tmp_path / "store")
    (root / "plain" / "weights.safetensors").write_bytes(b"tampered")
    with pytest.raises(TamperedWeightsError) as failure:
        run("serve", "--store", root, "--purifier", "plain", "--port", 0)
    assert "\n" not in str(failure.value)


def test_serve_says_what_is_wrong_with_a_setting(on_store: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NRP_MAX_PIXELS", "many")
    with pytest.raises(NrpError, match="NRP_MAX_PIXELS"):
        run("serve", *on_store)
