from __future__ import annotations

from pathlib import Path

import pytest

from robustness.datasets.recognise import class_root, find_data, recognise
from robustness.errors import PhotoFolderError


@pytest.fixture
def roots(tmp_path: Path) -> Path:
    """One folder of each task, and one of none, below ``shared``."""
    shared = tmp_path / "shared"
    for folder in (
        "imagenette/train/n01440764",
        "imagenette/val/n01440764",
        "camvid/test/images",
        "camvid/test/labels",
        "bccd/ImageSets/Main",
        "notes/drafts",
    ):
        (shared / folder).mkdir(parents=True)
    return shared


@pytest.mark.parametrize(
    ("folder", "task"),
    [
        ("imagenette", "classification"),
        ("imagenette/train", "classification"),
        ("camvid", "segmentation"),
        ("bccd", "detection"),
        ("notes", None),
        ("nowhere", None),
    ],
)
def test_a_layout_tells_the_task(roots: Path, folder: str, task: str | None) -> None:
    assert recognise(roots / folder) == task


def test_coco_is_for_detection(tmp_path: Path) -> None:
    (tmp_path / "annotations").mkdir()
    assert recognise(tmp_path) == "detection"


def test_camvid_without_its_masks_is_no_data(tmp_path: Path) -> None:
    (tmp_path / "test" / "images").mkdir(parents=True)
    assert recognise(tmp_path) is None


def test_class_folders_are_those_of_wordnet_here_or_in_val(roots: Path) -> None:
    assert class_root(roots / "imagenette") == roots / "imagenette" / "val"
    assert class_root(roots / "imagenette" / "train") == roots / "imagenette" / "train"
    assert class_root(roots / "camvid") is None


@pytest.mark.parametrize("name", ["n0144076", "n014407640", "m01440764", "n0144076x"])
def test_what_is_no_wordnet_id_is_no_class(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    assert class_root(tmp_path) is None


def test_a_file_named_like_a_class_is_none(tmp_path: Path) -> None:
    (tmp_path / "n01440764").write_text("")
    assert class_root(tmp_path) is None


def test_each_task_is_found_one_level_below(roots: Path) -> None:
    assert find_data([roots]) == {
        "classification": roots / "imagenette",
        "segmentation": roots / "camvid",
        "detection": roots / "bccd",
    }


def test_the_first_root_of_a_task_is_taken(roots: Path) -> None:
    own = roots / "imagenette" / "train"
    assert find_data([own, roots])["classification"] == own
    assert find_data([roots, own])["classification"] == roots / "imagenette"
    assert set(find_data([own])) == {"classification"}


def test_what_is_missing_or_nothing_is_named_with_the_layouts(roots: Path) -> None:
    with pytest.raises(PhotoFolderError, match=r"no folder .*nowhere.*one folder of photos a class"):
        find_data([roots, roots / "nowhere"])
    with pytest.raises(PhotoFolderError, match=r"nothing in .*notes.*ImageSets/Main"):
        find_data([roots / "notes"])
