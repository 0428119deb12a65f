"""CamVid (Brostow et al., 2008) in the layout and the eleven classes of the SegNet paper, as Examples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from model_store.pixels import image_to_bytes
from robustness.datasets.photos import SUFFIXES, open_photo
from robustness.errors import PhotoFolderError
from robustness.examples import Examples

CLASSES = (
    "sky",
    "building",
    "pole",
    "road",
    "pavement",
    "tree",
    "sign",
    "fence",
    "car",
    "pedestrian",
    "bicyclist",
)
VOID = len(CLASSES)


def read_camvid(root: Path, split: str, size: tuple[int, int] | None) -> Examples:
    """The scenes of ``root/split/images`` and their masks ``root/split/labels`` (PNG of the same stem), by name.

    ``size`` (height, width) is what both are brought to, images bicubic with antialiasing and masks by the nearest
    pixel; None keeps them as they are, if they are all of one size. Truths: ``mask`` (N, H, W) int64, ``VOID`` where
    nothing is scored. Raises PhotoFolderError, naming folder or file, for anything that is missing, unpaired,
    undecodable, of another size than its partner, or labelled beyond ``VOID``.
    """
    pixels: list[Tensor] = []
    masks: list[Tensor] = []
    names: list[str] = []
    for photo, label in _pairs(root / split):
        image, mask = open_photo(photo), _open_mask(label)
        if image.size != mask.size:
            raise PhotoFolderError(
                f"{photo} is {_shape(image)} but {label} is {_shape(mask)} (width x height); give both the same size"
            )
        if size is not None:
            image = image.resize((size[1], size[0]), Image.Resampling.BICUBIC)
            mask = mask.resize((size[1], size[0]), Image.Resampling.NEAREST)
        pixels.append(image_to_bytes(image))
        masks.append(torch.from_numpy(np.array(mask, dtype=np.int64)))
        names.append(f"{split}/{photo.name}")
        if pixels[-1].shape != pixels[0].shape:
            raise PhotoFolderError(f"{photo} has another size than {names[0]}; give a size to bring all scenes to")
    return Examples(torch.stack(pixels), {"mask": torch.stack(masks)}, tuple(names))


def _pairs(folder: Path) -> list[tuple[Path, Path]]:
    """Each image with its mask, sorted by name."""
    images, labels = folder / "images", folder / "labels"
    for needed in (images, labels):
        if not needed.is_dir():
            raise PhotoFolderError(f"no folder {needed}; give CamVid's folder, which holds train, val and test")
    photos = sorted(path for path in images.iterdir() if path.suffix.lower() in SUFFIXES)
    if not photos:
        raise PhotoFolderError(f"{images} holds no photo; restore its photos")
    masks = {path.stem: path for path in labels.iterdir() if path.suffix.lower() == ".png"}
    for photo in photos:
        if photo.stem not in masks:
            raise PhotoFolderError(f"{photo} has no mask {labels / photo.stem}.png; restore it or remove the photo")
    unused = sorted(set(masks) - {photo.stem for photo in photos})
    if unused:
        raise PhotoFolderError(f"{masks[unused[0]]} has no photo in {images}; restore it or remove the mask")
    return [(photo, masks[photo.stem]) for photo in photos]


def _open_mask(path: Path) -> Image.Image:
    """One mask of class numbers, as an 8-bit grey image."""
    try:
        with Image.open(path) as image:
            image.load()
            values = np.array(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise PhotoFolderError(f"{path} cannot be decoded ({error}); replace or remove it") from error
    if values.ndim != 2 or values.dtype != np.uint8:
        raise PhotoFolderError(f"{path} is no mask: it needs one 8-bit class number a pixel; convert it")
    if values.max() > VOID:
        raise PhotoFolderError(
            f"{path} holds class {values.max()}; the classes are 0 ({CLASSES[0]}) to {VOID - 1} ({CLASSES[-1]}) and "
            f"{VOID} (void): map its labels to these"
        )
    return Image.fromarray(values)


def _shape(image: Image.Image) -> str:
    return f"{image.width}x{image.height}"
