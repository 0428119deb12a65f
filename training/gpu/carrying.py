"""A checkpoint on its way from one machine to the next: small enough, and in pieces of at most 15 MiB.

The weights stay as they are; the moving average and the best so far become float16, in which they are published
anyway, and the moments of the optimisers bfloat16. A run that goes on from it is not the same to the bit.
"""

from __future__ import annotations

import io
import math
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model_store.architectures import build
from training.critic import Critic
from training.errors import RunError
from training.purifier_recipe import PurifierRecipe

PIECE = 15 * 2**20
EXACT = frozenset({"purifier"})
COARSE = frozenset({"optimiser", "critic_optimiser"})
NAME = re.compile(r"checkpoint-(\d+)-of-(\d+)")


def split(checkpoint: Path, folder: Path) -> list[Path]:
    """Write ``checkpoint`` in pieces into ``folder``, in place of earlier ones."""
    saved = torch.load(checkpoint, weights_only=True, map_location="cpu")
    held = io.BytesIO()
    torch.save(lighter(saved), held)
    data = held.getvalue()
    count = math.ceil(len(data) / PIECE)
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("checkpoint-*"):
        old.unlink()
    paths = [folder / f"checkpoint-{number + 1}-of-{count}" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_bytes(data[number * PIECE : (number + 1) * PIECE])
    return paths


def join(folder: Path, checkpoint: Path) -> bool:
    """Write the checkpoint that ``folder`` holds in pieces; False where it holds none, or one is there already.

    Raises RunError where a piece is missing.
    """
    names = {path: NAME.fullmatch(path.name) for path in folder.glob("checkpoint-*")}
    pieces = {int(name[1]): path for path, name in names.items() if name}
    if not pieces or checkpoint.exists():
        return False
    counts = {int(name[2]) for name in names.values() if name}
    if len(counts) > 1 or sorted(pieces) != list(range(1, min(counts) + 1)):
        raise RunError(f"{folder} lacks a piece of the checkpoint, or mixes two; copy all of one call, or none")
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.write_bytes(b"".join(pieces[number].read_bytes() for number in sorted(pieces)))
    return True


def weight_of(recipe: PurifierRecipe) -> int:
    """About how many bytes a run of ``recipe`` takes in pieces: weights, average, best, and two moments of each."""
    parameters, critic = (_count(module) for module in (build(recipe.architecture, recipe.arguments), Critic()))
    coarse = 6 if recipe.adversarial_weight else 2
    return round(1.02 * (12 * parameters + coarse * critic))


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def lighter(value: Any, dtype: torch.dtype | None = torch.float16) -> Any:
    """``value`` with its tensors of more than one number in ``dtype``; None leaves them as they are."""
    if isinstance(value, Tensor):
        return value.to(dtype) if dtype is not None and value.is_floating_point() and value.ndim else value
    if isinstance(value, dict):
        return {key: lighter(each, _dtype_of(key, dtype)) for key, each in value.items()}
    if isinstance(value, list):
        return [lighter(each, dtype) for each in value]
    return value


def _dtype_of(key: Any, dtype: torch.dtype | None) -> torch.dtype | None:
    if key in EXACT:
        return None
    return torch.bfloat16 if key in COARSE else dtype
