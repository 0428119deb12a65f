"""`nrp evaluate certify`, from photos to the card and the page."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from model_store.card import Figure
from model_store.certification import ABSTAIN, Certificate, Smoothing, sample_counts
from model_store.errors import NrpError
from model_store.store import ModelStore
from robustness import certified
from robustness.certified import certified_accuracy, measure_certified
from robustness.commands import configure_evaluate, run_evaluate
from robustness.defences import NoDefence
from robustness.judgement import Bench
from robustness.results.bars import BARS
from robustness.results.certified import certified_bar
from robustness.results.files import read_lines
from robustness.victims.classification import Classifier

Certify = Callable[..., int]
SMALL = ("--n0", "8", "--n", "40", "--sigma", "0.02", "--radii", "0,0.01,0.02,0.05", "--limit", "6")


@pytest.fixture
def certify(store: ModelStore, data: Path, tmp_path: Path) -> Certify:
    def run(*words: str, name: str = "plain") -> int:
        parser = argparse.ArgumentParser()
        configure_evaluate(parser)
        places = ["--data", str(data), "--store", str(store.root), "--device", "cpu", "--output", str(tmp_path / "out")]
        return run_evaluate(parser.parse_args(["certify", name, "--classifier", "victim-a", *places, *SMALL, *words]))

    return run


@pytest.fixture
def sampled(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many copies were really classified, one entry a call."""
    made: list[int] = []

    def counted(classify: Any, image: Tensor, smoothing: Smoothing, count: int, *rest: Any) -> Tensor:
        made.append(count)
        return sample_counts(classify, image, smoothing, count, *rest)

    monkeypatch.setattr(certified, "sample_counts", counted)
    return made


