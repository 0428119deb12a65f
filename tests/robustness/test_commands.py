from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from model_store.errors import NrpError
from model_store.store import ModelStore
from robustness.adversaries import Keep, Threat, craft
from robustness.cache import Tensors
from robustness.commands import canonical_command, configure_evaluate, run_evaluate
from robustness.conditions import Conditions
from robustness.defences import Defence
from robustness.examples import Examples
from robustness.judgement import Bench, Trial, judge
from robustness.observations import Observation
from robustness.progress import Progress

Parse = Callable[..., argparse.Namespace]

VICTIMS = ("--victims", "victim-a,victim-b")
QUICK = (*VICTIMS, "--eps", "8", "--adaptive-count", "6", "--adaptive-steps", "2", "--batch", "5")
METHODS = ("BPDA PGD-2 untargeted", "full-gradient PGD-2 untargeted")


@pytest.fixture
def arguments(store: ModelStore, data: Path, tmp_path: Path) -> Parse:
    """Parse a command line of ``nrp evaluate`` with the test's store, data and output filled in."""

    def parse(*words: str) -> argparse.Namespace:
        parser = argparse.ArgumentParser()
        configure_evaluate(parser)
        common = ["--store", str(store.root), "--data", str(data), "--output", str(tmp_path / "out")]
        return parser.parse_args([*words[:2], *common, *words[2:]])

    return parse


