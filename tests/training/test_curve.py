from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from training.curve import plot_history, read_history
from training.errors import RunError

PAST = {
    "step": 2.0,
    "psnr_clean": 30.0,
    "psnr_adversary": 25.0,
    "agrees_clean": 1.0,
    "agrees_adversary": 0.5,
    "score": 0.75,
}


def saved(run: Path, state: object) -> Path:
    run.mkdir()
    torch.save({"step": 4, "state": state}, run / "checkpoint.pt")
    return run


def test_a_runs_validation_is_drawn(tmp_path: Path) -> None:
    run = saved(tmp_path / "run", {"validation": {"history": [PAST, {**PAST, "step": 4.0}]}})
    history = read_history(run)
    assert [past["step"] for past in history] == [2, 4]
    plot_history(history, tmp_path / "made" / "curve.png")
    drawn = Image.open(tmp_path / "made" / "curve.png")
    assert drawn.size == (1200, 450)
    assert len(drawn.convert("RGB").getcolors(1 << 20) or ()) > 2


def test_what_was_not_validated_is_told(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="name the folder of a run"):
        read_history(tmp_path / "nothing")
    with pytest.raises(RunError, match="not validated yet"):
        read_history(saved(tmp_path / "early", {"validation": {"history": []}}))
    with pytest.raises(RunError, match="holds no validation"):
        read_history(saved(tmp_path / "other", {"validation": None}))
