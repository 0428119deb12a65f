"""The packed folder: what is carried to the GPU, in three parts that can be carried apart.

``train/``: plan, networks and photos of the training. ``judge/``: classifiers that no training has seen, the purifiers
measured beside, and photos as they are, with labels. ``resume/``: the checkpoint of an earlier call, in pieces.
``manifest.json`` states the code revision and the networks that serving is timed with.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.errors import DataError

ADVICE = "write the folder with `make gpu-pack`"


@dataclass(frozen=True)
class Folder:
    """Where everything is in a packed folder at ``root``."""

    root: Path

    @property
    def plan(self) -> Path:
        """What is trained."""
        return self.root / "train" / "plan.json"

    @property
    def photos(self) -> Path:
        """What it is trained on."""
        return self.root / "train" / "photos.safetensors"

    @property
    def judge(self) -> Path:
        """Who judges it: networks, modes and data."""
        return self.root / "judge" / "judge.json"

    @property
    def judged(self) -> Path:
        """The photos that it is judged on."""
        return self.root / "judge" / "photos.safetensors"

    @property
    def resume(self) -> Path:
        """The pieces of an earlier call's checkpoint."""
        return self.root / "resume"

    @property
    def manifest(self) -> Path:
        """What was packed, by which code."""
        return self.root / "manifest.json"

    def missing(self, *paths: Path) -> str:
        """Why a step cannot be done, or nothing where all ``paths`` are there."""
        absent = [path for path in paths if not path.is_file()]
        return f"{absent[0]} is not there; {ADVICE}, and carry it whole" if absent else ""

    def facts(self) -> Mapping[str, Any]:
        """The manifest. Raises DataError."""
        return read_facts(self.manifest)


def read_facts(path: Path) -> Mapping[str, Any]:
    """A JSON object. Raises DataError where there is none."""
    try:
        facts = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); {ADVICE}") from error
    if not isinstance(facts, dict):
        raise DataError(f"{path} is no object; {ADVICE}")
    return facts


def write_facts(facts: Mapping[str, Any], path: Path) -> None:
    """Write a JSON object, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f"{path.name}.new")
    scratch.write_text(json.dumps(facts, indent=2) + "\n")
    scratch.replace(path)
