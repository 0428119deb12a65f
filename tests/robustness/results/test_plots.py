from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from robustness.errors import EvaluationError
from robustness.results import canvas
from robustness.results.picture import Picture
from robustness.results.plots import plot_all, plot_defences, plot_iterations, plot_layers
from robustness.results.row import Row

pytest.importorskip("matplotlib", reason="plots are an extra of the package")


def of(rows: Sequence[Row], table: str) -> list[Row]:
    return [row for row in rows if row.table == table]


@pytest.fixture(scope="module")
def pictures(rows: tuple[Row, ...], tmp_path_factory: pytest.TempPathFactory) -> tuple[Picture, ...]:
    return plot_all(rows, tmp_path_factory.mktemp("plots"))


def test_there_is_a_picture_for_everything_that_can_be_drawn(pictures: tuple[Picture, ...]) -> None:
    assert [(picture.section, picture.file.name) for picture in pictures] == [
        ("overview", "paper-accuracy.png"),
        ("F1", "paper-figure-1.png"),
        ("F6", "paper-figure-6.png"),
        ("T6", "paper-table-6.png"),
        ("T7", "paper-table-7.png"),
    ]
    assert all("95 %" in picture.caption and "paper" in picture.caption for picture in pictures)


def test_pictures_open_and_hold_something(pictures: tuple[Picture, ...]) -> None:
    for picture in pictures:
        assert picture.file.stat().st_size < 150_000
        with Image.open(picture.file) as image:
            assert image.format == "PNG"
            assert image.width == 1200
            assert not image.info.keys() & {"Software", "Creation Time", "date:create"}
            pixels = np.asarray(image.convert("RGB"), dtype=np.int64)
        inked = (pixels < 200).any(axis=2)
        assert 0.01 < inked.mean() < 0.6
        # Colours, not greys alone: the purifiers, the networks, the attacks or the bars.
        assert (np.ptp(pixels, axis=2) > 80).mean() > 0.001


def test_equal_rows_make_equal_files(rows: tuple[Row, ...], tmp_path: Path) -> None:
    plot_layers(of(rows, "F1"), tmp_path / "one.png")
    plot_layers(of(rows, "F1")[::-1], tmp_path / "two.png")
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_other_figures_make_another_picture(rows: tuple[Row, ...], tmp_path: Path) -> None:
    mine = of(rows, "F6")
    plot_iterations(mine, tmp_path / "one.png")
    moved = mine[0].model_copy(update={"percent": 5.0, "interval": (2.0, 9.0)})
    plot_iterations([moved, *mine[1:]], tmp_path / "two.png")
    assert (tmp_path / "one.png").read_bytes() != (tmp_path / "two.png").read_bytes()


def test_a_missing_figure_is_not_drawn(rows: tuple[Row, ...], tmp_path: Path) -> None:
    mine = of(rows, "T7")
    gone = {"percent": None, "interval": None, "missing": "no time"}
    empty = [row.model_copy(update=gone) for row in mine if row.attacker != "aware"]
    plot_defences(empty, tmp_path / "empty.png")
    with Image.open(tmp_path / "empty.png") as image:
        blue = np.asarray(image.convert("RGB"))[:450] == (0, 114, 178)
    assert not blue.all(axis=2).any()


def test_a_column_without_a_figure_is_not_in_the_legend(rows: tuple[Row, ...], tmp_path: Path) -> None:
    lacking = {"percent": None, "interval": None, "count": 0, "missing": "left out"}
    mine = [row.model_copy(update=lacking) if row.eps == 8 else row for row in of(rows, "T6")]
    legends = []
    for name, drawn in (("whole", of(rows, "T6")), ("lacking", mine)):
        plot_defences(drawn, tmp_path / f"{name}.png")
        with Image.open(tmp_path / f"{name}.png") as image:
            legends.append((np.asarray(image.convert("RGB"))[540:] < 200).any(axis=2).sum())
    assert legends[1] < legends[0]


def test_a_layer_must_be_named(rows: tuple[Row, ...], tmp_path: Path) -> None:
    nameless = of(rows, "F1")[0].model_copy(update={"settings": {}})
    with pytest.raises(EvaluationError, match=r"settings\.layer"):
        plot_layers([nameless], tmp_path / "one.png")


def test_victims_are_not_mixed(rows: tuple[Row, ...], tmp_path: Path) -> None:
    mine = of(rows, "F6")
    other = [row.model_copy(update={"victim": "other"}) for row in mine]
    with pytest.raises(EvaluationError, match="victim in figure 6"):
        plot_iterations([*mine, *other], tmp_path / "one.png")
    found = plot_all([*mine, *other], tmp_path)
    assert [picture.file.name for picture in found] == [
        "paper-figure-6-tiny-densenet-eps-16.png",
        "paper-figure-6-other-eps-16.png",
    ]


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(EvaluationError, match=r"\.\[evaluate\]"):
        canvas.panels(1, 100)


def test_lines_of_defences_can_be_told_apart() -> None:
    names = [("none", "none"), *((f"b{n}", "baseline") for n in range(7)), *((f"p{n}", "purifier") for n in range(8))]
    found = canvas.looks(names)
    assert len({(look.colour, look.marker, look.dash) for look in found.values()}) == len(names)
