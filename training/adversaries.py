"""The bank of SSP adversaries that a purifier run generates once and then reuses."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from model_store.architectures.vgg_features import VGG16Features
from model_store.devices import place
from model_store.pixels import to_bytes, to_float
from model_store.store import LoadedModel
from robustness.attacks import SSP
from training.errors import DataError
from training.loop import generator_at
from training.photos import list_photos, read_square
from training.recipe import AdversaryRecipe, PurifierRecipe

FOLDER = "adversaries"


def chosen_files(roots: list[Path], count: int, seed: int) -> list[Path]:
    """``count`` photos drawn without replacement."""
    files = list_photos(roots)
    order = torch.randperm(len(files), generator=torch.Generator().manual_seed(seed))
    return [files[index] for index in order[:count].tolist()]


def attack(clean: Tensor, eps: float, recipe: AdversaryRecipe, network: VGG16Features, seed: int) -> Tensor:
    """SSP adversaries of uint8 (N, 3, S, S), rounded to uint8."""
    device = next(network.parameters()).device

    def features(images: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            return network.extract(images)

    ssp = SSP(features, eps, max(1.0, eps * recipe.step_share), recipe.iterations, recipe.start)
    images = to_float(clean).to(device, memory_format=torch.channels_last)
    return to_bytes(ssp(images, generator_at(seed, 0))).cpu()


def make_adversaries(
    recipe: PurifierRecipe, roots: list[Path], features: LoadedModel, folder: Path, device: torch.device, *, quiet: bool
) -> Tensor:
    """Pairs (N, 2, 3, S, S) uint8 of clean photo and adversary.

    Kept a batch a file under ``folder`` with a name that states what made it, so a killed run goes on where it was
    and another recipe, feature network or photo never finds a stale one.
    """
    wanted = recipe.adversaries
    network = features.module
    if not isinstance(network, VGG16Features):
        raise DataError(f"{features.card.name!r} is no feature network; train one with `nrp train feature-net`")
    network = place(network, device)
    files = chosen_files(roots, wanted.count, recipe.seed)
    starts = range(0, len(files), wanted.batch)
    parts = []
    for number, start in enumerate(tqdm(starts, desc="SSP adversaries", unit="batch", disable=quiet)):
        batch = files[start : start + wanted.batch]
        key = "\n".join([wanted.model_dump_json(), features.card.sha256, str(recipe.seed), *map(str, batch)])
        path = folder / FOLDER / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.safetensors"
        if not path.exists():
            clean = torch.stack([read_square(file, wanted.side) for file in batch])
            eps = wanted.eps[number % len(wanted.eps)]
            seed = recipe.seed * 1_000_003 + number
            _save(path, torch.stack([clean, attack(clean, eps, wanted, network, seed)], dim=1))
        parts.append(load_file(path)["pairs"])
    return torch.cat(parts)


def _save(path: Path, pairs: Tensor) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".new")
    save_file({"pairs": pairs.contiguous()}, scratch)
    scratch.replace(path)
