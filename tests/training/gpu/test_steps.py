"""The steps of a visit: each in its time, what becomes of it, and that none costs the others anything."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest

from training.gpu import steps as module
from training.gpu.stamp import Stamp
from training.gpu.steps import Step, Steps

STAMP = Stamp("a GPU", "2.11", "abc")


@pytest.fixture
def steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Steps:
    (tmp_path / "well.py").write_text("import sys\nopen('said', 'w').write(' '.join(sys.argv[1:]))\n")
    (tmp_path / "ill.py").write_text("import sys\nsys.exit(3)\n")
    (tmp_path / "endless.py").write_text("import time\nwhile True:\n    time.sleep(0.01)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "LEAST", 0.0)
    return Steps(time.monotonic(), tmp_path / "out" / "report.json", STAMP)


def test_a_step_is_told_its_minutes_and_reported(steps: Steps, tmp_path: Path) -> None:
    assert steps.do(Step("first", "well", ["a", Path("b")], 1.0)).outcome == "done"
    words = (tmp_path / "said").read_text().split()
    assert words[:3] == ["a", "b", "--minutes"]
    assert 0 < float(words[3]) <= 1.0
    report = json.loads(steps.report.read_text())
    assert (report["device"], report["torch_version"], report["commit"]) == ("a GPU", "2.11", "abc")
    assert [(one["step"], one["outcome"]) for one in report["steps"]] == [("first", "done")]


def test_what_a_step_leaves_is_the_next_ones(steps: Steps, tmp_path: Path) -> None:
    steps.do(Step("first", "well", [], 1.0))
    steps.do(Step("second", "well", [], 1.0))
    assert 1.0 < float((tmp_path / "said").read_text().split()[1]) <= 2.0


def test_a_failure_is_said_and_the_next_step_is_done(steps: Steps) -> None:
    assert steps.do(Step("first", "ill", [], 1.0)).outcome == "failed"
    assert "ended with 3" in steps.outcomes[0].why
    assert steps.do(Step("second", "well", [], 1.0)).outcome == "done"
    assert not steps.well
    assert steps.told() == "first failed, second done"


def test_what_cannot_be_done_is_skipped_with_the_reason(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    assert steps.do(Step("first", "well", [], 0)).why == "no minutes were given to it"
    assert steps.do(Step("second", "well", [], 1.0, "photos are not there")).why == "photos are not there"
    monkeypatch.setattr(module, "LEAST", 1e9)
    assert steps.do(Step("third", "well", [], 1.0)).why == "no time is left"
    assert [one.outcome for one in steps.outcomes] == ["skipped"] * 3
    assert steps.well
    assert not Path("said").exists()


def test_one_that_does_not_end_is_ended_and_the_report_says_so(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GRACE", 0.5)
    monkeypatch.setattr(module, "LEAST", -60.0)
    steps.began = time.monotonic() - 60  # its minute is over already, so it has the grace alone
    assert steps.do(Step("endless", "endless", [], 1.0)).outcome == "stopped"
    assert "kept" in steps.outcomes[0].why
    assert steps.well


def test_modules_are_run_by_this_python(steps: Steps, tmp_path: Path) -> None:
    (tmp_path / "which.py").write_text("import sys\nopen('python', 'w').write(sys.executable)\n")
    steps.do(Step("which", "which", [], 1.0))
    assert Path("python").read_text() == sys.executable
