"""`nrp evaluate cost`: defences timed in turn, kept as lines."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from model_store.errors import NrpError
from model_store.store import ModelStore
from robustness import cost_verb
from robustness.commands import configure_evaluate, run_evaluate
from robustness.conditions import Conditions
from robustness.cost import limited, middle_half, time_defences
from robustness.defences import BASELINES, BitDepth, Defence, Jpeg, NoDefence
from robustness.errors import EvaluationError
from robustness.progress import Progress
from robustness.results.timing import read_timings

Run = Callable[..., int]
CPU = Conditions(0, 1, torch.device("cpu"))


class Noted(NoDefence):
    """A defence that notes its turns."""

    def __init__(self, title: str, turns: list[str]) -> None:
        object.__setattr__(self, "title", title)
        object.__setattr__(self, "turns", turns)

    @property
    def name(self) -> str:
        return str(self.__dict__["title"])

    def draws(self, images: Tensor, seeds: Sequence[int]) -> Tensor:
        self.__dict__["turns"].append(f"{self.name} {tuple(images.shape)} {torch.get_num_threads()}")
        return super().draws(images, seeds)


@pytest.fixture
def cost(store: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(cost_verb, "BASELINES", (Jpeg(20), BitDepth(4)))

    def run(*words: str) -> int:
        parser = argparse.ArgumentParser()
        configure_evaluate(parser)
        places = ["--store", str(store.root), "--results", str(tmp_path), "--side", "16", "--threads", "1"]
        return run_evaluate(parser.parse_args(["cost", *places, "--repeats", "3", *words]))

    return run


def test_defences_are_timed_in_turn_after_two_rounds_that_do_not_count() -> None:
    turns: list[str] = []
    arms = [Noted("a", turns), Noted("b", turns)]
    found = time_defences(arms, 8, 3, 1, CPU, Progress(quiet=True))
    assert turns == ["a (1, 3, 8, 8) 1", "b (1, 3, 8, 8) 1"] * 5
    assert {name: len(runs) for name, runs in found.items()} == {"a": 3, "b": 3}
    assert all(run > 0 for runs in found.values() for run in runs)


def test_a_round_s_time_is_the_defence_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([second for turn in range(5) for second in (turn, turn + 0.25, turn, turn + 0.5)])
    monkeypatch.setattr("robustness.cost.time.perf_counter", lambda: next(ticks))
    arms: list[Defence] = [Jpeg(20), BitDepth(4)]
    found = time_defences(arms, 8, 3, 1, CPU, Progress(quiet=True))
    assert found == {"JPEG 20": [250.0] * 3, "bit depth 4": [500.0] * 3}


def test_threads_are_what_they_were_afterwards() -> None:
    before = torch.get_num_threads()
    seen: list[int] = []

    def killed() -> None:
        with limited(before + 1):
            seen.append(torch.get_num_threads())
            raise KeyError

    with pytest.raises(KeyError):
        killed()
    assert seen == [before + 1]
    assert torch.get_num_threads() == before


def test_the_middle_half_leaves_the_extremes_out() -> None:
    assert middle_half([1.0, 2.0, 3.0, 4.0, 100.0]) == (2.0, 4.0)
    assert middle_half([5.0]) == (5.0, 5.0)


def test_nothing_cannot_be_timed() -> None:
    with pytest.raises(EvaluationError, match="at least one defence"):
        time_defences([], 8, 3, 1, CPU, Progress(quiet=True))


def test_purifiers_baselines_and_untrained_architectures_become_timings(cost: Run, tmp_path: Path) -> None:
    assert cost("--purifier", "noisy,plain", "--architecture", "identity") == 0
    found = {timing.defence: timing for timing in read_timings(tmp_path / "cost.jsonl")}
    assert set(found) == {"JPEG 20", "bit depth 4", "noisy heavy", "plain static", "identity untrained"}
    assert [found[name].trained for name in ("noisy heavy", "identity untrained")] == [True, False]
    assert [found[name].architecture for name in ("JPEG 20", "noisy heavy")] == ["", "identity"]
    one = found["noisy heavy"]
    assert (one.side, one.threads, one.repeats, one.device, one.precision) == (16, 1, 3, "cpu", "float32")
    assert one.quartiles[0] <= one.milliseconds <= one.quartiles[1]
    assert one.command == (
        "nrp evaluate cost --purifier noisy,plain --architecture identity --side 16 --threads 1 --repeats 3"
    )


def test_measuring_again_replaces_the_line_and_another_setting_stands_beside(cost: Run, tmp_path: Path) -> None:
    cost("--purifier", "noisy")
    cost("--purifier", "noisy", "--repeats", "4", "--modes", "static")
    found = read_timings(tmp_path / "cost.jsonl")
    assert sorted(timing.defence for timing in found) == ["JPEG 20", "bit depth 4", "noisy heavy", "noisy static"]
    assert {timing.repeats for timing in found} == {4}
    cost("--side", "24")
    assert len(read_timings(tmp_path / "cost.jsonl")) == 6


def test_timings_are_printed_as_a_table_or_as_json(cost: Run, capsys: pytest.CaptureFixture[str]) -> None:
    cost()
    assert "JPEG 20" in capsys.readouterr().out
    cost("--json")
    assert {timing["defence"] for timing in json.loads(capsys.readouterr().out)} == {"JPEG 20", "bit depth 4"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--architecture", "resnet_small"), "no purifier's architecture"),
        (("--architecture", "nothing"), "unknown architecture 'nothing'"),
        (("--purifier", "victim-a"), "victim-a is a classifier"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(cost: Run, words: tuple[str, str], message: str) -> None:
    with pytest.raises(NrpError, match=message):
        cost(*words)


def test_a_damaged_line_is_named(cost: Run, tmp_path: Path) -> None:
    (tmp_path / "cost.jsonl").write_text("no timing\n")
    with pytest.raises(EvaluationError, match="line 1 is no timing"):
        cost()


def test_every_baseline_of_the_tables_is_timed() -> None:
    assert cost_verb.BASELINES is BASELINES
