"""Who is served first where cores are few: the event loop, which has little to do and keeps everybody waiting."""

from __future__ import annotations

import os
import sys
import threading

NICENESS = 5


def step_back() -> None:
    """Make the calling thread yield to those that do not compute; threads that it starts do so too.

    On Linux alone, where threads have a niceness of their own.
    """
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
