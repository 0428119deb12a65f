"""Averages: one row for several victims, and the row of the attack that leaves least."""

from __future__ import annotations

from collections.abc import Sequence

from robustness.intervals import wilson
from robustness.results.row import Row

MEAN = "mean of victims"


def mean_of_victims(rows: Sequence[Row]) -> Row:
    """The mean of the percents of rows that differ in the victim alone, as a row of the victim ``MEAN``.

    Its interval is Wilson's of that share on the smallest count of images: victims share their images and are not
    independent, so it is never too narrow. If one victim was not measured, neither was the mean.
    """
    first = rows[0]
    lacking = [f"{row.victim}: {row.missing}" for row in rows if row.missing]
    if lacking:
        reasons = {row.missing for row in rows}
        reason = reasons.pop() if len(reasons) == 1 else "; ".join(lacking)
        return first.model_copy(
            update={"victim": MEAN, "percent": None, "interval": None, "count": 0, "missing": reason}
        )
    count = min(row.count for row in rows)
    percent = sum(row.percent for row in rows if row.percent is not None) / len(rows)
    low, high = wilson(percent / 100 * count, count)
    interval = (100 * low, 100 * high)
    return first.model_copy(update={"victim": MEAN, "percent": percent, "interval": interval, "count": count})


def lowest(rows: Sequence[Row]) -> Row:
    """The row with the lowest figure; one that was not measured only if none was."""
    return min(rows, key=lambda row: float("inf") if row.percent is None else row.percent)
