"""What a finished stage leaves: ``weights.safetensors`` in half precision and ``run.json``, to be published at home."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from model_store.architectures import ARCHITECTURES
from training.errors import RunError
from training.loop import Reporting
from training.plan import Planned, filled, halved
from training.recipe import Recipe, recipe_from_json, recipe_json
from training.stages import SCHEMAS, Network, Stage

WEIGHTS = "weights.safetensors"
RUN = "run.json"
LARGEST = 16 * 2**20  # bytes: what a store, a repository and a slow line still carry easily


@dataclass(frozen=True)
class Finished:
    """A stage's outcome: ``facts`` is all of run.json."""

    kind: str
    recipe: Recipe
    module: nn.Module
    identity: str
    facts: Mapping[str, Any]

    @property
    def network(self) -> Network:
        """As a later stage builds on it."""
        task = ARCHITECTURES[self.recipe.architecture].task
        return Network(self.module, self.identity, task, self.recipe.architecture, arguments_of(self))


def arguments_of(finished: Finished) -> dict[str, Any]:
    """The architecture's arguments, with the number of classes where the data gave it."""
    return _arguments(finished.kind, finished.recipe, finished.facts["folders"])


def _arguments(kind: str, recipe: Recipe, folders: list[str]) -> dict[str, Any]:
    return dict(recipe.arguments) if kind == "purifier" else {**recipe.arguments, "classes": len(folders)}


def require_small(name: str, module: nn.Module) -> None:
    """Raise RunError where the weights are too large to be carried home, so that nobody trains them first."""
    size = len(halved(module))
    if size > LARGEST:
        raise RunError(
            f"the weights of {name!r} take {size / 2**20:.1f} MiB in half precision, and at most {LARGEST >> 20} are "
            "carried home; choose a smaller architecture"
        )


def hardware(device: torch.device, workers: int = 1) -> str:
    """What trained: the GPU's name, or how many of the processor's threads; of each worker."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        threads = torch.get_num_threads()
        name = f"CPU, {threads} thread{'s' if threads > 1 else ''}"
    return f"{workers} x {name}" if workers > 1 else name


def write_finished(planned: Planned, stage: Stage, folder: Path, device: torch.device, code_revision: str) -> None:
    """Write both files, run.json last: where it is, the stage is finished."""
    folder.mkdir(parents=True, exist_ok=True)
    module = stage.result()
    require_small(planned.name, module)
    (folder / WEIGHTS).write_bytes(halved(module))
    steps, seconds, _ = stage.run.load()
    validation = stage.validation
    facts = {
        "kind": planned.kind,
        "recipe": recipe_json(planned.recipe),
        "folders": list(stage.photos.folders),
        "photos": {"count": len(stage.photos), "fingerprint": stage.photos.fingerprint},
        "steps": steps,
        "seconds": round(stage.prepared + seconds, 1),
        "hardware": hardware(device, stage.run.workers.world),
        "torch": torch.__version__,
        "code_revision": code_revision,
        "validation": validation.report() if validation is not None else {},
        "facts": dict(stage.work.facts()) if isinstance(stage.work, Reporting) else {},
    }
    scratch = folder / f"{RUN}.new"
    scratch.write_text(json.dumps(facts, indent=2) + "\n")
    scratch.replace(folder / RUN)


def is_finished(folder: Path) -> bool:
    """Whether a stage left its outcome there."""
    return (folder / RUN).is_file()


def read_finished(folder: Path) -> Finished:
    """The outcome in ``folder``. Raises RunError where there is none, RecipeError where it is of another version."""
    try:
        facts = json.loads((folder / RUN).read_text())
        data = (folder / WEIGHTS).read_bytes()
        kind = facts["kind"]
        recipe = recipe_from_json(SCHEMAS[kind], facts["recipe"])
        module = filled(recipe.architecture, _arguments(kind, recipe, facts["folders"]), data)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{folder} holds no finished training ({type(error).__name__}: {error}); name a folder that "
            "`python -m training.bare` left, with weights.safetensors and run.json"
        ) from error
    return Finished(kind, recipe, module, hashlib.sha256(data).hexdigest(), facts)
