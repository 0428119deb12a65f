"""The suite imagenet from the command line to the page: sections, resuming, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from model_store.architectures import build
from model_store.errors import NrpError
from model_store.store import ModelStore
from robustness.errors import EvaluationError, PhotoFolderError, VictimError
from robustness.results.files import read_lines
from robustness.results.row import Row
from robustness.suite.imagenet import commands
from robustness.suite.imagenet.jobs import Job, Journal
from tests.robustness.suite.imagenet.conftest import PHOTOS, Run


def rows_of(tmp_path: Path, section: str) -> list[Row]:
    return [row for row in read_lines(tmp_path / "results" / "imagenet.jsonl") if row.section == section]


def test_a_run_ends_in_sections_of_rows_a_page_and_credited_pictures(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run() == 0
    tables = {
        section: {row.table for row in rows_of(tmp_path, section)} for section in ("unaware", "transfer", "aware")
    }
    assert tables == {name: {name, "bars"} for name in ("unaware", "transfer", "aware")}
    assert {row.table for row in rows_of(tmp_path, "paper")} == {"T1", "T3", "T5", "F1", "F6"}
    results = tmp_path / "results"
    page = (results / "RESULTS.md").read_text()
    heads = [line for line in page.splitlines() if line.startswith("## ")]
    assert heads[0] == "## Real networks: what is left of accuracy"
    assert page.index("What is bad comes first") < page.index("| defence | clean |")
    assert "net-c (seen in training)" in page
    for number in ("2", "8"):
        with Image.open(results / "plots" / f"figure-{number}.png") as sheet:
            assert sheet.width > sheet.height / 3
        assert "Author " in (results / "plots" / f"figure-{number}.txt").read_text()
        assert f"plots/figure-{number}.png" in page
    credits_file = (results / "plots" / "CREDITS.md").read_text()
    assert "page/" in credits_file
    assert "CC BY" in credits_file
    told = capsys.readouterr().out
    assert "unaware 1/" in told
    assert "so far" in told
    assert str(tmp_path) not in "".join(row.command for row in read_lines(results / "imagenet.jsonl"))


def test_every_defence_sees_the_same_adversaries_of_every_victim(run: Run, tmp_path: Path) -> None:
    run("--section", "unaware")
    rows = [row for row in rows_of(tmp_path, "unaware") if row.table == "unaware"]
    defences = {row.defence for row in rows}
    assert {"none", "JPEG 75", "JPEG 50", "JPEG 20", "TV 30", "TV 10", "median 3x3", "bit depth 4"} < defences
    assert {"noisy heavy", "plain static"} < defences
    lines = {(row.attack, row.eps, row.victim) for row in rows}
    assert len(rows) == len(lines) * len(defences)
    assert {victim for attack, eps, victim in lines if eps == 8} == {"net-a", "net-b"}
    assert ("FGSM", 4, "net-c (seen in training)") in lines
    assert {row.count for row in rows if row.attack == "MI-FGSM"} == {1}
    assert all(row.percent is not None and row.interval is not None for row in rows)


def test_adversaries_go_from_each_classifier_to_the_others(run: Run, tmp_path: Path) -> None:
    run("--section", "transfer")
    rows = [row for row in rows_of(tmp_path, "transfer") if row.table == "transfer"]
    seen = "net-c (seen in training)"
    made = {(row.surrogate, row.victim) for row in rows if row.attack == "MI-FGSM"}
    assert made == {(a, b) for a in ("net-a", "net-b", seen) for b in ("net-a", "net-b", seen) if a != b}
    assert {row.surrogate for row in rows if row.attack.startswith(("SSP", "FFF"))} == {"features"}
    lacking = [row for row in rows if row.attack.startswith("CDA")]
    assert lacking
    assert all("nrp train perturber" in row.missing for row in lacking)


def test_a_section_replaces_its_own_rows_alone(run: Run, tmp_path: Path) -> None:
    run("--section", "unaware,paper")
    before = {name: rows_of(tmp_path, name) for name in ("unaware", "paper")}
    run("--section", "paper", "--purifier", "noisy")
    assert rows_of(tmp_path, "unaware") == before["unaware"]
    after = rows_of(tmp_path, "paper")
    assert {row.defence for row in after} == {"none", "noisy heavy"}
    assert {"none", "noisy heavy", "plain static"} == {row.defence for row in before["paper"]}


def test_the_same_again_attacks_nothing_anew(run: Run, attacks_run: list[tuple[str, int]]) -> None:
    run("--section", "unaware")
    assert attacks_run
    attacks_run.clear()
    run("--section", "unaware")
    assert attacks_run == []


class Short(Journal):
    """Time is up after the first job."""

    def run(self, section: str, jobs: Sequence[Job]) -> int:
        return super().run(section, jobs[:1])


def test_a_section_that_time_cuts_short_keeps_what_it_has_and_says_so(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warnings = tmp_path / "results" / "imagenet-unaware.warnings.txt"
    with monkeypatch.context() as patched:
        patched.setattr(commands, "Journal", Short)
        run("--section", "unaware")
        assert {row.attack for row in rows_of(tmp_path, "unaware")} == {"clean"}
        assert "section unaware: 1 of " in warnings.read_text()
    run("--section", "unaware")
    whole = rows_of(tmp_path, "unaware")
    assert "parts were measured" not in warnings.read_text()
    with monkeypatch.context() as patched:
        patched.setattr(commands, "Journal", Short)
        run("--section", "unaware")
    assert {row.identity for row in rows_of(tmp_path, "unaware")} == {row.identity for row in whole}
    run("--section", "unaware", "--minutes", "0")
    assert {row.identity for row in rows_of(tmp_path, "unaware")} == {row.identity for row in whole}


def test_sections_of_other_options_are_not_mixed(run: Run, tmp_path: Path) -> None:
    run("--section", "unaware")
    kept = (tmp_path / "results" / "imagenet.jsonl").read_bytes()
    with pytest.raises(EvaluationError, match="section unaware measured with another --seed"):
        run("--section", "paper", "--seed", "1")
    with pytest.raises(EvaluationError, match="section unaware measured with another --limit"):
        run("--section", "paper", "--limit", "1")
    assert (tmp_path / "results" / "imagenet.jsonl").read_bytes() == kept
    run("--section", "unaware", "--limit", "1")
    assert {row.settings["photos"] for row in rows_of(tmp_path, "unaware")} == {1}


def test_a_purifier_that_was_trained_anew_is_not_mixed_with_its_former_self(run: Run, real_store: ModelStore) -> None:
    run("--section", "unaware")
    shape = {"features": 4, "blocks": 1}
    card = real_store.card("noisy").model_copy(update={"architecture": "nrp_resg", "arguments": shape})
    real_store.publish(card, build("nrp_resg", shape), replace=True)
    with pytest.raises(EvaluationError, match="another state of noisy heavy"):
        run("--section", "paper")


@pytest.mark.parametrize(
    ("words", "kind", "says"),
    [
        (("--section", "unawares"), EvaluationError, "no section 'unawares'; the suite imagenet has: unaware"),
        (("--section", "scenes"), EvaluationError, "section scenes wants data for"),
        (("--model", "net-a,absent"), NrpError, "absent"),
        (("--model", "noisy"), VictimError, "nothing to judge"),
        (("--seen", "features"), VictimError, "features"),
        (("--surrogate", "absent"), NrpError, "absent"),
        (("--purifier", "net-a"), VictimError, "not a purifier"),
        (("--limit", f"{PHOTOS + 1}"), PhotoFolderError, "--limit"),
        (("--card",), EvaluationError, "--suite quick"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_line_before_anything_is(
    run: Run, tmp_path: Path, words: tuple[str, ...], kind: type[Exception], says: str
) -> None:
    with pytest.raises(kind, match=says) as refused:
        run(*words)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "results").exists()
    assert not (tmp_path / "out").exists()


def test_missing_photos_are_named(run: Run, nips17: Path, tmp_path: Path) -> None:
    (nips17 / "images" / "photo0.webp").unlink()
    with pytest.raises(PhotoFolderError, match="photo0"):
        run("--limit", f"{PHOTOS}")
    assert not (tmp_path / "results").exists()


def test_bars_go_into_the_cards(run: Run, real_store: ModelStore) -> None:
    run("--section", "unaware", "--write-card")
    for name in ("noisy", "plain"):
        names = [figure.name for figure in real_store.card(name).figures]
        assert any("clean" in each for each in names)
