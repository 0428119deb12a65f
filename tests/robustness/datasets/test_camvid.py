"""CamVid's layout, made here: scenes of a few pixels whose masks are known."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from robustness.datasets.camvid import CLASSES, VOID, read_camvid
from robustness.errors import PhotoFolderError


@pytest.fixture
def camvid(tmp_path: Path) -> Path:
    """Three scenes of 8x12: the left half red and class 2, the right half blue and class 7, one void corner."""
    for folder in ("images", "labels"):
        (tmp_path / "test" / folder).mkdir(parents=True)
    for number in range(3):
        scene = np.zeros((8, 12, 3), dtype=np.uint8)
        scene[:, :6, 0], scene[:, 6:, 2] = 200 + number, 100
        mask = np.full((8, 12), 2, dtype=np.uint8)
        mask[:, 6:], mask[:2, :2] = 7, VOID
        Image.fromarray(scene).save(tmp_path / "test/images" / f"scene{2 - number}.png")
        Image.fromarray(mask).save(tmp_path / "test/labels" / f"scene{2 - number}.png")
    return tmp_path


def test_scenes_are_read_by_name_with_their_masks(camvid: Path) -> None:
    scenes = read_camvid(camvid, "test", None)
    assert scenes.names == ("test/scene0.png", "test/scene1.png", "test/scene2.png")
    assert scenes.pixels.shape == (3, 3, 8, 12)
    assert scenes.pixels.dtype == torch.uint8
    assert scenes.pixels[:, 0, 0, 0].tolist() == [202, 201, 200]
    mask = scenes.truths["mask"]
    assert mask.dtype == torch.int64
    assert mask.shape == (3, 8, 12)
    assert mask[0, :, 6:].unique().tolist() == [7]
    assert mask[0, :2, :2].unique().tolist() == [VOID]
    assert (mask == 2).sum() == 3 * (8 * 6 - 4)


def test_a_size_resamples_scenes_and_never_mixes_classes(camvid: Path) -> None:
    scenes = read_camvid(camvid, "test", (4, 6))
    assert scenes.pixels.shape == (3, 3, 4, 6)
    assert scenes.truths["mask"].unique().tolist() == [2, 7, VOID]
    assert scenes.truths["mask"][0, 1].tolist() == [2, 2, 2, 7, 7, 7]
    assert scenes.pixels[0, 0, 0, 0] == 202
    assert scenes.pixels[0, 0, 0, 5] == 0


def test_there_are_eleven_classes_and_void_follows_them() -> None:
    assert len(set(CLASSES)) == VOID == 11


def no_split(root: Path) -> None:
    (root / "test").rename(root / "elsewhere")


def no_labels(root: Path) -> None:
    (root / "test/labels").rename(root / "labels")


def no_photo(root: Path) -> None:
    for path in (root / "test/images").iterdir():
        path.unlink()


def no_mask(root: Path) -> None:
    (root / "test/labels/scene1.png").unlink()


def lonely_mask(root: Path) -> None:
    (root / "test/images/scene1.png").unlink()


def small_mask(root: Path) -> None:
    Image.new("L", (6, 4)).save(root / "test/labels/scene1.png")


def unknown_class(root: Path) -> None:
    Image.new("L", (12, 8), VOID + 1).save(root / "test/labels/scene1.png")


def coloured_mask(root: Path) -> None:
    Image.new("RGB", (12, 8)).save(root / "test/labels/scene1.png")


def broken_mask(root: Path) -> None:
    (root / "test/labels/scene1.png").write_bytes(b"no image")


def broken_photo(root: Path) -> None:
    (root / "test/images/scene1.png").write_bytes(b"no image")


def another_size(root: Path) -> None:
    for folder, mode in (("images", "RGB"), ("labels", "L")):
        Image.new(mode, (14, 8)).save(root / "test" / folder / "scene1.png")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (no_split, "no folder .*test.images"),
        (no_labels, "no folder .*test.labels"),
        (no_photo, "holds no photo"),
        (no_mask, r"scene1.png has no mask"),
        (lonely_mask, r"labels.scene1.png has no photo"),
        (small_mask, r"scene1.png is 12x8 but .*scene1.png is 6x4"),
        (unknown_class, r"scene1.png holds class 12"),
        (coloured_mask, r"scene1.png is no mask"),
        (broken_mask, r"labels.scene1.png cannot be decoded"),
        (broken_photo, r"images.scene1.png cannot be decoded"),
        (another_size, r"scene1.png has another size than test.scene0.png; give a size"),
    ],
)
def test_what_is_wrong_is_named(camvid: Path, spoil: Callable[[Path], None], said: str) -> None:
    spoil(camvid)
    with pytest.raises(PhotoFolderError, match=said):
        read_camvid(camvid, "test", None)


def test_scenes_of_several_sizes_are_brought_to_the_size_given(camvid: Path) -> None:
    another_size(camvid)
    assert read_camvid(camvid, "test", (8, 12)).pixels.shape == (3, 3, 8, 12)
