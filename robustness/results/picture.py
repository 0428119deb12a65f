"""A picture of the results page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Picture:
    """``file`` goes into the ``section`` of the page: "overview", "tradeoff", "suspicion", "T1" to "T7", "F1", "F6",
    or "grids".

    ``title`` is for who cannot see it, ``caption`` says what is seen and on what it stands.
    """

    file: Path
    section: str
    title: str
    caption: str
