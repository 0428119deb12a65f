"""At home again: rows where the suite has them, the latest of each thing, and models in the store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from model_store.errors import NrpError
from model_store.store import ModelStore
from robustness.aware.figure import Figure
from robustness.results.files import read_lines
from robustness.scores import accuracy
from training.errors import DataError
from training.gpu.publish import main, take_in


def aware_row(right: int, count: int, **changes: Any) -> dict[str, Any]:
    score = accuracy(torch.tensor([1.0] * right + [0.0] * (count - right)))
    figure = Figure("exact PGD-200 CE EOT-20", 4, "vote", score, accuracy(torch.ones(count)), settings={"attacked": 3})
    row = {
        "kind": "aware",
        "figure": figure.as_json(),
        "victim": "efficientnet-lite1",
        "defence": "nrp-real-gpu noise",
        "weights": {"nrp-real-gpu noise": "abc"},
        "data": {"nips17": "def"},
        "attacked in": "bfloat16",
        "seed": 0,
        "seconds": 1.5,
        "device": "NVIDIA H200",
        "torch_version": "2.11.0",
        "commit": "0123456789ab",
    }
    return row | changes


def timing(milliseconds: float, **changes: Any) -> dict[str, Any]:
    row = {"kind": "serving", "network": "nrp", "batch": 8, "variant": "graph", "side": 224, "device": "NVIDIA H200"}
    return row | {"milliseconds": milliseconds} | changes


def write(out: Path, *rows: dict[str, Any]) -> Path:
    out.mkdir(exist_ok=True)
    (out / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return out


def taken_in(out: Path, results: Path) -> list[str]:
    told: list[str] = []
    take_in(out, ModelStore(results.parent / "store"), results, told.append, replace=False)
    return told


def test_of_the_same_figure_the_last_is_kept_which_stands_on_the_most_photos(tmp_path: Path) -> None:
    out = write(tmp_path / "out", aware_row(1, 2), aware_row(3, 4), aware_row(1, 2, victim="squeezenet"))
    taken_in(out, tmp_path / "results")
    rows = {row.victim: row for row in read_lines(tmp_path / "results" / "gpu.jsonl")}
    assert rows["efficientnet-lite1"].percent == 75.0
    assert rows["efficientnet-lite1"].count == 4
    row = rows["squeezenet"]
    assert (row.suite, row.section, row.table, row.attacker, row.device) == ("gpu", "aware", "aware", "aware", "cuda")
    assert row.settings["hardware"] == "NVIDIA H200"
    assert row.settings["commit"] == "0123456789ab"
    assert row.settings["attacked in"] == "bfloat16"
    assert row.settings["clean_percent"] == 100.0
    assert row.settings["purifier"] == "nrp-real-gpu"
    assert row.versions == {"torch": "2.11.0"}


def test_a_later_visit_takes_the_place_of_the_same_things_alone(tmp_path: Path) -> None:
    results = tmp_path / "results"
    taken_in(write(tmp_path / "out", aware_row(1, 4), timing(3.0), timing(9.0, variant="eager")), results)
    taken_in(write(tmp_path / "out", aware_row(2, 4, victim="squeezenet"), timing(2.0)), results)
    assert {row.victim for row in read_lines(results / "gpu.jsonl")} == {"efficientnet-lite1", "squeezenet"}
    lines = [json.loads(line) for line in (results / "gpu" / "serving.jsonl").read_text().splitlines()]
    assert {line["variant"]: line["milliseconds"] for line in lines} == {"graph": 2.0, "eager": 9.0}


def test_doubts_are_told_once(tmp_path: Path) -> None:
    doubt = {"kind": "warning", "text": "the attack is weak"}
    assert taken_in(write(tmp_path / "out", doubt, doubt), tmp_path / "results") == ["warning: the attack is weak"]


def test_nothing_and_damage_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DataError, match=r"holds neither rows\.jsonl nor a finished purifier"):
        taken_in(tmp_path, tmp_path / "results")
    (tmp_path / "rows.jsonl").write_text('{"kind": "aware"\n')
    with pytest.raises(DataError, match="line 1 is no JSON"):
        taken_in(tmp_path, tmp_path / "results")
    (tmp_path / "rows.jsonl").write_text('{"kind": "aware"}\n')
    with pytest.raises(NrpError, match="lacks"):
        taken_in(tmp_path, tmp_path / "results")
    assert main([str(tmp_path), "--store", str(tmp_path / "s"), "--results", str(tmp_path / "r")]) == 1
    assert capsys.readouterr().err.startswith("error: ")
