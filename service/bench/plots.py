"""Plots of a run: throughput by clients, latency against throughput, overload, memory."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from service.bench.bars import GOODPUT, best_loop, points
from service.bench.errors import BenchError
from service.bench.figures import middle
from service.bench.rows import Report, write_whole
from service.bench.servers import ARMS, OURS, PEERS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Told apart by colour-blind readers (Okabe and Ito), and by their markers.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")
GREY = "#8c8c8c"
DPI = 100


def new_figure(height: int = 520) -> tuple[Figure, Axes]:
    """An empty figure 1200 pixels wide. Raises BenchError where matplotlib is not installed."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - an optional package
        from matplotlib.figure import Figure as NewFigure  # noqa: PLC0415
    except ImportError as error:
        raise BenchError('the page has plots, which need matplotlib: pip install -e ".[bench]"') from error
    figure = NewFigure(figsize=(12, height / DPI), dpi=DPI, facecolor="white")
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.1)
    FigureCanvasAgg(figure)
    axis: Axes = figure.subplots()
    axis.grid(visible=True, color="#e3e3e3", linewidth=0.8)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    return figure, axis


def plot_all(report: Report, folder: Path) -> list[tuple[str, str]]:
    """(file name, title) of each plot that the run has the figures of, written into ``folder``."""
    measured = {row.subject for row in report.rows if row.measure == "load"}
    arms = [arm for arm in (OURS, *PEERS) if arm in measured]
    kinds: tuple[tuple[str, str, Callable[[Report, Axes, Sequence[str]], None]], ...] = (
        ("serving-clients.png", "Images a second by clients in a closed loop", _clients),
        ("serving-latency.png", "p99 against images a second, every phase", _latency),
        ("serving-overload.png", "Goodput over capacity by offered load", _overload),
        ("serving-memory.png", "Resident memory of the whole process tree, peak", _memory),
    )
    drawn = []
    for name, title, draw in kinds if arms else ():
        figure, axis = new_figure()
        draw(report, axis, arms)
        _finish(figure, axis, folder / name)
        drawn.append((name, title))
    return drawn


def series(report: Report, arm: str, kind: str, figure: str) -> list[tuple[int, float, float, float]]:
    """(level, median, least, most over rounds) of an arm's phases of a kind."""
    settings = {row.setting for row in report.rows if row.measure == "load" and row.subject == arm}
    found = []
    for setting in settings:
        word, level, _ = setting.split(" ")
        values = report.values("load", arm, setting, figure)
        if word == kind and values:
            found.append((int(level), middle(values), min(values), max(values)))
    return sorted(found)


def _draw(axis: Axes, number: int, known: Sequence[tuple[float, float, float, float]], label: str, ours: bool) -> None:
    if not known:
        return
    at, value, low, high = zip(*known, strict=True)
    below = [one - other for one, other in zip(value, low, strict=True)]
    above = [one - other for one, other in zip(high, value, strict=True)]
    axis.errorbar(
        at, value, yerr=[below, above], label=label, color=COLOURS[number % len(COLOURS)],
        marker=MARKERS[number % len(MARKERS)], linewidth=2.6 if ours else 1.4, capsize=2.5,
    )  # fmt: skip


def _clients(report: Report, axis: Axes, arms: Sequence[str]) -> None:
    for number, arm in enumerate(arms):
        _draw(axis, number, series(report, arm, "closed", GOODPUT), ARMS[arm].words, arm == OURS)
    loop = best_loop(report)
    if loop is not None:
        axis.axhline(loop[1], color=GREY, linestyle="--", label=f"no HTTP, {loop[0]}")
    axis.set_xscale("log", base=2)
    levels = sorted({level for arm in arms for level, *_ in series(report, arm, "closed", GOODPUT)})
    axis.set_xticks(levels, [str(level) for level in levels])
    axis.set_ylim(bottom=0)
    axis.set(xlabel="clients", ylabel="images a second")


def _latency(report: Report, axis: Axes, arms: Sequence[str]) -> None:
    for number, arm in enumerate(arms):
        known = points(report, arm)
        axis.plot(
            [throughput for _, throughput in known], [p99 for p99, _ in known], label=ARMS[arm].words, linestyle="",
            color=COLOURS[number % len(COLOURS)], marker=MARKERS[number % len(MARKERS)], markersize=8,
        )  # fmt: skip
    axis.set_yscale("log")
    axis.set(xlabel="images a second", ylabel="p99 in ms")


def _overload(report: Report, axis: Axes, arms: Sequence[str]) -> None:
    for number, arm in enumerate(arms):
        known = series(report, arm, "open", "share_of_capacity")
        _draw(axis, number, known, ARMS[arm].words, arm == OURS)
    axis.set_ylim(bottom=0)
    axis.set(xlabel="offered load in % of the arm's own capacity", ylabel="goodput over capacity")


def _memory(report: Report, axis: Axes, arms: Sequence[str]) -> None:
    peaks = [
        max((row.figures.get("rss_peak_mib", 0.0) for row in report.rows if row.subject == arm), default=0.0)
        for arm in arms
    ]
    axis.bar([ARMS[arm].words for arm in arms], peaks, color=[COLOURS[n % len(COLOURS)] for n in range(len(arms))])
    axis.set_ylabel("MiB, pages that processes share counted for each")


def _finish(figure: Figure, axis: Axes, path: Path) -> None:
    """Add the legend and write a PNG that equal figures make equal."""
    marks, names = axis.get_legend_handles_labels()
    if marks:
        figure.legend(marks, names, loc="outside lower center", ncols=4, frameon=False)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=DPI, metadata={"Software": None})
    small = io.BytesIO()
    with Image.open(content) as image:
        image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
    write_whole(path, small.getvalue())
