"""A hub's cache of our own making: random weights of a small network, where timm and the hub look for its real ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
from torch import Tensor

NAME = "test_efficientnet.r160_in1k"  # 0.4 M parameters, 1,000 classes, 160 px
REPOSITORY = f"timm/{NAME}"


def hub_cache(patch: pytest.MonkeyPatch, root: Path) -> Path:
    """The hub's cache for this test, empty, and no network."""
    patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(root))
    patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return root


def cache_file(root: Path, data: bytes, repository: str = REPOSITORY) -> Path:
    """Lay down a file of weights as the hub's client does."""
    folder, revision = root / f"models--{repository.replace('/', '--')}", "0" * 40
    file = folder / "snapshots" / revision / "model.safetensors"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    (folder / "refs").mkdir(exist_ok=True)
    (folder / "refs" / "main").write_text(revision)
    return file


def random_state(name: str = NAME) -> dict[str, Tensor]:
    """The network's own names and shapes."""
    torch.manual_seed(0)
    state: dict[str, Tensor] = timm.create_model(name.partition(".")[0], pretrained=False).state_dict()
    return state


def cache_random(root: Path, name: str = NAME) -> dict[str, Tensor]:
    """Random weights in the cache; they are returned."""
    state = random_state(name)
    cache_file(root, safetensors.torch.save(state), f"timm/{name}")
    return state
