"""Aware attackers on a lent device: levels of more and more photos, rows with all that they depend on, in time."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from model_store.pixels import bytes_to_image, to_bytes
from robustness.aware.defended import Mode
from robustness.aware.figure import figure_of
from robustness.aware.material import Material
from robustness.aware.plan import AwarePlan
from robustness.cache import Cache
from robustness.errors import OutOfTimeError
from robustness.examples import Examples
from robustness.progress import Progress
from training.errors import DataError
from training.gpu.aware import Bench, Purifier, defences, main, read_judged, run
from training.gpu.folder import Folder, write_facts
from training.gpu.stamp import Stamp
from training.packing import EXACT, write_pack
from training.stages import Network

CPU = torch.device("cpu")
PLAN = AwarePlan(eps=8, steps=2, eot=2, decisions=2, few=2, eot_curve=(1, 2), square_photos=0, batch=2, chunk=4)
STAMP = Stamp("a GPU", "2.11", "abc")


class Hue(nn.Module):
    """One layer: the mean of each colour is the logit of its class, sharply."""

    def __init__(self) -> None:
        super().__init__()
        self.sharpness = nn.Parameter(torch.tensor(60.0))

    def forward(self, images: Tensor) -> Tensor:
        return images.mean(dim=(2, 3)) * self.sharpness


def photos(count: int = 4) -> Examples:
    labels = torch.arange(count) % 3
    pixels = torch.full((count, 3, 16, 16), 0.5)
    pixels[torch.arange(count), labels] += 0.05
    names = tuple(f"{number}.png" for number in range(count))
    return Examples(to_bytes(pixels), {"labels": labels, "targets": (labels + 1) % 3}, names)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    material = Material(photos(), Cache(tmp_path / "cache"), Progress(quiet=True), CPU)
    return Bench(material, PLAN, (2, 4, 100), STAMP, tmp_path / "rows.jsonl", "hues")


def purifiers() -> list[Purifier]:
    noisy = Mode(noise_std=0.02, draws=2)
    return [Purifier(name, noisy, f"{name} weights", nn.Identity()) for name in ("new noise", "old noise")]


def judges() -> dict[str, Network]:
    return {"hue": Network(Hue().eval().requires_grad_(False), "hue weights", "classifier", "", {})}


def rows_of(bench: Bench) -> list[dict[str, Any]]:
    return [json.loads(line) for line in bench.rows.read_text().splitlines()] if bench.rows.exists() else []


def test_every_purifier_is_measured_on_few_photos_and_then_on_more(bench: Bench) -> None:
    run(bench, purifiers(), judges())
    figures = [row for row in rows_of(bench) if row["kind"] == "aware"]
    clean = [
        (row["defence"], len(row["figure"]["each"]))
        for row in figures
        if row["figure"]["eps"] == 0 and row["figure"]["series"] == "vote"
    ]
    assert clean == [("new noise", 2), ("old noise", 2), ("new noise", 4), ("old noise", 4)]
    assert {row["figure"]["source"] for row in figures} == {None, "new noise", "old noise"}


def test_a_row_has_all_that_it_depends_on(bench: Bench) -> None:
    run(replace(bench, levels=(2,)), purifiers()[:1], judges())
    row = rows_of(bench)[0]
    assert (row["device"], row["torch_version"], row["commit"]) == ("a GPU", "2.11", "abc")
    assert row["weights"] == {"new noise": "new noise weights", "hue": "hue weights"}
    assert row["data"] == {"hues": bench.material.examples.digest}
    assert row["attacked in"] == "float32"
    assert figure_of(row["figure"]).score.count == 2


def test_what_was_measured_in_time_is_kept_and_a_later_call_goes_on(bench: Bench) -> None:
    late = replace(bench, material=replace(bench.material, deadline=time.monotonic()))
    with pytest.raises(OutOfTimeError):
        run(late, purifiers(), judges())
    assert rows_of(bench) == []
    run(replace(bench, levels=(2,)), purifiers(), judges())
    before = len(rows_of(bench))
    late = replace(late, levels=(2, 4))
    with pytest.raises(OutOfTimeError):
        run(late, purifiers(), judges())
    assert len(rows_of(bench)) == 2 * before  # the first level again, from what was kept; nothing of the second


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    folder, examples = Folder(tmp_path / "packed"), photos()
    encoded = [EXACT(bytes_to_image(pixels)) for pixels in examples.pixels]
    write_pack(encoded, examples.truths["labels"], folder.judged, side=16, folders=("r", "g", "b"))
    facts = {
        "models": {},
        "victims": [],
        "purifiers": {"old": {"name": "noise", "mode": {}}},
        "data": "hues",
        "digest": examples.digest,
        "names": list(examples.names),
        "targets": examples.truths["targets"].tolist(),
    }
    write_facts(facts, folder.judge)
    write_facts({"code_revision": "abc", "serving": {}}, folder.manifest)
    return folder


def test_the_photos_are_those_of_home_to_the_bit(folder: Folder) -> None:
    facts = json.loads(folder.judge.read_text())
    assert read_judged(folder, facts).digest == photos().digest
    with pytest.raises(DataError, match="does not hold the photos"):
        read_judged(folder, {**facts, "names": ["other.png", *facts["names"][1:]]})
    assert read_judged(folder, facts, side=8).pixels.shape == (4, 3, 8, 8)


def test_without_a_purifier_it_says_what_to_carry(
    folder: Folder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(DataError, match="no purifier to measure: carry"):
        defences(folder, json.loads(folder.judge.read_text()), tmp_path / "nothing finished")
    words = [folder.root, "--rows", tmp_path / "rows", "--cache", tmp_path / "cache", "--device", "cpu"]
    assert main([str(word) for word in words]) == 1
    assert "no purifier to measure" in capsys.readouterr().err