def outcome(tmp_path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((tmp_path / "out" / "certified.json").read_text())
    return found


def figures(result: dict[str, Any], place: int) -> dict[tuple[str, float | None], float]:
    return {(s["metric"], s["radius"]): s["percent"] for s in result["certified"][place]["scores"]}


def test_a_photo_counts_where_its_label_is_right_and_its_radius_reaches() -> None:
    counts = torch.zeros(2)
    found = [Certificate(1, 0.4, counts), Certificate(0, 0.9, counts), Certificate(ABSTAIN, 0.0, counts)]
    labels = torch.tensor([1, 1, 0])
    shares = [certified_accuracy(found, labels, radius).percent for radius in (0.0, 0.4, 0.41)]
    assert shares == pytest.approx([100 / 3, 100 / 3, 0.0])
    assert certified_accuracy(found, labels, 0.0).interval[0] > 0


def test_an_identity_purifier_certifies_what_no_purifier_does(
    certify: Certify, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert certify() == 0
    result = outcome(tmp_path)
    assert [(each["defence"], each["role"]) for each in result["certified"]] == [
        ("none", "none"),
        ("plain static", "purifier"),
    ]
    bare, behind = figures(result, 0), figures(result, 1)
    assert bare == behind
    levels = [bare["certified accuracy", radius] for radius in (0.0, 0.01, 0.02, 0.05)]
    assert levels == sorted(levels, reverse=True)
    assert bare["smoothed accuracy", None] >= levels[0] > levels[-1]
    assert bare["natural accuracy", None] >= 50
    assert result["certified"][0]["scores"][0]["count"] == 6
    shown = capsys.readouterr().out
    assert "plain static" in shown
    assert "certified.json written" in shown


def test_the_natural_accuracy_is_that_without_noise(bench: Bench, victims: tuple[Classifier, ...]) -> None:
    found = measure_certified(bench, victims[0], NoDefence(), Smoothing(0.5, 2, 2, 0.001, 4), (0.0,))
    said = victims[0].logits(bench.examples.pixels / 255).argmax(1)
    assert found.natural.percent == pytest.approx(
        100 * float((said == bench.examples.truths["labels"]).double().mean())
    )
    # Two copies certify nothing at 0.1 %.
    assert found.abstentions.percent == 100
    assert found.certified[0][1].percent == 0


def test_a_killed_run_goes_on_where_it_was(
    certify: Certify, tmp_path: Path, sampled: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*arguments: Any) -> Tensor:
        if len(sampled) == 2 * 4:
            raise KeyboardInterrupt
        return counting(*arguments)

    counting = certified.sample_counts
    with monkeypatch.context() as patch:
        patch.setattr(certified, "sample_counts", killed)
        with pytest.raises(KeyboardInterrupt):
            certify()
    assert not (tmp_path / "out" / "certified.json").exists()
    certify()
    assert sampled == [8, 40] * 12
    resumed = outcome(tmp_path)
    certify("--cache", str(tmp_path / "elsewhere"))
    assert len(sampled) == 48
    assert {**outcome(tmp_path), "seconds": 0} == {**resumed, "seconds": 0}


@pytest.mark.parametrize(("words", "again"), [(("--alpha", "0.05"), 0), (("--sigma", "0.03"), 24), (("--n", "41"), 24)])
def test_what_changes_an_answer_is_answered_anew(
    certify: Certify, sampled: list[int], words: tuple[str, ...], again: int
) -> None:
    certify()
    sampled.clear()
    certify(*words)
    assert len(sampled) == again


def test_the_card_keeps_its_figures_and_takes_the_new_in_place_of_the_same(certify: Certify, store: ModelStore) -> None:
    old = Figure(name="accuracy, clean", value=1.0, unit="%", count=1, command="c", seed=0)
    store.rewrite_card(store.card("plain").model_copy(update={"figures": (old,)}))
    certify()
    assert store.card("plain").figures == (old,)
    certify("--write-card")
    first = store.card("plain").figures
    assert first[0] == old
    assert len(first) == 1 + 2 * (3 + 4)
    certify("--write-card", "--n", "41")
    second = store.card("plain").figures
    assert [figure.name for figure in second] == [figure.name for figure in first]
    assert {figure.note for figure in second[1:]} == {"n0 8, n 41, alpha 0.001"}
    assert "certified accuracy at L2 radius 0.01, noise std 0.02, plain static, victim-a" in {f.name for f in second}
    assert second[1].command == (
        "nrp evaluate certify plain --classifier victim-a --data val --sigma 0.02 --n0 8 --n 41 "
        "--radii 0.0,0.01,0.02,0.05 --limit 6"
    )


def test_rows_are_merged_and_shown_on_the_page(certify: Certify, store: ModelStore, tmp_path: Path) -> None:
    results = tmp_path / "results"
    certify("--results", str(results))
    certify("--results", str(results), "--sigma", "0.03")
    certify("--results", str(results), "--sigma", "0.03")
    rows = read_lines(results / "certified.jsonl")
    assert len(rows) == 2 * 2 * (3 + 4)
    assert {row.series for row in rows} == {"sigma 0.02", "sigma 0.03"}
    behind = [row for row in rows if row.role == "purifier"]
    assert {row.weights["plain"] for row in behind} == {store.card("plain").sha256}
    assert not any("plain" in row.weights for row in rows if row.role == "none")
    page = (results / "RESULTS.md").read_text()
    assert "## Certified accuracy" in page
    assert "| plain static | victim-a | sigma 0.03 |" in page


def test_the_bar_is_judged_at_its_radius_with_the_better_noise(
    certify: Certify, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certify("--results", str(tmp_path))
    rows = read_lines(tmp_path / "certified.jsonl")
    assert certified_bar(rows) == []
    (radius,) = next(bar.at for bar in BARS if bar.kind == "certified")
    worse, better = (
        row.model_copy(update={"x": radius, "series": f"sigma {sigma}", "percent": percent})
        for row in rows
        for sigma, percent in ((0.25, 31.0), (0.5, 33.0))
        if (row.role, row.metric, row.x) == ("purifier", "certified accuracy", 0.0)
    )
    (found,) = certified_bar([worse, better])
    assert (found.percent, found.series) == (33.0, "sigma 0.5")


@pytest.mark.parametrize(
    ("words", "name", "message"),
    [
        (("--classifier", "noisy"), "plain", "noisy is a purifier, not a classifier"),
        ((), "victim-a", "victim-a is a classifier, not a purifier"),
        (("--alpha", "0"), "plain", "alpha of 0"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(certify: Certify, words: tuple[str, ...], name: str, message: str) -> None:
    with pytest.raises(NrpError, match=message):
        certify(*words, name=name)


@pytest.mark.parametrize("words", [("--sigma", "0"), ("--radii", "a"), ("--radii=-1",), ("--n0", "0")])
def test_an_option_out_of_range_is_a_usage_error(certify: Certify, words: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit):
        certify(*words)
