"""One packed file of photos, for training where only a file can be carried to.

A safetensors file: ``encoded`` uint8, the photos one after the other, as JPEG or losslessly as WebP; ``offsets`` int64
(N + 1,), where each begins; ``labels`` int64 (N,). Its metadata: ``side``, ``folders`` (JSON), and ``fingerprint``, a
sha256 of the rest.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from model_store.pixels import image_to_bytes
from training.errors import DataError
from training.photos import PhotoFolders, Source, label_of, list_photos, open_large_enough, square

SUFFIX = ".safetensors"
MEGABYTE = 1_000_000
ENTRY = 16  # bytes of offset and label
HEADER = 4096


@dataclass(frozen=True)
class Codec:
    """How photos are written: by Pillow's ``kind``, with its ``options``."""

    kind: str
    options: Mapping[str, Any]

    def __call__(self, image: Image.Image) -> bytes:
        """``image`` encoded."""
        held = io.BytesIO()
        image.save(held, self.kind, **self.options)
        return held.getvalue()


FINE = Codec("JPEG", {"quality": 90, "subsampling": 0})  # artefacts stay below what an attack of 4/255 changes
SMALL = Codec("JPEG", {"quality": 85, "subsampling": "4:2:0"})  # a third smaller; what most cameras write
EXACT = Codec("WEBP", {"lossless": True, "quality": 100, "method": 4})  # for figures that others are compared with


@dataclass(frozen=True)
class Packed:
    """A file that was written: how many photos it holds, of how many there were, and its size in bytes."""

    count: int
    found: int
    size: int


def open_photos(roots: list[Path]) -> Source:
    """Folders of photos, or one packed file. Raises DataError for what is neither."""
    packs = [root for root in roots if root.suffix == SUFFIX]
    if not packs:
        return PhotoFolders(roots)
    if len(roots) > 1:
        raise DataError(f"{packs[0]} is a packed file, which is read alone; pack all folders into one file")
    return PackedPhotos(packs[0])


class PackedPhotos:
    """The photos of a packed file, as squares of at most the side that it was packed with.

    Raises DataError for a file that is none or was damaged.
    """

    def __init__(self, path: Path) -> None:
        tensors, about = _read(path)
        self.where, self.side, self.identity = str(path), int(about["side"]), about["fingerprint"]
        self.folders: tuple[str, ...] = tuple(json.loads(about["folders"]))
        self.labels = tensors["labels"]
        self.spans = list(pairwise(tensors["offsets"].tolist()))
        self.encoded = tensors["encoded"].numpy()

    def square(self, index: int, side: int) -> Tensor:
        """See Source. Raises DataError for a side that would have to be made up."""
        if side > self.side:
            raise DataError(
                f"{self.where} holds photos of {self.side} pixels but {side} are asked for; pack with --side {side}, "
                "or lower side in the recipe"
            )
        begin, end = self.spans[index]
        image = Image.open(io.BytesIO(self.encoded[begin:end].tobytes()))
        return image_to_bytes(image if side == self.side else square(image, side))

    def fingerprint(self, side: int) -> str:
        """Of every byte."""
        return hashlib.sha256(f"{side}\n{self.identity}".encode()).hexdigest()


def pack(
    roots: list[Path], output: Path, *, side: int, limit: int | None, most_mb: float, quiet: bool = False
) -> Packed:
    """Write the photos under ``roots``, squares of ``side`` pixels, to ``output``; at most ``limit``, evenly a folder.

    Raises DataError where the file would be larger than ``most_mb`` megabytes, and naming a photo that cannot be used.
    """
    found = list_photos(roots)
    packed = pack_files(chosen(found, limit), output, side=side, most_mb=most_mb, quiet=quiet)
    return replace(packed, found=len(found))


