"""ImageNet's validation photos, as the official classifiers number their classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from model_store.card import InputConvention
from robustness.datasets.photos import PhotoFile, find_photos, load_photos
from robustness.datasets.recognise import class_root
from robustness.errors import PhotoFolderError
from robustness.examples import Examples
from robustness.progress import Progress

CLASSES = 1000


def read_imagenet(
    root: Path, convention: InputConvention, progress: Progress, *, limit: int | None = None, seed: int = 0
) -> Examples:
    """Photos of ``root``, or of its ``val``: 1000 folders, one a class, named by WordNet id (n01440764, ...).

    A label is the place of its folder in sorted order, which is how torchvision's weights number the classes. The
    archive of the validation set as it is distributed is flat; bring it into class folders first. ``limit`` keeps so
    many photos in all, as even over the classes as that allows: one more of some classes than of others, drawn from
    ``seed``. Each is brought to ``convention``, which must fix one size. Truths: ``labels`` (N,) int64. Raises
    PhotoFolderError for another number of classes, a limit beyond the photos, or a photo that cannot be decoded.
    """
    place = class_root(root)
    folders = [] if place is None else _folders(place)
    if place is None or len(folders) != CLASSES:
        raise PhotoFolderError(
            f"{root} holds {len(folders)} class folders where ImageNet has {CLASSES}; give its val folder with one "
            "folder a class, named by WordNet id"
        )
    files = find_photos(place, folders)
    return load_photos(files if limit is None else _spread(files, limit, seed), convention, progress)


def _folders(place: Path) -> list[str]:
    return sorted(entry.name for entry in place.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _spread(files: Sequence[PhotoFile], limit: int, seed: int) -> list[PhotoFile]:
    """``limit`` of the files, in rounds: a shuffled one of every class, before a second of any."""
    if not 1 <= limit <= len(files):
        raise PhotoFolderError(
            f"--limit {limit} does not fit the {len(files)} photos there are; give 1 to {len(files)}"
        )
    generator = torch.Generator().manual_seed(seed)
    shuffled = [files[place] for place in torch.randperm(len(files), generator=generator).tolist()]
    taken: dict[int, int] = {}
    rounds: list[int] = []
    for file in shuffled:
        rounds.append(taken.get(file.label, 0))
        taken[file.label] = rounds[-1] + 1
    ordered = sorted(range(len(shuffled)), key=lambda place: rounds[place])
    return [shuffled[place] for place in ordered[:limit]]
