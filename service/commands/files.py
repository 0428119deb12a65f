"""What verbs about files share: a file written whole, and the files that failed named."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress

from service.plan import Errand
from service.workbench import Failed


def write_whole(data: bytes, errand: Errand) -> Failed | None:
    """Write an errand's file; it appears whole or not at all. What went wrong, if anything did."""
    scratch = errand.target.with_name(f".{errand.target.name}.part")
    try:
        errand.target.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_bytes(data)
        scratch.replace(errand.target)
    except OSError as error:
        with suppress(OSError):
            scratch.unlink()
        return Failed(errand.source, f"cannot write {errand.target}: {error.strerror}")
    return None


def report_failures(failures: Sequence[Failed], total: int) -> int:
    """Name every failed file on standard error; the exit code."""
    for failure in sorted(failures, key=lambda f: f.source):
        print(f"nrp: {failure.source}: {failure.reason}", file=sys.stderr)
    if failures:
        print(f"nrp: {len(failures)} of {total} images failed", file=sys.stderr)
    return 1 if failures else 0
