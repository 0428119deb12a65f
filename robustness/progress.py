"""Progress: the stages of a run, each with a bar and the time it has left."""

from __future__ import annotations

from tqdm import tqdm


class Progress:
    """Numbers the stages of a run; a stage that was cached is counted and draws no bar."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self.stages = 0
        self._current = 0
        self._name = ""
        self._section = ""

    def plan(self, stages: int) -> None:
        """Say how many stages are to come in all."""
        self.stages = stages

    def section(self, title: str, number: int, of: int) -> None:
        """Enter a part of a run whose number of stages only the results will tell."""
        self._section = f"{title} ({number} of {of})"
        self._current = 0

    def begin(self, name: str) -> None:
        """Enter the next stage."""
        self._current += 1
        self._name = name

    def bar(self, total: int, unit: str = "photo") -> tqdm:
        """A bar over ``total`` units of the current stage; a context manager with ``update``."""
        counted = f"{self._current}/{self.stages}" if self.stages else f"{self._section} {self._current}".strip()
        title = f"[{counted}] {self._name}"
        return tqdm(total=total, desc=title, unit=unit, disable=self.quiet, leave=False)
