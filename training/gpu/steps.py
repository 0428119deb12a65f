"""The steps of a visit: each a process with its own time, and a report that says what became of it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tqdm import tqdm

from training.gpu.folder import write_facts
from training.gpu.stamp import Stamp

LEAST = 5.0  # seconds with which it is no use to begin
GRACE = 20.0  # seconds that a step may take to end by itself, and then to end when it is asked to


@dataclass(frozen=True)
class Step:
    """``module`` run with ``words`` and ``--minutes``; not at all where ``missing`` says why."""

    name: str
    module: str
    words: Sequence[object]
    minutes: float
    missing: str = ""


@dataclass(frozen=True)
class Outcome:
    """What became of a step: "done", "skipped", "failed" or "stopped" (it was late), ``why``, and in what time."""

    step: str
    outcome: str
    why: str
    minutes: float
    seconds: float


@dataclass
class Steps:
    """Steps one after another since ``began`` of the monotonic clock; ``report`` is written after each."""

    began: float
    report: Path
    stamp: Stamp
    outcomes: list[Outcome] = field(default_factory=list)
    allowed: float = 0.0

    def do(self, step: Step) -> Outcome:
        """Do one step: until the minutes of all steps so far are over."""
        self.allowed += 60 * step.minutes
        begin = time.monotonic()
        left = self.began + self.allowed - begin
        kind, why = self._outcome(step, left)
        seconds = round(time.monotonic() - begin, 1)
        outcome = Outcome(step.name, kind, why, step.minutes, seconds)
        self.outcomes.append(outcome)
        write_facts({**asdict(self.stamp), "steps": [asdict(one) for one in self.outcomes]}, self.report)
        tqdm.write(self.stamp.line(f"{step.name}: {kind}{', ' if why else ''}{why}, {seconds} s"))
        return outcome

    @property
    def well(self) -> bool:
        """Whether no step failed."""
        return all(one.outcome != "failed" for one in self.outcomes)

    def told(self) -> str:
        """Every step's outcome in a line."""
        return ", ".join(f"{one.step} {one.outcome}" for one in self.outcomes)

    def _outcome(self, step: Step, left: float) -> tuple[str, str]:
        if not step.minutes:
            return "skipped", "no minutes were given to it"
        if step.missing:
            return "skipped", step.missing
        if left < LEAST:
            return "skipped", "no time is left"
        tqdm.write(self.stamp.line(f"{step.name}: {left / 60:.1f} minutes"))
        words = [str(word) for word in (*step.words, "--minutes", left / 60)]
        return _run([sys.executable, "-m", step.module, *words], left)


def _run(command: list[str], left: float) -> tuple[str, str]:
    """Run ``command``; ask it to end ``GRACE`` seconds after its time, and end it after as long again."""
    with subprocess.Popen(command) as process:  # noqa: S603
        try:
            code = process.wait(left + GRACE)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
            return "stopped", "it did not end in time; what it wrote before is kept"
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)
            process.wait(GRACE)
            raise
    return ("done", "") if code == 0 else ("failed", f"it ended with {code}; what it said stands above")
