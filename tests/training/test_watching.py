"""What TensorBoard is told, through event files that are read back."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from training.errors import RunError
from training.watching import FOLDER, UNWATCHED, LogLines, TensorBoard, Watchers


def grids(number: int) -> Mapping[str, Tensor]:
    return {"seen": torch.full((3, 3, 4, 5), 0.25), "target": torch.full((3, 3, 4, 5), 2.0)}


def read(folder: Path) -> dict[str, list[tuple[int, object]]]:
    """Every event in ``folder``, by tag."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # noqa: PLC0415

    held = EventAccumulator(str(folder / FOLDER))
    held.Reload()
    tags = held.Tags()
    found = {tag: [(event.step, event.value) for event in held.Scalars(tag)] for tag in tags["scalars"]}
    return found | {
        tag: [(event.step, (event.width, event.height)) for event in held.Images(tag)] for tag in tags["images"]
    }


def test_without_tensorboard_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(RunError, match=r"\.\[train\].*leave out --tensorboard"):
        TensorBoard(tmp_path)


def test_curves_and_grids_are_written(tmp_path: Path) -> None:
    board = TensorBoard(tmp_path)
    board.scalars(10, {"loss": 1.5})
    board.scalars(20, {"loss": 0.5, "score": 0.9})
    board.images(20, grids)
    board.close()
    told = read(tmp_path)
    assert told["loss"] == [(10, 1.5), (20, 0.5)]
    assert told["score"][0] == (20, pytest.approx(0.9))
    assert told["images"] == [(20, (15, 8))]


def test_what_was_written_beyond_the_checkpoint_is_not_shown_again(tmp_path: Path) -> None:
    for begin, values in ((0, {10: 1.0, 20: 2.0}), (10, {20: 3.0})):
        board = TensorBoard(tmp_path, begin=begin)
        for step, value in values.items():
            board.scalars(step, {"loss": value})
        board.close()
    assert read(tmp_path)["loss"] == [(10, 1.0), (20, 3.0)]


def test_unwatched_asks_for_no_image() -> None:
    def refuse(_: int) -> Mapping[str, Tensor]:
        raise AssertionError("made images that nobody looks at")

    UNWATCHED.images(1, refuse)
    UNWATCHED.scalars(1, {"loss": 1.0})
    UNWATCHED.close()


def test_log_lines_tell_the_means_since_the_last_line_and_every_score(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    clock = iter((0.0, 30.0, 70.0, 80.0))
    monkeypatch.setattr("training.watching.time.monotonic", lambda: next(clock))
    watcher = LogLines(60, 500, lines.append)
    for done, pixel in ((10, 9.0), (20, 1.0), (30, 3.0)):
        watcher.scalars(done, {"pixel": pixel})
    watcher.scalars(30, {"score": 0.5, "agrees_clean": 1.0})
    watcher.scalars(40, {"pixel": 7.0})
    assert lines == [
        "step 30 of 500, 3.50 s a step, pixel 2.0000",
        "step 30 of 500, validation: score 0.5000, agrees_clean 1.0000",
    ]


def test_several_watchers_are_each_told() -> None:
    first, second = (LogLines(60, 500, print) for _ in range(2))
    both = Watchers(first, second)
    both.scalars(1, {"score": 1.0})
    both.images(1, dict)  # type: ignore[arg-type]
    both.close()
    assert first.scores == second.scores == {"score": 1.0}
