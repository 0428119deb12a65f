"""The bank of adversaries that a purifier run generates once and then reuses."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from model_store.architectures.vgg_features import VGG16Features
from model_store.devices import place
from model_store.pixels import to_bytes, to_float
from robustness.attacks.attack import Knowledge
from robustness.attacks.pgd import PGD
from robustness.attacks.ssp import SSP
from training.features import FeatureNetwork
from training.loop import generator_at
from training.photos import list_photos, read_square
from training.recipe import AdversaryRecipe, PurifierRecipe

FOLDER = "adversaries"


@dataclass(frozen=True)
class Bank:
    """``pairs`` (N, 2, 3, S, S) uint8 of clean photo and adversary, and the ``seconds`` that making them took."""

    pairs: Tensor
    seconds: float


def chosen_files(roots: list[Path], count: int, seed: int) -> list[Path]:
    """``count`` photos drawn without replacement."""
    files = list_photos(roots)
    order = torch.randperm(len(files), generator=torch.Generator().manual_seed(seed))
    return [files[index] for index in order[:count].tolist()]


def attack(clean: Tensor, turn: int, recipe: AdversaryRecipe, network: VGG16Features, seed: int) -> Tensor:
    """Adversaries of uint8 (N, 3, S, S), rounded to uint8; ``turn`` picks kind and eps."""
    device = next(network.parameters()).device
    images = to_float(clean).to(device, memory_format=torch.channels_last)
    rest, place = divmod(turn, len(recipe.kinds))
    eps = recipe.eps[rest % len(recipe.eps)]
    step = max(1.0, eps * recipe.step_share)

    def halved(module: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def run(candidates: Tensor) -> Tensor:
            with torch.autocast(device.type, torch.bfloat16):
                return module(candidates)

        return run

    generator = generator_at(seed, turn)
    if recipe.kinds[place] == "ssp":
        ssp = SSP(eps, step, recipe.iterations, recipe.start)
        return to_bytes(ssp(images, Knowledge(features=halved(network.extract)), generator)).cpu()
    answer = halved(network)
    with torch.no_grad():
        own = answer(images).argmax(1)

    def loss(candidates: Tensor) -> Tensor:
        return F.cross_entropy(answer(candidates).float(), own, reduction="none")

    pgd = PGD(eps, step=step, iterations=recipe.iterations, start=recipe.start)
    return to_bytes(pgd(images, Knowledge(loss=loss), generator)).cpu()


def make_adversaries(
    recipe: PurifierRecipe,
    roots: list[Path],
    features: FeatureNetwork,
    folder: Path,
    device: torch.device,
    *,
    quiet: bool,
) -> Bank:
    """The bank of ``recipe``.

    Kept a batch a file under ``folder`` with a name that states what made it, so a killed run goes on where it was
    and another recipe, feature network or photo never finds a stale one.
    """
    wanted = recipe.adversaries
    network = place(features.module, device)
    files = chosen_files(roots, wanted.count, recipe.seed)
    starts = range(0, len(files), wanted.batch)
    parts, seconds = [], 0.0
    for number, start in enumerate(tqdm(starts, desc="adversaries", unit="batch", disable=quiet)):
        batch = files[start : start + wanted.batch]
        names = [f"{file.parent.name}/{file.name}" for file in batch]  # the same wherever the data lies
        key = "\n".join(["timed", str(number), wanted.model_dump_json(), features.identity, str(recipe.seed), *names])
        path = folder / FOLDER / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.safetensors"
        if not path.exists():
            began = time.monotonic()
            clean = torch.stack([read_square(file, wanted.side) for file in batch])
            pairs = torch.stack([clean, attack(clean, number, wanted, network, recipe.seed)], dim=1)
            _save(path, pairs, time.monotonic() - began)
        part = load_file(path)
        parts.append(part["pairs"])
        seconds += float(part["seconds"])
    return Bank(torch.cat(parts), seconds)


def _save(path: Path, pairs: Tensor, seconds: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".new")
    save_file({"pairs": pairs.contiguous(), "seconds": torch.tensor(seconds, dtype=torch.float64)}, scratch)
    scratch.replace(path)
