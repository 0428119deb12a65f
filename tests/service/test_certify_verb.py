"""``nrp classify --certify``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from PIL import Image

from service.commands import certify as certify_verb
from service.commands import classify as commands
from service.errors import InvalidParameterError
from tests.service.certificates import SIDE, BrightEngine


def run(*words: object) -> int:
    """The command, as ``nrp`` calls it."""
    parser = argparse.ArgumentParser()
    commands.configure_classify(parser)
    return commands.run_classify(parser.parse_args([str(word) for word in words]))


@pytest.fixture(autouse=True)
def _logging_put_back() -> Iterator[None]:
    yield
    structlog.reset_defaults()


@pytest.fixture
def certify(store_root: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """``nrp classify --certify`` on the tiny store, with a classifier whose boundary is known."""
    for name, value in {"CLASSIFIER": "tiny", "PRECISION": "float32", "SMOOTHING_PURIFIER": "noise"}.items():
        monkeypatch.setenv(f"NRP_{name}", value)
    monkeypatch.setattr(certify_verb, "Engine", BrightEngine)
    return lambda *words: run(*words, "--certify", "--store", store_root, "--device", "cpu")


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """A dog, a cat and what is neither."""
    root = tmp_path / "album"
    root.mkdir()
    for name, level in (("bright", 130), ("dark", 20)):
        Image.new("RGB", (SIDE, SIDE), (level, level, level)).save(root / f"{name}.png")
    between = Image.new("RGB", (SIDE, SIDE), (127, 127, 127))
    between.paste((128, 128, 128), (0, 0, SIDE, SIDE // 2))
    between.save(root / "between.png")
    return root


def test_each_file_gets_a_line_and_the_bar_counts_copies(
    certify: Callable[..., int], album: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert certify(album, "--n", 90, "--n0", 10, "--seed", 1) == 0
    captured = capsys.readouterr()
    between, bright, dark = captured.out.splitlines()
    assert bright.startswith(str(album / "bright.png"))
    assert "dog, L2 radius 0." in bright
    assert "cat, L2 radius 0." in dark
    assert "abstained" in between
    assert "300/300" in captured.err


def test_the_json_is_what_the_service_answers(
    certify: Callable[..., int], album: Path, client_for: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    (album / "broken.png").write_bytes(b"\x89PNG nonsense")
    query = {"n": 60, "n0": 20, "alpha": 0.01, "sigma": 0.2, "seed": 4}
    assert certify(album, "--json", *(word for name, value in query.items() for word in (f"--{name}", value))) == 1
    printed = json.loads(capsys.readouterr().out)
    client = client_for(BrightEngine, smoothing_purifier="noise")
    assert [entry["file"] for entry in printed["failed"]] == [str(album / "broken.png")]
    assert len(printed["results"]) == 3
    for result in printed["results"]:
        path = Path(result.pop("file"))
        served = client.post("/classify-robust", params={**query, "certify": True}, content=path.read_bytes()).json()
        assert result == {name: served[name] for name in result}


@pytest.mark.parametrize("wrong", [["--mode", "noisy"], ["--samples", 2], ["--compare"], ["--top-k", 1], ["--n", 9]])
def test_options_that_no_certificate_has_are_refused(
    certify: Callable[..., int], album: Path, wrong: list[object]
) -> None:
    with pytest.raises(InvalidParameterError):
        certify(album, *wrong)


def test_an_image_with_too_many_pixels_fails_alone(
    certify: Callable[..., int], album: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NRP_MAX_CERTIFY_PIXELS", str(110 * SIDE * SIDE))
    with Image.open(album / "dark.png") as dark:
        dark.resize((2 * SIDE, SIDE)).save(album / "dark.png")
    assert certify(album, "--n", 100, "--n0", 10) == 1
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 2
    assert "dark.png: 110 noisy copies" in captured.err
    assert "330/330" in captured.err


def test_without_certify_its_options_are_refused(store_root: Path, album: Path) -> None:
    with pytest.raises(InvalidParameterError, match="certify"):
        run(album, "--sigma", 0.25, "--store", store_root)


@pytest.mark.parametrize("wrong", [["--sigma", 0], ["--sigma", "nan"], ["--alpha", 1], ["--n", 0], ["--n0", "x"]])
def test_what_no_option_takes_is_a_usage_error(certify: Callable[..., int], album: Path, wrong: list[object]) -> None:
    with pytest.raises(SystemExit) as usage:
        certify(album, *wrong)
    assert usage.value.code == 2
