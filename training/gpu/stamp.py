"""The stamp on everything that is measured: on which device, by which PyTorch, by which code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from training.finished import hardware


@dataclass(frozen=True)
class Stamp:
    """``device``: the GPU's name, or the processor's threads; ``commit``: the revision that packed."""

    device: str
    torch_version: str
    commit: str

    @staticmethod
    def of(device: torch.device, commit: str) -> Stamp:
        """That of this process on ``device``."""
        return Stamp(hardware(device), str(torch.__version__), commit)

    def line(self, text: str) -> str:
        """``text`` with the stamp behind it, for a log."""
        return f"{text} [{self.device}, torch {self.torch_version}, commit {self.commit}]"

    def append(self, row: Mapping[str, Any], path: Path) -> None:
        """Write ``row`` as the last line of ``path``, at once: what a kill takes is what came after."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**row, **asdict(self)}, sort_keys=True) + "\n")
