"""The bars: what a purifier has to reach before it is called good, as data, and whether a figure reaches it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from robustness.results.row import Attacker, Row

Kind = Literal["clean", "unaware", "transfer", "aware", "scenes", "certified"]
Judged = Literal["points", "share", "recovered", "certified"]

# How a figure that is judged is called, which is also the metric of its row.
WORDS: Mapping[Judged, str] = MappingProxyType(
    {
        "points": "points over the best baseline",
        "share": "% of clean",
        "recovered": "% of the loss recovered",
        "certified": "% certified",
    }
)


@dataclass(frozen=True)
class Bar:
    """A figure of ``kind`` must be at least ``least``, in the unit that ``judged`` says, at each of ``at``.

    ``at`` are budgets in /255, of ``certified`` radii in the L2 norm of [0,1]. ``how`` tells who has no figure how to
    get one.
    """

    kind: Kind
    at: tuple[float, ...]
    judged: Judged
    least: float
    how: str


_PHOTOS = "give --data with photos"
BARS: tuple[Bar, ...] = (
    Bar("clean", (0,), "share", 97, _PHOTOS),
    Bar("unaware", (4, 8), "points", 10, _PHOTOS),
    Bar("unaware", (2, 16), "points", 5, _PHOTOS),
    Bar("transfer", (16,), "share", 80, _PHOTOS),
    Bar("aware", (4,), "share", 35, _PHOTOS),
    Bar("scenes", (16,), "recovered", 60, "give --data with scenes, such as CamVid's, and a segmenter or a detector"),
    Bar("certified", (0.5,), "certified", 30, "run `nrp evaluate certify` with --results"),
)

# What a figure is judged in where there is no bar for its budget.
USUAL: Mapping[Kind, Judged] = MappingProxyType(
    {
        "clean": "share",
        "unaware": "points",
        "transfer": "share",
        "aware": "share",
        "scenes": "recovered",
        "certified": "certified",
    }
)
_KINDS: Mapping[Attacker, Kind] = MappingProxyType(
    {"none": "clean", "white box": "unaware", "transfer": "transfer", "aware": "aware"}
)


def kind_of(attacker: Attacker) -> Kind:
    """What a figure of photos under this attacker counts as."""
    return _KINDS[attacker]


def bar_for(kind: Kind, at: float) -> Bar | None:
    """The bar for a figure, None where there is none."""
    return next((bar for bar in BARS if bar.kind == kind and at in bar.at), None)


def judged_in(kind: Kind, at: float) -> Judged:
    """What a figure is judged in."""
    bar = bar_for(kind, at)
    return USUAL[kind] if bar is None else bar.judged


def verdict(bar: Bar | None, figure: Row) -> str:
    """``met`` or ``missed`` by the figure itself, ``no bar``, or ``not measured``."""
    if bar is None:
        return "no bar"
    if figure.percent is None:
        return "not measured"
    return "met" if figure.percent >= bar.least else "missed"


def unmeasured(figures: Iterable[tuple[Kind, float]]) -> list[tuple[Bar, float]]:
    """Each bar and budget that no figure of this kind and budget is for."""
    there = set(figures)
    return [(bar, at) for bar in BARS for at in bar.at if (bar.kind, at) not in there]
