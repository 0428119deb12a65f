"""Certified accuracy on the page: what no change of a bounded L2 norm can take from smoothed classifiers."""

from __future__ import annotations

from collections.abc import Sequence

from robustness.results.averages import mean_of_victims
from robustness.results.bars import BARS
from robustness.results.cells import NOT_APPLICABLE, Footnotes, blocks, grid, photos
from robustness.results.order import defence_key, natural
from robustness.results.row import Row

TABLE = "certified"
CERTIFIED = "certified accuracy"
# The columns before the radii, and the row's metric.
METRICS = ("natural accuracy", "smoothed accuracy", "abstentions")

READING = """\
Figures about a classifier whose name begins with `imagenette` are about a small network of our own at 128 pixels: a
smoke test, and no claim about yours.

Denoised smoothing (Salman et al., 2020; Cohen et al., 2019): the answer is the classifier's most frequent one under
Gaussian noise, with the purifier before it. A photo counts at a radius if that answer is right and no perturbation of
a smaller L2 norm (of images in [0,1]) can change it; of each photo that holds but for a chance of *alpha*. Natural
accuracy is without noise; smoothed accuracy is of the most frequent answer; a photo is abstained from where nothing
can be certified."""


def certified_section(rows: Sequence[Row]) -> list[str]:
    """The blocks of the section; none without rows."""
    if not rows:
        return []
    radii = sorted({row.x for row in rows if row.x is not None})
    at = {(row.series, row.victim, row.defence, row.metric, row.x): row for row in rows}
    subjects = {(row.series, row.victim, row.defence): row.role for row in rows}
    notes, lines = Footnotes(), []
    for series, victim, defence in sorted(
        subjects, key=lambda s: (natural(s[0]), natural(s[1]), defence_key(s[2], subjects[s]))
    ):
        columns = [*((metric, None) for metric in METRICS), *((CERTIFIED, radius) for radius in radii)]
        found = [at.get((series, victim, defence, *column)) for column in columns]
        measured = [row for row in found if row is not None]
        settings = measured[0].settings
        shown = [NOT_APPLICABLE if row is None else notes.cell(row) for row in found]
        drawn = f"{settings.get('n0')}, {settings.get('n')}, {settings.get('alpha')}"
        lines.append((defence, victim, series, drawn, photos(measured), *shown))
    heads = ("defence", "classifier", "noise", "n0, n, alpha", "photos", "natural", "smoothed", "abstained")
    table = grid((*heads, *(f"radius {radius:g}" for radius in radii)), lines, words=4)
    return ["## Certified accuracy", READING, blocks(table, notes.lines())]


def certified_bar(rows: Sequence[Row]) -> list[Row]:
    """The row that is judged at each radius of a bar, from the rows of one purifier: of several noises the best.

    Several classifiers are averaged.
    """
    found = []
    for radius in (at for bar in BARS if bar.kind == TABLE for at in bar.at):
        mine = [row for row in rows if (row.metric, row.x, row.role) == (CERTIFIED, radius, "purifier")]
        means = [_mean([row for row in mine if row.series == series]) for series in sorted({r.series for r in mine})]
        measured = [row for row in means if row.percent is not None]
        if measured:
            best = max(measured, key=lambda row: row.percent or 0.0)
            found.append(best.model_copy(update={"metric": "% certified"}))
    return found


def _mean(rows: Sequence[Row]) -> Row:
    return mean_of_victims(rows) if len(rows) > 1 else rows[0]
