from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import nrp
from service.bench import commands
from service.bench.conductor import Plan
from service.bench.rows import Report, Row, read_report

SOME = Row(measure="soak", subject="nrp", setting="mixed sizes", figures={"good": 10_000.0, "requests": 10_000.0,
           "errors": 0.0, "growth": 1.2, "rss_first_mib": 100.0, "rss_end_mib": 120.0})  # fmt: skip


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Plan]:
    """Nothing is measured; the plans are kept."""
    plans: list[Plan] = []

    def conduct(plan: Plan) -> Iterator[Row]:
        plans.append(plan)
        yield SOME

    monkeypatch.setattr(commands, "conduct", conduct)
    return plans


def test_a_run_leaves_rows_and_a_page_and_says_its_verdicts(
    measured: list[Plan], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert nrp.main(["bench", "--output", str(tmp_path), "--arms", "nrp,fastapi", "--clients", "1,2"]) == 0
    (plan,) = measured
    assert plan.arms == ("nrp", "fastapi")
    assert [phase.name for phase in plan.phases] == ["1 client", "2 clients", "50 %", "80 %", "120 %", "200 %"]
    assert (plan.minutes, plan.rounds, plan.task.side, plan.task.purifier) == (25.0, 2, 224, "nrp-fast")
    report = read_report(tmp_path / "serving.jsonl")
    assert report.rows == (SOME,)
    assert report.run.command == "nrp bench --clients 1,2 --arms nrp,fastapi"
    assert "1.200" in (tmp_path / "serving.md").read_text()
    assert "missed  memory after" in capsys.readouterr().out


def test_the_command_in_the_rows_is_one_that_parses(measured: list[Plan], tmp_path: Path) -> None:
    options = ["--quick", "--soak", "7", "--mode", "default", "--minutes", "0.5"]
    assert nrp.main(["bench", *options, "--output", str(tmp_path)]) == 0
    command = read_report(tmp_path / "serving.jsonl").run.command
    parser, _ = nrp.load_verb("bench")
    args = parser.parse_args(shlex.split(command)[2:])
    assert (args.quick, args.soak, args.mode, args.minutes) == (True, 7, "default", 0.5)
    assert measured[0].arms == ("nrp", "fastapi")
    assert str(tmp_path) not in command


def test_rendering_measures_nothing(measured: list[Plan], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--output", str(tmp_path)]
    assert nrp.main(["bench", "--render", *where]) == 1  # there are no rows yet
    assert nrp.main(["bench", *where]) == 0
    (tmp_path / "serving.md").unlink()
    capsys.readouterr()
    assert nrp.main(["bench", "--render", "--json", *where]) == 0
    assert (tmp_path / "serving.md").is_file()
    assert len(measured) == 1
    verdicts: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    assert next(one for one in verdicts if one["bar"].startswith("memory"))["verdict"] == "missed"


def test_what_was_measured_before_a_failure_is_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, report_of: Callable[..., Report]
) -> None:
    def conduct(_: Plan) -> Iterator[Row]:
        yield SOME
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "conduct", conduct)
    assert nrp.main(["bench", "--output", str(tmp_path)]) == nrp.INTERRUPTED
    assert read_report(tmp_path / "serving.jsonl").rows == (SOME,)


@pytest.mark.parametrize(
    "options",
    [
        ["--arms", "triton"],
        ["--arms", ""],
        ["--clients", "0"],
        ["--clients", "x"],
        ["--minutes", "0"],
        ["--side", "8"],
        ["--soak", "-1"],
    ],
)
def test_what_makes_no_sense_is_refused(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        nrp.main(["bench", *options])
    assert left.value.code == 2
    assert options[0] in capsys.readouterr().err
