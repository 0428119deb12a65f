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

    def plan(self, stages: int) -> None:
        """Say how many stages are to come in all."""
        self.stages = stages

    def begin(self, name: str) -> None:
        """Enter the next stage."""
        self._current += 1
        self._name = name

    def bar(self, total: int, unit: str = "photo") -> tqdm:
        """A bar over ``total`` units of the current stage; a context manager with ``update``."""
        title = f"[{self._current}/{self.stages}] {self._name}"
        return tqdm(total=total, desc=title, unit=unit, disable=self.quiet, leave=False)
