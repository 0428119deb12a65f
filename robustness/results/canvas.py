"""The canvas: an empty figure of a fixed size and look, lines and bars on it, and the same PNG on every run.

Figures are made through matplotlib's object interface with the Agg renderer: nothing global is set, and no display
is needed. Colours are those of Okabe and Ito, told apart by colour-blind readers; lines differ in marker and dash too.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from robustness.errors import EvaluationError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 1200
DPI = 100
INK = "#222222"
GREY = "#8c8c8c"
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
BAR_COLOURS = ("#0072B2", "#E69F00", "#D55E00")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
DASHES = ("-", "--", "-.", ":")
PAPERS = "the paper's"


@dataclass(frozen=True)
class Point:
    """A figure in percent at ``x``, and its interval."""

    x: float
    percent: float
    low: float
    high: float

    @property
    def below(self) -> float:
        """How far the interval reaches down."""
        return max(0.0, self.percent - self.low)

    @property
    def above(self) -> float:
        """How far it reaches up."""
        return max(0.0, self.high - self.percent)


@dataclass(frozen=True)
class Look:
    """How one line is drawn."""

    colour: str
    marker: str
    dash: str
    width: float = 2.2
    is_none: bool = False

    @classmethod
    def numbered(cls, number: int) -> Look:
        """The look of the number-th line among equals."""
        dash = DASHES[number // len(PALETTE) % len(DASHES)]
        return cls(PALETTE[number % len(PALETTE)], MARKERS[number % len(MARKERS)], dash)


def looks(defences: Sequence[tuple[str, str]]) -> dict[str, Look]:
    """A look for each defence by name and role: black for none, greys for baselines, colours for purifiers."""
    found: dict[str, Look] = {}
    seen = {"none": 0, "baseline": 0, "purifier": 0}
    for name, role in defences:
        number = seen[role]
        seen[role] += 1
        if role == "none":
            found[name] = Look(INK, "o", "-", is_none=True)
        elif role == "baseline":
            found[name] = Look(GREY, MARKERS[(number + 1) % len(MARKERS)], DASHES[1 + number % 3], 1.2)
        else:
            found[name] = Look.numbered(number)
    return found


def panels(count: int, height: int) -> tuple[Figure, Sequence[Axes]]:
    """A figure 1200 pixels wide and ``height`` high, with ``count`` panels side by side that share their y axis.

    Raises EvaluationError where matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - an optional package
        from matplotlib.figure import Figure as NewFigure  # noqa: PLC0415
    except ImportError as error:
        raise EvaluationError('plots need matplotlib; install the extra: pip install -e ".[evaluate]"') from error
    figure = NewFigure(figsize=(WIDTH / DPI, height / DPI), dpi=DPI, facecolor="white")
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.1)
    FigureCanvasAgg(figure)
    axes: Sequence[Axes] = figure.subplots(1, count, sharey=True, squeeze=False)[0]
    for axis in axes:
        axis.grid(visible=True, axis="y", color="#e3e3e3", linewidth=0.8)
        axis.set_axisbelow(True)
        axis.tick_params(labelsize=12, colors=INK)
        axis.set_ylim(0, 102)
        axis.spines[["top", "right"]].set_visible(False)
        axis.spines[["left", "bottom"]].set_color(GREY)
    return figure, axes


def line(axis: Axes, points: Sequence[Point], name: str, look: Look) -> None:
    """Markers joined by a line, with their intervals; those of thin lines are faint."""
    thick = look.width > 2
    _, caps, intervals = axis.errorbar(
        [point.x for point in points],
        [point.percent for point in points],
        yerr=[[point.below for point in points], [point.above for point in points]],
        label=name,
        color=look.colour,
        marker=look.marker,
        linestyle=look.dash,
        linewidth=look.width,
        markersize=7 if thick else 5,
        elinewidth=1.2 if thick else 0.8,
        capsize=2.5 if thick else 0.0,
        zorder=3 if thick else 2,
    )
    for mark in (*caps, *intervals):
        mark.set_alpha(0.8 if thick else 0.35)


def bars(
    axis: Axes, number: int, of: int, name: str, ours: Sequence[Point], theirs: Sequence[tuple[float, float]]
) -> None:
    """The number-th of ``of`` bars in each group, with intervals; ``theirs`` (x, percent) as diamonds upon them."""
    width = 0.8 / of
    shift = (number - (of - 1) / 2) * width
    axis.bar(
        [point.x + shift for point in ours],
        [point.percent for point in ours],
        width * 0.92,
        yerr=[[point.below for point in ours], [point.above for point in ours]],
        label=name,
        color=BAR_COLOURS[number % len(BAR_COLOURS)],
        error_kw={"elinewidth": 1.2, "capsize": 2.5, "ecolor": INK},
    )
    axis.plot(
        [x + shift for x, _ in theirs],
        [percent for _, percent in theirs],
        linestyle="",
        marker="D",
        markersize=7,
        markerfacecolor="white",
        markeredgecolor=INK,
        label=PAPERS if number == of - 1 else "",
    )


def finish(figure: Figure, axes: Sequence[Axes], path: Path, *, legend: bool = True) -> None:
    """Add the legend below, and write a PNG without date or program name: equal figures are equal files.

    Raises EvaluationError if the file cannot be written.
    """
    if legend:
        drawn = {name: mark for axis in axes for mark, name in zip(*axis.get_legend_handles_labels(), strict=True)}
        names = sorted(drawn, key=lambda name: name == PAPERS)
        marks = [drawn[name] for name in names]
        columns = min(len(names), 4)
        figure.legend(marks, names, loc="outside lower center", ncols=columns, fontsize=12, frameon=False)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=DPI, metadata={"Software": None})
    scratch = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # 256 colours are plenty for a plot and a third of the bytes.
        with Image.open(content) as image:
            image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(scratch, "PNG", optimize=True)
        scratch.replace(path)
    except OSError as error:
        raise EvaluationError(f"{path} cannot be written ({error.strerror}); give another folder") from error
