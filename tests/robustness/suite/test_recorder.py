from __future__ import annotations

from dataclasses import replace

import torch

from robustness.defences import Jpeg
from robustness.observations import Observation, Scenario
from robustness.results.files import read_rows
from robustness.scores import accuracy
from robustness.suite.recorder import Evidence, Place, Recorder

SEEN = Observation(
    Scenario("DIM", 8, "transfer", "vgg"),
    "resnet",
    "JPEG 20",
    "baseline",
    accuracy(torch.tensor([True, False, True])),
)
EVIDENCE = Evidence({"steps": 3}, {"resnet": "f" * 64}, {"classification": "d"}, 1.23456)


def test_what_was_observed_becomes_a_row_on_disk(recorder: Recorder) -> None:
    row = recorder.add(Place("F6", "DIM", 10), "classification", SEEN, EVIDENCE)
    (read,) = read_rows(recorder.folder)
    assert read == row == recorder.rows[0]
    assert (row.suite, row.table, row.series, row.x) == ("quick", "F6", "DIM", 10)
    assert (row.attack, row.eps, row.attacker, row.surrogate) == ("DIM", 8, "transfer", "vgg")
    assert (row.victim, row.defence, row.role, row.metric) == ("resnet", "JPEG 20", "baseline", "accuracy")
    assert (row.percent, row.count) == (66.667, 3)
    assert row.interval == (20.766, 93.851)
    assert (row.settings, row.weights, row.data) == ({"steps": 3}, {"resnet": "f" * 64}, {"classification": "d"})
    assert (row.versions, row.command, row.seconds) == ({"torch": "2"}, "nrp evaluate --suite quick", 1.23)


def test_a_row_says_the_conditions_it_was_measured_in(recorder: Recorder) -> None:
    recorder.conditions = replace(recorder.conditions, seed=7, precision="bfloat16")
    row = recorder.add(Place("overview"), "classification", SEEN, EVIDENCE)
    assert (row.seed, row.precision, row.device) == (7, "bfloat16", "cpu")


def test_measuring_again_replaces_the_file(recorder: Recorder) -> None:
    recorder.add(Place("overview"), "classification", SEEN, EVIDENCE)
    worse = replace(SEEN, score=accuracy(torch.tensor([False, False, True])))
    recorder.add(Place("overview"), "classification", worse, EVIDENCE)
    (row,) = read_rows(recorder.folder)
    assert row.percent == 33.333
    recorder.add(Place("T3"), "classification", SEEN, EVIDENCE)
    assert len(read_rows(recorder.folder)) == 2


def test_what_was_not_measured_says_why(recorder: Recorder) -> None:
    row = recorder.lack(Place("T1", "NRP"), "classification", SEEN.scenario, "resnet", Jpeg(20), "no time")
    assert (row.percent, row.count, row.missing) == (None, 0, "no time")
    assert (row.table, row.series, row.defence, row.eps) == ("T1", "NRP", "JPEG 20", 8)
    assert read_rows(recorder.folder) == [row]
