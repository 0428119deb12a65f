from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from model_store.card import InputConvention
from robustness.datasets.nips17 import COLUMNS, Credit, is_nips17, read_credits, read_nips17
from robustness.errors import PhotoFolderError
from robustness.progress import Progress

SHARED = Path(__file__).parents[4] / "shared" / "data" / "nips17"
CONVENTION = InputConvention(short_side=256, crop=224)
SMALL = InputConvention(short_side=20, crop=16)
QUIET = Progress(quiet=True)
PHOTOS = 12

Change = Callable[..., None]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Twelve photos of one colour each, whose red is their number."""
    (tmp_path / "images").mkdir()
    with (tmp_path / "images.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        for number in range(PHOTOS):
            name = f"{number:016x}"
            Image.new("RGB", (299, 299), (10 * number, 0, 0)).save(tmp_path / "images" / f"{name}.webp", lossless=True)
            values = (
                name,
                number + 1,
                1000 - number,
                "https://licence",
                f"Author, the {number}th",
                f"https://{number}",
            )
            table.writerow(dict(zip(COLUMNS, values, strict=True)))
    return tmp_path


@pytest.fixture
def change(root: Path) -> Change:
    """Replace words of the table."""

    def replace(old: str, new: str) -> None:
        text = (root / "images.csv").read_text(encoding="utf-8")
        assert old in text
        (root / "images.csv").write_text(text.replace(old, new, 1), encoding="utf-8")

    return replace


def test_classes_are_counted_from_0_and_stay_with_their_photos(root: Path) -> None:
    found = read_nips17(root, SMALL, QUIET)
    assert (found.pixels.dtype, found.pixels.shape) == (torch.uint8, (PHOTOS, 3, 16, 16))
    labels, targets = found.truths["labels"], found.truths["targets"]
    assert (labels.dtype, targets.dtype) == (torch.int64, torch.int64)
    assert torch.equal(found.pixels[:, 0, 8, 8].long(), 10 * labels)
    assert torch.equal(targets, 999 - labels)
    assert [int(name, 16) for name in found.names] == labels.tolist()
    assert sorted(labels.tolist()) == list(range(PHOTOS))


def test_any_beginning_is_a_sample_that_the_seed_draws(root: Path) -> None:
    names = read_nips17(root, SMALL, QUIET).names
    assert names != tuple(sorted(names))
    for limit in (1, 5, PHOTOS):
        assert read_nips17(root, SMALL, QUIET, limit=limit).names == names[:limit]
    assert read_nips17(root, SMALL, QUIET, seed=1).names != names


def test_each_photo_has_its_credit(root: Path) -> None:
    found = read_credits(root)
    assert len(found) == PHOTOS
    assert found[f"{3:016x}"] == Credit("Author, the 3th", "https://licence", "https://3")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("TargetClass", "Target", r"images\.csv has no column TargetClass; give --data"),
        (",1,1000,", ",0,1000,", r"gives 0{16} the TrueLabel '0', which is no whole number of 1\.\.1000; restore"),
        (",1,1000,", ",1,1001,", r"gives 0{16} the TargetClass '1001'"),
        (",1,1000,", ",1.5,1000,", r"the TrueLabel '1\.5'"),
        (f"{4:016x}", "../../elsewhere", r"elsewhere\.webp is missing though images\.csv lists it; restore"),
        (',https://licence,"Author, the 2th",https://2', "", r"line 4 of .*images\.csv ends too early"),
    ],
)
def test_a_damaged_table_is_one_line(root: Path, change: Change, old: str, new: str, message: str) -> None:
    change(old, new)
    with pytest.raises(PhotoFolderError, match=message) as failure:
        read_nips17(root, SMALL, QUIET)
    assert "\n" not in str(failure.value)


def test_a_photo_that_is_missing_damaged_or_of_another_size_is_named(root: Path) -> None:
    path = root / "images" / f"{7:016x}.webp"
    Image.new("RGB", (298, 299)).save(path)
    with pytest.raises(PhotoFolderError, match=rf"{path.name} is 298x299 where this data set is 299x299; restore"):
        read_nips17(root, SMALL, QUIET)
    path.write_bytes(b"no photo")
    with pytest.raises(PhotoFolderError, match=rf"{path.name} cannot be decoded .*; restore"):
        read_nips17(root, SMALL, QUIET)
    path.unlink()
    with pytest.raises(PhotoFolderError, match=rf"{path.name} is missing though images\.csv lists it; restore"):
        read_nips17(root, SMALL, QUIET)


@pytest.mark.parametrize("limit", [0, PHOTOS + 1])
def test_a_limit_that_does_not_fit_is_refused(root: Path, limit: int) -> None:
    with pytest.raises(
        PhotoFolderError, match=f"--limit {limit} does not fit the {PHOTOS} photos .*give 1 to {PHOTOS}"
    ):
        read_nips17(root, SMALL, QUIET, limit=limit)


@pytest.mark.parametrize("text", [b"", b"\xff\xfe\x00", (",".join(COLUMNS) + "\n").encode()])
def test_what_is_no_table_or_lists_nothing_is_refused(root: Path, text: bytes) -> None:
    (root / "images.csv").write_bytes(text)
    with pytest.raises(PhotoFolderError, match=r"images\.csv .*; give --data the folder nips17"):
        read_credits(root)


def test_the_layout_is_recognised_by_both_parts(root: Path, tmp_path: Path) -> None:
    assert is_nips17(root)
    (root / "images.csv").rename(tmp_path / "other.csv")
    assert not is_nips17(root)
    with pytest.raises(PhotoFolderError, match="cannot be read"):
        read_credits(root)


@pytest.mark.skipif(not is_nips17(SHARED), reason="the NeurIPS 2017 photos are not here")
def test_the_data_set_itself_is_read() -> None:
    found = read_nips17(SHARED, CONVENTION, QUIET, limit=3)
    assert found.pixels.shape == (3, 3, 224, 224)
    assert (found.truths["labels"] != found.truths["targets"]).all()
    credited = read_credits(SHARED)
    assert all("creativecommons.org/licenses/by/" in credited[name].licence for name in found.names)
