"""Labelled photos: a folder with one folder a class, brought to the victims' size as uint8 tensors."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from PIL import Image, ImageOps
from torch import Tensor

from model_store.pixels import fit, image_to_bytes, to_bytes, to_float
from robustness.errors import PhotoFolderError
from robustness.examples import Examples
from robustness.progress import Progress

if TYPE_CHECKING:  # training on a bare machine has no pydantic, which cards need
    from model_store.card import InputConvention

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})

Part = Literal["rest", "selection"]


@dataclass(frozen=True)
class PhotoFile:
    """One file; ``name`` is ``folder/file``, the same on every machine."""

    path: Path
    name: str
    label: int


def find_photos(root: Path, folders: Sequence[str]) -> list[PhotoFile]:
    """The image files of ``root``, whose class folders must be exactly ``folders`` (in label order).

    Raises PhotoFolderError for a missing folder, an unknown or absent class folder, or a class without photos.
    """
    if not root.is_dir():
        raise PhotoFolderError(f"no folder {root}; give --data a folder that holds one folder of photos a class")
    found = {entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith(".")}
    unknown, absent = sorted(found - set(folders)), sorted(set(folders) - found)
    if unknown:
        raise PhotoFolderError(
            f"class folder {unknown[0]!r} in {root} is none that the victims were trained on ({', '.join(folders)}); "
            "remove it or name other victims"
        )
    if absent:
        raise PhotoFolderError(f"{root} has no class folder {absent[0]!r}; restore it or name other victims")
    files: list[PhotoFile] = []
    for label, folder in enumerate(folders):
        paths = sorted(path for path in (root / folder).iterdir() if path.suffix.lower() in SUFFIXES)
        if not paths:
            raise PhotoFolderError(f"class folder {root / folder} holds no photo; restore its photos")
        files += [PhotoFile(path, f"{folder}/{path.name}", label) for path in paths]
    return files


def keep_part(files: Sequence[PhotoFile], fraction: float, part: Part) -> list[PhotoFile]:
    """One side of a fixed split of every class: the ``selection`` that choices are made on, or the ``rest``.

    The split depends on the file names alone, so that training and evaluation agree on it whatever their seeds.
    """
    kept: list[PhotoFile] = []
    for members in _by_class(files):
        ranked = sorted(members, key=lambda file: hashlib.sha256(file.name.encode()).digest())
        border = math.ceil(fraction * len(ranked))
        kept += ranked[:border] if part == "selection" else ranked[border:]
    if not kept:
        raise PhotoFolderError(f"a selection fraction of {fraction:g} leaves no photo in the {part}; choose another")
    return kept


def in_rounds(files: Sequence[PhotoFile], seed: int, limit: int | None = None) -> list[PhotoFile]:
    """The files one class after another in turn, shuffled within a class, so that any beginning is balanced.

    ``limit`` keeps equal numbers a class, ``limit`` in all rounded down; the order does not depend on it.
    Raises PhotoFolderError where a class is too small for that.
    """
    generator = torch.Generator().manual_seed(seed)
    classes = []
    for members in _by_class(files):
        ordered = sorted(members, key=lambda file: file.name)
        classes.append([ordered[i] for i in torch.randperm(len(ordered), generator=generator).tolist()])
    rounds = max(len(members) for members in classes)
    if limit is not None:
        rounds = limit // len(classes)
        smallest = min(classes, key=len)
        if rounds < 1:
            raise PhotoFolderError(f"{limit} photos are less than one a class; give --limit {len(classes)} or more")
        if rounds > len(smallest):
            raise PhotoFolderError(
                f"--limit {limit} needs {rounds} photos a class but there are {len(smallest)} like "
                f"{smallest[0].name}; give at most {len(smallest) * len(classes)}"
            )
    return [members[turn] for turn in range(rounds) for members in classes if turn < len(members)]


def load_photos(files: Sequence[PhotoFile], convention: InputConvention, progress: Progress) -> Examples:
    """Decode ``files`` and bring each to ``convention``, which must fix one size.

    Raises PhotoFolderError, naming the file, for a photo that cannot be decoded.
    """
    pixels: list[Tensor] = []
    with progress.bar(len(files)) as bar:
        for file in files:
            pixels.append(to_bytes(fit(to_float(image_to_bytes(open_photo(file.path))).unsqueeze(0), convention))[0])
            bar.update()
    labels = torch.tensor([file.label for file in files], dtype=torch.int64)
    return Examples(torch.stack(pixels), {"labels": labels}, tuple(file.name for file in files))


def open_photo(path: Path) -> Image.Image:
    """One photo, decoded, upright, RGB. Raises PhotoFolderError naming a file that is none."""
    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise PhotoFolderError(f"{path} cannot be decoded ({error}); replace or remove it") from error


def _by_class(files: Iterable[PhotoFile]) -> list[list[PhotoFile]]:
    classes: dict[int, list[PhotoFile]] = {}
    for file in files:
        classes.setdefault(file.label, []).append(file)
    return [classes[label] for label in sorted(classes)]
