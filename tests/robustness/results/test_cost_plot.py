from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from robustness.results.cost_plot import plot_costs, unaware_accuracies
from robustness.results.files import write_lines
from robustness.results.page import render_folder
from robustness.results.row import Row
from robustness.results.timing import Timing, keep_timings, timing_section
from tests.robustness.results.conftest import made_up

pytest.importorskip("matplotlib", reason="plots are an extra of the package")

ROWS = tuple(
    made_up(
        percent - 10 * place,
        200,
        suite="purifier",
        table="purifier",
        attacker="white box",
        attack=attack,
        eps=eps,
        victim=victim,
        defence=defence,
        role=role,
    )
    for defence, role, percent in (
        ("none", "none", 20.0),
        ("JPEG 20", "baseline", 50.0),
        ("TV 10", "baseline", 40.0),
        ("new static", "purifier", 70.0),
    )
    for eps in (4, 8)
    for place, attack in enumerate(("PGD-50 untargeted", "AutoAttack standard"))
    for victim in ("tiny-resnet", "tiny-vgg")
)


def timed(defence: str, milliseconds: float, **given: object) -> Timing:
    fields: dict[str, object] = {
        "defence": defence,
        "role": "purifier" if " static" in defence or "untrained" in defence else "baseline",
        "milliseconds": milliseconds,
        "quartiles": (milliseconds, milliseconds),
        "side": 224,
        "repeats": 20,
        "threads": 2,
        "device": "cpu",
        "precision": "float32",
    }
    return Timing.model_validate(fields | given)


TIMINGS = (
    timed("JPEG 20", 4.0),
    timed("new static", 90.0, architecture="nrp_lite"),
    timed("nrp untrained", 9000.0, architecture="nrp", trained=False),
)


def test_a_defence_s_quality_is_the_least_of_the_unaware_attacks_at_8() -> None:
    found = {row.defence: (row.percent, row.attack, row.eps) for row in unaware_accuracies(ROWS)}
    assert found == {
        "none": (10.0, "AutoAttack standard", 8),
        "JPEG 20": (40.0, "AutoAttack standard", 8),
        "TV 10": (30.0, "AutoAttack standard", 8),
        "new static": (60.0, "AutoAttack standard", 8),
    }


def test_what_lacks_a_coordinate_is_named_and_not_drawn(tmp_path: Path) -> None:
    (picture,) = plot_costs(ROWS, TIMINGS, tmp_path)
    assert picture.section == "cost"
    assert picture.file.name == "cost-224-x-224-pixels-cpu-2-threads-float32.png"
    assert "for want of an accuracy: nrp untrained." in picture.caption
    assert "for want of a timing: TV 10." in picture.caption
    with Image.open(picture.file) as image:
        assert image.width == 1200
        pixels = np.asarray(image.convert("RGB"), dtype=np.int64)
    assert (np.ptp(pixels, axis=2) > 80).any()
    (fewer,) = plot_costs(ROWS, TIMINGS[:2], tmp_path / "fewer")
    assert "for want of an accuracy" not in fewer.caption
    assert fewer.file.read_bytes() == picture.file.read_bytes()


def test_another_timing_makes_another_picture(tmp_path: Path) -> None:
    (one,) = plot_costs(ROWS, TIMINGS, tmp_path / "one")
    (two,) = plot_costs(ROWS, (timed("JPEG 20", 40.0), *TIMINGS[1:]), tmp_path / "two")
    assert one.file.read_bytes() != two.file.read_bytes()


def test_each_setting_has_its_picture_and_what_was_not_attacked_none(tmp_path: Path) -> None:
    elsewhere = tuple(timing.model_copy(update={"device": "cuda", "hardware": "H100"}) for timing in TIMINGS)
    names = [picture.file.name for picture in plot_costs(ROWS, (*TIMINGS, *elsewhere), tmp_path)]
    assert names == [
        "cost-224-x-224-pixels-cpu-2-threads-float32.png",
        "cost-224-x-224-pixels-cuda-h100-float32.png",
    ]
    assert list(plot_costs((), TIMINGS, tmp_path)) == []
    assert list(plot_costs(ROWS, TIMINGS[2:], tmp_path)) == []
    other: list[Row] = [row for row in ROWS if row.eps != 8]
    assert list(plot_costs(other, TIMINGS, tmp_path)) == []


def test_the_page_shows_costs_from_their_own_file(tmp_path: Path) -> None:
    write_lines(ROWS, tmp_path / "purifier.jsonl")
    keep_timings(TIMINGS, tmp_path / "cost.jsonl")
    page = render_folder(tmp_path, (), warnings=()).read_text(encoding="utf-8")
    assert "## What a defence costs" in page
    assert "| nrp untrained | nrp, random weights | 9000.0 |" in page
    assert "](plots/cost-224-x-224-pixels-cpu-2-threads-float32.png)" in page


def test_the_quickest_comes_first_and_nothing_has_no_section() -> None:
    text = "\n".join(timing_section(TIMINGS[::-1]))
    assert text.index("JPEG 20") < text.index("new static") < text.index("nrp untrained")
    assert "224 x 224 pixels, cpu, 2 threads, float32:" in text
    assert timing_section(()) == []
