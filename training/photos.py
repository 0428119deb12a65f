"""Image folders as one uint8 tensor, decoded once at the start so that bad data is refused before any training."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, ImageOps
from torch import Tensor
from tqdm import tqdm

from model_store.pixels import image_to_bytes
from robustness.datasets.photos import SUFFIXES, open_photo
from training.errors import DataError


@dataclass(frozen=True)
class Photos:
    """``pixels`` uint8 (N, 3, side, side); ``labels`` int64 (N,), an index into ``folders``.

    ``fingerprint`` names the files, their sizes and the side, so that a run notices when its data changed.
    """

    pixels: Tensor
    labels: Tensor
    folders: tuple[str, ...]
    fingerprint: str

    def __len__(self) -> int:
        return len(self.pixels)


def list_photos(roots: list[Path]) -> list[Path]:
    """Image files under ``roots``, each folder's sorted by path. Raises DataError naming a bad root."""
    files: list[Path] = []
    for root in roots:
        if not root.is_dir():
            raise DataError(f"{root} is not a folder of photos")
        found = sorted(p for p in root.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        if not found:
            raise DataError(f"{root} holds no photo ({', '.join(sorted(SUFFIXES))})")
        files += found
    return files


def read_square(path: Path, side: int) -> Tensor:
    """One photo, upright, shorter side brought to ``side`` and centre-cropped: uint8 (3, side, side)."""
    return image_to_bytes(ImageOps.fit(open_photo(path), (side, side), method=Image.Resampling.BICUBIC))


def read_photos(roots: list[Path], side: int, *, quiet: bool = False) -> Photos:
    """Every photo under ``roots``; a photo's label is its parent folder's name, in sorted order."""
    files = list_photos(roots)
    folders = tuple(sorted({path.parent.name for path in files}))
    index = {folder: number for number, folder in enumerate(folders)}
    pixels = torch.empty((len(files), 3, side, side), dtype=torch.uint8)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        squares = pool.map(lambda path: read_square(path, side), files)
        for number, square in enumerate(tqdm(squares, total=len(files), desc="reading photos", disable=quiet)):
            pixels[number] = square
    labels = torch.tensor([index[path.parent.name] for path in files])
    listing = "\n".join(f"{p.parent.name}/{p.name} {p.stat().st_size}" for p in files)
    return Photos(pixels, labels, folders, hashlib.sha256(f"{side}\n{listing}".encode()).hexdigest())
