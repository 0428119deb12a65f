"""Where a stage is trained."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from training.parallel import ALONE, Workers


@dataclass(frozen=True)
class Place:
    """On which device, by which of the workers, with its checkpoints in ``folder``, and for how long.

    ``deadline`` is a time of the monotonic clock, None for as long as it takes.
    """

    device: torch.device
    folder: Path
    workers: Workers = ALONE
    quiet: bool = False
    deadline: float | None = None
