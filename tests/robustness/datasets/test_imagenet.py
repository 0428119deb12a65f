"""ImageNet's folders: labels in sorted order, and a limit that spreads over the classes."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from PIL import Image

from model_store.card import InputConvention
from robustness.datasets.imagenet import CLASSES, read_imagenet
from robustness.errors import PhotoFolderError
from robustness.progress import Progress

CONVENTION = InputConvention(short_side=8, crop=6)
QUIET = Progress(quiet=True)
EACH = 2


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A val folder of 1000 classes with two photos each, whose red says the class's place, modulo 250."""
    root = tmp_path_factory.mktemp("imagenet")
    for place in range(CLASSES):
        folder = root / "val" / f"n{10_000_000 + 7 * place}"
        folder.mkdir(parents=True)
        data = io.BytesIO()
        Image.new("RGB", (10, 8), (place % 250, 0, 0)).save(data, "PNG")
        for number in range(EACH):
            (folder / f"{number}.png").write_bytes(data.getvalue())
    return root


def test_labels_are_places_in_sorted_order(imagenet: Path) -> None:
    examples = read_imagenet(imagenet, CONVENTION, QUIET, limit=40)
    assert examples.pixels.shape == (40, 3, 6, 6)
    labels = examples.truths["labels"]
    assert torch.equal(examples.pixels[:, 0, 3, 3].long(), labels % 250)
    for label, name in zip(labels.tolist(), examples.names, strict=True):
        assert name.startswith(f"n{10_000_000 + 7 * label}/")


def test_the_class_folders_themselves_may_be_given(imagenet: Path) -> None:
    within = read_imagenet(imagenet / "val", CONVENTION, QUIET, limit=5)
    assert within.digest == read_imagenet(imagenet, CONVENTION, QUIET, limit=5).digest


def test_a_limit_spreads_over_the_classes_and_is_the_seeds_choice(imagenet: Path) -> None:
    labels = read_imagenet(imagenet, CONVENTION, QUIET, limit=CLASSES + 50).truths["labels"]
    assert torch.bincount(labels, minlength=CLASSES).sort().values.tolist() == [1] * 950 + [2] * 50
    few = read_imagenet(imagenet, CONVENTION, QUIET, limit=100).truths["labels"]
    assert len(set(few.tolist())) == 100
    assert few.max() > 500
    other = read_imagenet(imagenet, CONVENTION, QUIET, limit=100, seed=1).truths["labels"]
    assert not torch.equal(few, other)


@pytest.mark.parametrize("limit", [0, EACH * CLASSES + 1])
def test_a_limit_that_does_not_fit_is_refused(imagenet: Path, limit: int) -> None:
    with pytest.raises(PhotoFolderError, match=r"1 to 2000"):
        read_imagenet(imagenet, CONVENTION, QUIET, limit=limit)


def test_another_number_of_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PhotoFolderError, match="0 class folders"):
        read_imagenet(tmp_path, CONVENTION, QUIET)
    (tmp_path / "n01440764").mkdir()
    with pytest.raises(PhotoFolderError, match=r"1 class folders.*1000"):
        read_imagenet(tmp_path, CONVENTION, QUIET)