def pack_files(
    files: list[Path], output: Path, *, side: int, most_mb: float, codec: Codec = FINE, quiet: bool = False
) -> Packed:
    """Write the photos ``files``, squares of ``side`` pixels, to ``output``. Raises DataError as ``pack`` does."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        photos = pool.map(lambda path: codec(square(open_large_enough(path), side)), files)
        blob = _within(tqdm(photos, total=len(files), desc="packing photos", disable=quiet), len(files), most_mb)
    folders, labels = label_of(files)
    return write_pack(blob, labels, output, side=side, folders=folders)


def write_pack(photos: list[bytes], labels: Tensor, output: Path, *, side: int, folders: Sequence[str]) -> Packed:
    """Write encoded ``photos`` of ``side`` pixels, with ``labels`` int64 (N,), indices into ``folders``."""
    offsets = torch.tensor([0, *np.cumsum([len(photo) for photo in photos]).tolist()])
    encoded = torch.from_numpy(np.frombuffer(b"".join(photos), dtype=np.uint8).copy())
    tensors = {"encoded": encoded, "offsets": offsets, "labels": labels}
    about = {"side": str(side), "folders": json.dumps(list(folders))}
    output.parent.mkdir(parents=True, exist_ok=True)
    scratch = output.with_suffix(".new")
    save_file(tensors, scratch, {**about, "fingerprint": _fingerprint(tensors, about)})
    scratch.replace(output)
    return Packed(len(photos), len(photos), output.stat().st_size)


def pack_what_fits(
    files: list[Path], output: Path, *, side: int, most_mb: float, codec: Codec, quiet: bool = False
) -> Packed:
    """The first of ``files`` that fit into ``most_mb`` megabytes, as ``pack_files`` writes them. Raises DataError."""
    kept: list[bytes] = []
    size = 0.0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        photos = pool.map(lambda path: codec(square(open_large_enough(path), side)), files)
        for photo in tqdm(photos, total=len(files), desc="packing photos", disable=quiet):
            size += len(photo) + ENTRY
            if size + HEADER > most_mb * MEGABYTE:
                break
            kept.append(photo)
        pool.shutdown(cancel_futures=True)
    if not kept:
        raise DataError(f"not one photo fits into {most_mb:.1f} MB; allow more")
    folders, labels = label_of(files[: len(kept)])
    return replace(write_pack(kept, labels, output, side=side, folders=folders), found=len(files))


def chosen(files: list[Path], limit: int | None) -> list[Path]:
    """At most ``limit`` of ``files``, taken from their folders in turn, by a shuffle that names alone decide."""
    if limit is None or limit >= len(files):
        return files
    kept = set(in_turn(files)[:limit])
    return [path for path in files if path in kept]


def in_turn(files: list[Path]) -> list[Path]:
    """``files``, one of each folder after another, by a shuffle that names alone decide."""
    places: dict[Path, int] = {}
    for _, members in groupby(sorted(files, key=_folder_then_hash), key=lambda path: path.parent.name):
        places |= {path: place for place, path in enumerate(members)}
    return sorted(files, key=lambda path: (places[path], path.parent.name))


def _folder_then_hash(path: Path) -> tuple[str, bytes]:
    return path.parent.name, hashlib.sha256(path.name.encode()).digest()


def _within(photos: Iterator[bytes], count: int, most_mb: float) -> list[bytes]:
    """All of ``photos``; stops as soon as they are too large. Raises DataError."""
    kept, size = [], 0
    for photo in photos:
        kept.append(photo)
        size += len(photo)
        if size + ENTRY * count > most_mb * MEGABYTE:
            fit = len(kept) - 1
            raise DataError(
                f"only about {fit} of the {count} photos fit into {most_mb:g} MB; lower --side or give --limit {fit}"
            )
    return kept


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as held:
            about: dict[str, str] = held.metadata() or {}
            tensors = {name: held.get_tensor(name) for name in held.keys()}  # noqa: SIM118  (no mapping)
        told = about.pop("fingerprint")
        damaged = _fingerprint(tensors, about) != told
    except (OSError, SafetensorError, KeyError) as error:
        raise DataError(f"{path} is no packed file of photos ({error}); write one with `nrp train pack`") from error
    if damaged:
        raise DataError(f"{path} was damaged on its way; pack or copy it again")
    return tensors, {**about, "fingerprint": told}


def _fingerprint(tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(dict(sorted(about.items()))).encode())
    for name in ("encoded", "offsets", "labels"):
        digest.update(tensors[name].numpy().tobytes())
    return digest.hexdigest()
