"""Costs: what a defence took to train, as one line of a table."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CostLine:
    """``devices`` of ``hardware`` were busy for ``hours`` of wall-clock time.

    ``needs_labels``: the training data must be labelled, or the defence serves one task alone. ``dataset_specific``:
    another data set needs another training.
    """

    method: str
    devices: int
    hours: float
    hardware: str
    needs_labels: bool
    dataset_specific: bool
