"""`nrp evaluate suspicion`, from photos to the card and the page."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from model_store.errors import NrpError
from model_store.pixels import to_bytes, to_float
from model_store.store import ModelStore
from model_store.suspicion import jensen_shannon_bits
from robustness import suspicion_verb
from robustness.commands import configure_evaluate, run_evaluate
from robustness.evaluation import purifications
from robustness.judgement import Bench, clean_trial
from robustness.results.files import read_lines
from robustness.suspicion import sightings
from robustness.victims.classification import Classifier

Watch = Callable[..., int]
SMALL = (
    "--false-positives", "0.2", "--limit", "6", "--slow-limit", "3", "--eps", "8", "--attacks", "FGSM,SSP",
    "--file-limit", "4", "--hiding", "1", "--steps", "2", "--surrogate", "features",
)  # fmt: skip


@pytest.fixture
def watch(store: ModelStore, data: Path, tmp_path: Path) -> Watch:
    def run(*words: str, name: str = "noisy", classifier: str = "victim-a,victim-b") -> int:
        parser = argparse.ArgumentParser()
        configure_evaluate(parser)
        places = ["--data", str(data), "--store", str(store.root), "--device", "cpu", "--output", str(tmp_path / "out")]
        asked = ["suspicion", name, "--classifier", classifier, *places, *SMALL, *words]
        return run_evaluate(parser.parse_args(asked))

    return run


def outcome(tmp_path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((tmp_path / "out" / "suspicion.json").read_text())
    return found


def test_a_sighting_is_what_the_service_reports(
    bench: Bench, victims: tuple[Classifier, ...], store: ModelStore
) -> None:
    (purification,) = purifications(store.load("noisy"), ("default",), torch.device("cpu"))
    first, second = sightings(bench, clean_trial(bench, victims), purification)
    assert torch.equal(first.residual_rms, second.residual_rms)
    assert not torch.equal(first.prediction_shift, second.prediction_shift)
    # The noise has std 0.1; the mean of three draws is off by some 15 levels.
    assert 10 < float(first.residual_rms.mean()) < 18
    images = to_float(bench.examples.pixels)
    before = victims[0].log_probabilities(images.unsqueeze(1)).exp().double()
    assert torch.equal(first.original, before.argmax(1) == bench.examples.truths["labels"])
    assert float(jensen_shannon_bits(before, before).max()) == pytest.approx(0, abs=1e-9)
    assert bool((first.prediction_shift > 0).all())
    assert torch.equal(to_bytes(images), bench.examples.pixels)


def test_thresholds_stand_on_one_half_and_false_positives_on_the_other(
    watch: Watch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert watch() == 0
    result = outcome(tmp_path)
    known = result["calibration"]
    assert set(known["classifiers"]) == {"victim-a", "victim-b"}
    assert known["residual_rms"]["count"] == 6
    assert known["mode"]["draws"] == 3
    assert (known["height"], known["width"], known["false_positives"]) == (16, 16, 0.2)
    rows = {(r["victim"], r["attack"], r["metric"], r["series"]): r for r in result["rows"]}
    clean = rows["victim-a", "clean", "false positives", "score"]
    assert (clean["count"], clean["attacker"]) == (6, "none")
    assert clean["settings"]["threshold"] == known["classifiers"]["victim-a"]["threshold"]
    assert rows["victim-a", "clean, files as they are", "false positives", "score"]["count"] == 4
    assert rows["victim-b", "FGSM", "AUC", "score"]["settings"]["roc"][-1] == [100.0, 100.0]
    assert rows["victim-b", "SSP", "detected", "score"]["surrogate"] == "features"
    hidden = rows["victim-a", "PGD-2 untargeted hiding x1, original", "accuracy", "policy suspicious"]
    assert (hidden["attacker"], hidden["count"]) == ("aware", 3)
    assert "suspicion.json written" in capsys.readouterr().out


def test_the_least_of_all_is_no_more_than_any_attempt_leaves(watch: Watch, tmp_path: Path) -> None:
    watch("--limit", "3")
    rows = [row for row in outcome(tmp_path)["rows"] if row["eps"] == 8 and row["victim"] == "victim-a"]
    for metric, series, harm in (
        ("accuracy", "policy always", 1),
        ("accuracy", "policy suspicious", 1),
        ("wrong and unseen", "policy suspicious", -1),
    ):
        shares = {row["attack"]: row["percent"] for row in rows if (row["metric"], row["series"]) == (metric, series)}
        least = shares.pop("least of all, photo by photo")
        assert len(shares) == 4
        assert all(harm * least <= harm * share for share in shares.values())


def test_a_policy_answers_by_the_image_that_decides(watch: Watch, tmp_path: Path) -> None:
    """With an identity that adds no noise every answer is the same, nothing moves, and nothing is suspicious."""
    watch(name="plain")
    rows = [row for row in outcome(tmp_path)["rows"] if row["metric"] == "accuracy"]
    by_attack: dict[tuple[str, str], set[float]] = {}
    for row in rows:
        by_attack.setdefault((row["victim"], row["attack"]), set()).add(row["percent"])
    assert all(len(percents) == 1 for percents in by_attack.values())
    seen = [row["percent"] for row in outcome(tmp_path)["rows"] if row["metric"] in ("detected", "false positives")]
    assert set(seen) == {0.0}


def test_a_second_run_measures_nothing_again(watch: Watch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watch()
    first = outcome(tmp_path)

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr("robustness.suspicion._seen", refuse)
    monkeypatch.setattr("robustness.judgement.craft", refuse)
    watch()
    assert {**outcome(tmp_path), "seconds": 0} == {**first, "seconds": 0}


def test_the_card_keeps_the_calibration_and_what_it_gives(watch: Watch, store: ModelStore) -> None:
    watch()
    assert store.card("noisy").suspicion == {}
    watch("--write-card", classifier="victim-a")
    watch("--write-card", classifier="victim-b")
    card = store.card("noisy")
    known = card.suspicion["heavy"]
    assert set(known.classifiers) == {"victim-a", "victim-b"}
    assert known.behind("victim-a", store.card("victim-a").sha256) is not None
    names = [figure.name for figure in card.figures]
    assert names == [
        "false positives of suspicion, noisy heavy, victim-a",
        "false positives of suspicion, noisy heavy, victim-b",
        "false positives of suspicion by the residual alone, noisy heavy",
    ]
    assert {figure.count for figure in card.figures} == {6}
    assert known.command == (
        "nrp evaluate suspicion noisy --classifier victim-b --data val --false-positives 0.2 --file-limit 4 "
        "--limit 6 --slow-limit 3 --eps 8 --attacks FGSM,SSP --hiding 1.0 --steps 2 --surrogate features"
    )


def test_rows_are_merged_and_shown_on_the_page(watch: Watch, tmp_path: Path) -> None:
    results = tmp_path / "results"
    watch("--results", str(results))
    watch("--results", str(results), name="plain")
    watch("--results", str(results), name="plain")
    rows = read_lines(results / "suspicion.jsonl")
    assert {row.defence for row in rows} == {"noisy heavy", "plain static"}
    page = (results / "RESULTS.md").read_text()
    assert "## Suspicion" in page
    assert "### noisy heavy" in page
    assert "plots/suspicion-roc.png" in page
    assert (results / "plots" / "suspicion-roc.png").is_file()


@pytest.mark.parametrize(
    ("words", "given", "message"),
    [
        ((), {"name": "victim-a"}, "victim-a is a classifier, not a purifier"),
        ((), {"classifier": "plain"}, "plain is a purifier, not a classifier"),
        (("--attacks", "PGD"), {}, "there is no attack 'PGD'; there are: FGSM"),
        (("--inference", "heavier"), {}, "noisy has no mode 'heavier'"),
        (("--false-positives", "0.01"), {}, "6 clean photos show no rate of 1 %"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(
    watch: Watch, words: tuple[str, ...], given: dict[str, str], message: str
) -> None:
    with pytest.raises(NrpError, match=message):
        watch(*words, **given)


def test_slow_attacks_get_the_few_photos(watch: Watch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suspicion_verb, "SLOW", frozenset({"FGSM"}))
    watch()
    counts = {row["attack"]: row["count"] for row in outcome(tmp_path)["rows"] if row["metric"] == "detected"}
    assert (counts["FGSM"], counts["SSP"]) == (3, 6)
