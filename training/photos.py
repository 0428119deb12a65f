"""Image folders as one uint8 tensor, decoded once at the start so that bad data is refused before any training."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from PIL import Image, ImageOps
from torch import Tensor
from tqdm import tqdm

from model_store.pixels import image_to_bytes
from robustness.datasets.photos import SUFFIXES, open_photo
from training.errors import DataError

SMALLEST = 8


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

    def pick(self, chosen: Tensor) -> Photos:
        """Those at the indices ``chosen``, of the same folders."""
        named = hashlib.sha256(f"{self.fingerprint}\n{chosen.tolist()}".encode()).hexdigest()
        return Photos(self.pixels[chosen], self.labels[chosen], self.folders, named)


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


def square(image: Image.Image, side: int) -> Image.Image:
    """``image``, shorter side brought to ``side`` and centre-cropped."""
    return ImageOps.fit(image, (side, side), method=Image.Resampling.BICUBIC)


def open_large_enough(path: Path) -> Image.Image:
    """One photo, upright, RGB. Raises PhotoFolderError naming one that is none, DataError one that shows nothing."""
    image = open_photo(path)
    if min(image.size) < SMALLEST:
        wide, high = image.size
        raise DataError(f"{path} has {wide}x{high} pixels, too few to learn from (least: {SMALLEST}); remove it")
    return image


def label_of(files: list[Path]) -> tuple[tuple[str, ...], Tensor]:
    """The sorted names of the parent folders, and int64 (N,): which of them each file lies in."""
    folders = tuple(sorted({path.parent.name for path in files}))
    index = {folder: number for number, folder in enumerate(folders)}
    return folders, torch.tensor([index[path.parent.name] for path in files])


class Source(Protocol):
    """Where N photos come from, decoded one by one.

    ``where`` is for messages; ``labels`` int64 (N,) are indices into ``folders``.
    """

    where: str
    folders: tuple[str, ...]
    labels: Tensor

    def square(self, index: int, side: int) -> Tensor:
        """Photo ``index``, shorter side brought to ``side`` and centre-cropped: uint8 (3, side, side)."""

    def fingerprint(self, side: int) -> str:
        """Names all photos and the side."""


class PhotoFolders:
    """Every photo under ``roots``; a photo's label is its parent folder's name, in sorted order.

    Raises DataError naming a root that is no folder of photos.
    """

    def __init__(self, roots: list[Path]) -> None:
        self.where = ", ".join(str(root) for root in roots)
        self.files = list_photos(roots)
        self.folders, self.labels = label_of(self.files)

    def square(self, index: int, side: int) -> Tensor:
        """See Source. Raises PhotoFolderError or DataError naming a file that is no photo or a tiny one."""
        return image_to_bytes(square(open_large_enough(self.files[index]), side))

    def fingerprint(self, side: int) -> str:
        """Of names and sizes: a file that was changed is noticed if its size changed."""
        listing = "\n".join(f"{p.parent.name}/{p.name} {p.stat().st_size}" for p in self.files)
        return hashlib.sha256(f"{side}\n{listing}".encode()).hexdigest()


def require_enough(count: int, least: int, where: str) -> None:
    """Raise DataError where there are fewer photos than a batch takes (and validation holds back)."""
    if count < least:
        raise DataError(
            f"{where} holds {count} photos, fewer than the {least} that the recipe needs at least; "
            "give more photos, or lower batch (or held_back) in the recipe"
        )


def parted(count: int, held_back: int, seed: int) -> tuple[Tensor, Tensor]:
    """Indices of ``count`` photos to train on, in order, and of the ``held_back`` last of a fixed shuffle."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return order[: count - held_back].sort().values, order[count - held_back :]


def read_photos(roots: list[Path], side: int, *, quiet: bool = False) -> Photos:
    """Every photo under the folders ``roots``."""
    return decode(PhotoFolders(roots), side, quiet=quiet)


def decode(source: Source, side: int, *, least: int = 1, quiet: bool = False) -> Photos:
    """Every photo of ``source``, decoded now. Raises DataError where there are fewer than ``least``.

    So a photo that cannot be used is refused, by name, before anything is trained.
    """
    count = len(source.labels)
    require_enough(count, least, source.where)
    pixels = torch.empty((count, 3, side, side), dtype=torch.uint8)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        squares = pool.map(lambda index: source.square(index, side), range(count))
        for number, pixel in enumerate(tqdm(squares, total=count, desc="reading photos", disable=quiet)):
            pixels[number] = pixel
    return Photos(pixels, source.labels, source.folders, source.fingerprint(side))
