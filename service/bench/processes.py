"""A process and all that it started, as Linux tells it: how much memory they hold, and ending them."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
GONE_S = 10.0


@dataclass(frozen=True)
class Process:
    """``started`` tells a process from a later one of the same number; both as the kernel counts."""

    pid: int
    parent: int
    started: int
    resident_pages: int


def can_watch() -> bool:
    """Whether this system tells about its processes."""
    return (_PROC / "self" / "stat").is_file()


def family(root: int) -> list[Process]:
    """The process ``root`` and its descendants; empty once it has ended, or where the system does not tell."""
    known = {process.pid: process for process in map(_read, _numbers()) if process is not None}
    found = [known[root]] if root in known else []
    for process in found:  # grows while it is walked
        found += [other for other in known.values() if other.parent == process.pid]
    return found


def resident_bytes(processes: list[Process]) -> int:
    """Resident memory, pages that processes share counted for each."""
    return sum(process.resident_pages for process in processes) * os.sysconf("SC_PAGE_SIZE")


def end(processes: list[Process]) -> list[int]:
    """Kill those that still run, and wait until they are gone; the numbers of those that did run."""
    running = [process for process in processes if _runs(process)]
    for process in running:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
    give_up = time.monotonic() + GONE_S
    while any(map(_runs, running)) and time.monotonic() < give_up:
        time.sleep(0.02)
    return [process.pid for process in running]


def _runs(process: Process) -> bool:
    now = _read(process.pid)
    return now is not None and now.started == process.started


def _numbers() -> list[int]:
    return [int(path.name) for path in _PROC.iterdir() if path.name.isdigit()] if can_watch() else []


def _read(pid: int) -> Process | None:
    """None for a process that has ended, a zombie too."""
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name before it may hold spaces and brackets
    if fields[0] in "ZX":
        return None
    return Process(pid, parent=int(fields[1]), started=int(fields[19]), resident_pages=int(fields[21]))