def outcome(tmp_path: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    return result


def accuracies(result: dict[str, Any], defence: str) -> dict[tuple[str, str, int], float]:
    return {(r["victim"], r["attack"], r["eps"]): r["correct"] for r in result["accuracies"] if r["defence"] == defence}


@pytest.fixture
def crafted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The titles of the attacks that were really run."""
    titles: list[str] = []

    def counted(threat: Threat, examples: Examples, conditions: Conditions, progress: Progress, keep: Keep) -> Tensors:
        titles.append(threat.title)
        return craft(threat, examples, conditions, progress, keep)

    monkeypatch.setattr("robustness.judgement.craft", counted)
    return titles


def test_an_identity_purifier_is_measured_as_no_defence_exactly(arguments: Parse, tmp_path: Path) -> None:
    assert run_evaluate(arguments("purifier", "plain", *QUICK, "--modes", "static")) == 0
    result = outcome(tmp_path)
    bare, plain = accuracies(result, "none"), accuracies(result, "purifier static")
    assert bare == plain
    assert len(bare) == 9  # clean, targeted and untargeted, for two victims and their average
    assert {k["percent"] for k in result["kept"] if k["defence"] == "purifier static"} == {100.0}
    assert bare["victim-a", "clean", 0] >= 9
    assert bare["victim-a", "PGD-10 untargeted", 8] < bare["victim-a", "clean", 0]


def test_a_whole_run_says_what_it_did(arguments: Parse, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_evaluate(arguments("purifier", "noisy", *QUICK))
    result = outcome(tmp_path)
    rows = list(dict.fromkeys(r["defence"] for r in result["accuracies"]))
    purified = ["purifier heavy", "purifier static", "purifier published"]
    baselines = ["JPEG 75", "JPEG 50", "JPEG 20", "TV 30", "TV 10", "median 3x3", "bit depth 4"]
    assert rows == ["none", *baselines, *purified]
    assert result["default_mode"] == "heavy"
    assert result["photos"]["count"] == 12
    assert set(result["weights_sha256"]) == {"victim-a", "victim-b", "noisy"}
    assert torch.__version__.startswith(result["versions"]["torch"])
    assert len(result["margins"]) == 3 * 3
    assert {r["attack"] for r in result["adaptive"]} == {*METHODS, "least of the adaptive attacks"}
    assert {r["defence"] for r in result["adaptive"]} == {"purifier heavy"}
    assert {r["count"] for r in result["adaptive"]} == {6}
    shown = capsys.readouterr().out
    assert "Attackers who know the purifier" in shown
    assert "evaluation.json written" in shown
    assert all(f"WARNING: {warning}" in shown for warning in result["warnings"])


def test_a_resumed_run_attacks_nothing_anew_and_agrees(arguments: Parse, tmp_path: Path, crafted: list[str]) -> None:
    run_evaluate(arguments("purifier", "noisy", *QUICK))
    first = outcome(tmp_path)
    assert len(crafted) == len(set(crafted)) == 2 * 2 + 2 * 2
    run_evaluate(arguments("purifier", "noisy", *QUICK))
    assert len(crafted) == 8
    assert {**outcome(tmp_path), "seconds": 0} == {**first, "seconds": 0}


def test_a_killed_run_goes_on_where_it_was(
    arguments: Parse, tmp_path: Path, crafted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(bench: Bench, trial: Trial, defence: Defence) -> list[Observation]:
        if trial.scenario.attack == "PGD-10 untargeted" and trial.victims[0].name == "victim-b":
            raise KeyboardInterrupt
        return judge(bench, trial, defence)

    with monkeypatch.context() as patch:
        patch.setattr("robustness.evaluation.judge", killed)
        with pytest.raises(KeyboardInterrupt):
            run_evaluate(arguments("purifier", "noisy", *QUICK))
    assert len(crafted) == 4
    assert not (tmp_path / "out" / "evaluation.json").exists()
    run_evaluate(arguments("purifier", "noisy", *QUICK))
    resumed = outcome(tmp_path)
    assert len(crafted) == len(set(crafted)) == 8
    run_evaluate(arguments("purifier", "noisy", *QUICK, "--cache", str(tmp_path / "elsewhere")))
    assert len(crafted) == 16
    assert {**outcome(tmp_path), "seconds": 0} == {**resumed, "seconds": 0}


def test_another_purifier_reuses_the_unaware_adversaries_alone(arguments: Parse, crafted: list[str]) -> None:
    run_evaluate(arguments("purifier", "noisy", *QUICK))
    crafted.clear()
    run_evaluate(arguments("purifier", "plain", *QUICK))
    assert len(crafted) == 4
    assert all("PGD-2" in title for title in crafted)


@pytest.mark.parametrize("change", ["seed", "weights", "photos"])
def test_adversaries_of_another_run_are_never_used(
    arguments: Parse, store: ModelStore, data: Path, crafted: list[str], change: str
) -> None:
    words = ["purifier", "plain", *QUICK, "--adaptive-count", "0", "--modes", "static"]
    run_evaluate(arguments(*words))
    crafted.clear()
    if change == "seed":
        words += ["--seed", "1"]
    elif change == "weights":
        other = store.load("victim-b")
        store.publish(store.card("victim-a"), other.module, replace=True)
    else:
        (data / "n00000001" / "0.png").unlink()
    run_evaluate(arguments(*words))
    assert len(crafted) == (2 if change == "weights" else 4)


def test_the_card_gets_every_figure_and_its_weights_stay(arguments: Parse, store: ModelStore, tmp_path: Path) -> None:
    before = store.card("noisy")
    run_evaluate(arguments("purifier", "noisy", *QUICK))
    assert store.card("noisy") == before
    args = arguments("purifier", "noisy", *QUICK, "--write-card")
    run_evaluate(args)
    card, result = store.verify("noisy"), outcome(tmp_path)
    assert len(card.figures) == sum(len(result[part]) for part in ("accuracies", "kept", "margins", "adaptive"))
    assert {figure.command for figure in card.figures} == {canonical_command(args)}
    assert card.model_copy(update={"figures": ()}) == before
    assert any("attacker knows the purifier" in figure.note for figure in card.figures)
    assert any(figure.note.endswith("3 draws, the default") for figure in card.figures)


def test_a_classifier_is_measured_clean(
    arguments: Parse, store: ModelStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_evaluate(arguments("classifier", "victim-a", "--write-card", "--json"))
    (row,) = json.loads(capsys.readouterr().out)["accuracies"]
    (figure,) = store.card("victim-a").figures
    assert figure.name == "accuracy, clean, undefended, victim-a"
    assert figure.value == pytest.approx(100 * row["correct"] / 12, abs=0.01)
    assert figure.count == 12
    assert figure.interval is not None
    assert figure.interval[0] < figure.value <= figure.interval[1]
    assert figure.command == "nrp evaluate classifier victim-a --data val"


def test_the_command_in_the_card_names_no_machine_path_and_no_default(arguments: Parse, tmp_path: Path) -> None:
    assert canonical_command(arguments("purifier", "noisy", *VICTIMS, "--device", "cpu", "--eps", "8,4")) == (
        "nrp evaluate purifier noisy --victims victim-a,victim-b --data val"
    )
    args = arguments("purifier", "noisy", *QUICK, "--limit", "6", "--data", "../data/val", "--modes", "static")
    assert canonical_command(args) == (
        "nrp evaluate purifier noisy --victims victim-a,victim-b --data ../data/val --eps 8 --modes static "
        "--adaptive-count 6 --adaptive-steps 2 --limit 6 --batch 5"
    )


def test_the_canonical_command_parses_back_to_the_same_settings(arguments: Parse) -> None:
    words = ("purifier", "noisy", *QUICK, "--limit", "6", "--selection-fraction", "0.25", "--part", "selection")
    args = arguments(*words, "--attack-precision", "bfloat16", "--eot", "3", "--seed", "9")
    again = arguments(*canonical_command(args).split()[2:])
    assert canonical_command(again) == canonical_command(args)
    same = (
        "victims",
        "eps",
        "limit",
        "seed",
        "batch",
        "modes",
        "eot",
        "attack_precision",
        "selection_fraction",
        "part",
    )
    assert all(getattr(args, option) == getattr(again, option) for option in same)


def test_a_limit_and_a_selection_leave_equal_numbers_a_class(arguments: Parse, tmp_path: Path) -> None:
    run_evaluate(arguments("classifier", "victim-a", "--limit", "7"))
    assert outcome(tmp_path)["photos"]["count"] == 6
    counts = []
    for part in ("selection", "rest"):
        run_evaluate(arguments("classifier", "victim-a", "--selection-fraction", "0.25", "--part", part))
        counts.append(outcome(tmp_path)["photos"]["count"])
    assert counts == [3, 9]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("purifier", "plain", "--victims", "victim-a,nobody"), "no model 'nobody'"),
        (("purifier", "nothing", *VICTIMS), "no model 'nothing'"),
        (("purifier", "victim-a", *VICTIMS), "victim-a is a classifier, not a purifier"),
        (
            ("purifier", "noisy", *VICTIMS, "--modes", "wild"),
            "no mode 'wild'; it has: default, heavy, published, static",
        ),
        (("classifier", "plain"), "plain is a purifier, not a classifier"),
        (("classifier", "victim-a", "--data", "nowhere"), "no folder nowhere"),
        (("classifier", "victim-a", "--limit", "99"), "--limit 99"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(arguments: Parse, words: tuple[str, ...], message: str) -> None:
    with pytest.raises(NrpError, match=message) as caught:
        run_evaluate(arguments(*words))
    assert "\n" not in str(caught.value)


def test_a_folder_of_another_class_and_a_broken_photo_are_named(arguments: Parse, data: Path) -> None:
    (data / "n00000002" / "1.png").write_bytes(b"no picture")
    with pytest.raises(NrpError, match=r"n00000002/1\.png cannot be decoded"):
        run_evaluate(arguments("classifier", "victim-a"))
    (data / "n77").mkdir()
    with pytest.raises(NrpError, match="'n77'"):
        run_evaluate(arguments("classifier", "victim-a"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_cuda_where_there_is_none_is_said(arguments: Parse) -> None:
    with pytest.raises(NrpError, match="no CUDA device; use cpu"):
        run_evaluate(arguments("classifier", "victim-a", "--device", "cuda"))


@pytest.mark.parametrize(
    "words",
    [
        ("--eps", "0"),
        ("--eps", "four"),
        ("--limit", "0"),
        ("--batch", "-1"),
        ("--selection-fraction", "1"),
        ("--eot", "0"),
    ],
)
def test_a_senseless_option_is_a_usage_error(arguments: Parse, words: tuple[str, str]) -> None:
    with pytest.raises(SystemExit) as caught:
        arguments("purifier", "noisy", *VICTIMS, *words)
    assert caught.value.code == 2
