"""The photos of the NeurIPS 2017 adversarial competition, the data set of the NRP paper's tables and figures."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image

from model_store.card import InputConvention
from robustness.datasets.photos import PhotoFile, load_photos
from robustness.errors import PhotoFolderError
from robustness.examples import Examples
from robustness.progress import Progress

TABLE = "images.csv"
IMAGES = "images"
CLASSES = 1000
SIDE = 299
COLUMNS = ("ImageId", "TrueLabel", "TargetClass", "License", "Author", "OriginalLandingURL")

Entry = Mapping[str, str]


@dataclass(frozen=True)
class Credit:
    """Whom a caption must name: the photo's author, the address of its licence, and the page it was published on."""

    author: str
    licence: str
    page: str


def is_nips17(root: Path) -> bool:
    """Whether ``root`` is laid out as this data set: ``images.csv`` beside ``images/``."""
    return (root / TABLE).is_file() and (root / IMAGES).is_dir()


def read_nips17(
    root: Path, convention: InputConvention, progress: Progress, *, limit: int | None = None, seed: int = 0
) -> Examples:
    """The first ``limit`` photos of ``root``, None for all, shuffled by ``seed`` and brought to ``convention``.

    ``root`` holds ``images.csv`` and ``images/IMAGEID.webp`` of 299x299. The order does not depend on ``limit``, so
    any beginning is a random sample of the whole. Truths: ``labels`` and ``targets`` (N,) int64, the true class and
    the one that targeted attacks aim at; the table counts ImageNet's classes from 1, these from 0. Names are the
    ImageIds, under which ``read_credits`` says whom to credit. Raises PhotoFolderError for a table or photo that is
    missing or damaged, a label out of 1..1000, a photo of another size, or a limit beyond the photos.
    """
    entries = _entries(root)
    labels, targets = (_classes(root, entries, column) for column in ("TrueLabel", "TargetClass"))
    if limit is not None and not 1 <= limit <= len(entries):
        raise PhotoFolderError(
            f"--limit {limit} does not fit the {len(entries)} photos of {root}; give 1 to {len(entries)}"
        )
    order = torch.randperm(len(entries), generator=torch.Generator().manual_seed(seed)).tolist()[:limit]
    files = [PhotoFile(_photo(root, entries[place]), entries[place]["ImageId"], labels[place]) for place in order]
    examples = load_photos(files, convention, progress)
    aims = torch.tensor([targets[place] for place in order], dtype=torch.int64)
    return replace(examples, truths={**examples.truths, "targets": aims})


def read_credits(root: Path) -> dict[str, Credit]:
    """Whom to credit for each photo of ``root``, by ImageId. Raises PhotoFolderError as ``read_nips17`` does."""
    return {
        entry["ImageId"]: Credit(entry["Author"], entry["License"], entry["OriginalLandingURL"])
        for entry in _entries(root)
    }


def _entries(root: Path) -> list[Entry]:
    path = root / TABLE
    advice = "give --data the folder nips17 as it is distributed"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            entries: list[Entry] = list(reader)
            columns = reader.fieldnames or ()
    except OSError as error:
        raise PhotoFolderError(f"{path} cannot be read ({error.strerror}); {advice}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise PhotoFolderError(f"{path} is no table of comma-separated text ({error}); {advice}") from error
    for column in COLUMNS:
        if column not in columns:
            raise PhotoFolderError(f"{path} has no column {column}; {advice}")
    if not entries:
        raise PhotoFolderError(f"{path} lists no photo; {advice}")
    for line, entry in enumerate(entries, start=2):
        if any(entry[column] is None for column in COLUMNS):
            raise PhotoFolderError(f"line {line} of {path} ends too early; {advice}")
    return entries


def _classes(root: Path, entries: Sequence[Entry], column: str) -> list[int]:
    """A column of classes, counted from 0."""
    for entry in entries:
        text = entry[column]
        if not (text.isdecimal() and 1 <= int(text) <= CLASSES):
            raise PhotoFolderError(
                f"{root / TABLE} gives {entry['ImageId']} the {column} {text!r}, which is no whole number of "
                f"1..{CLASSES}; restore that line"
            )
    return [int(entry[column]) - 1 for entry in entries]


def _photo(root: Path, entry: Entry) -> Path:
    """The file of one entry, of the right size by its header."""
    name = entry["ImageId"]
    path = root / IMAGES / f"{name}.webp"
    if Path(name).name != name or not path.is_file():
        raise PhotoFolderError(f"{path} is missing though {TABLE} lists it; restore the photo or remove its line")
    try:
        with Image.open(path) as image:
            size = image.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise PhotoFolderError(f"{path} cannot be decoded ({error}); restore the photo") from error
    if size != (SIDE, SIDE):
        raise PhotoFolderError(
            f"{path} is {size[0]}x{size[1]} where this data set is {SIDE}x{SIDE}; restore the original photo"
        )
    return path
