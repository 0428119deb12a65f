from pathlib import Path

import pytest
from PIL import Image

from robustness.errors import PhotoFolderError
from training.errors import DataError
from training.photos import read_photos


def test_labels_follow_the_sorted_folders(photos: Path) -> None:
    read = read_photos([photos], 24, quiet=True)
    assert read.folders == ("one", "two")
    assert read.labels.tolist() == [0] * 6 + [1] * 6
    assert read.pixels.shape == (12, 3, 24, 24)
    assert read.pixels[:6].float().mean() < read.pixels[6:].float().mean()


def test_a_broken_photo_is_named(photos: Path) -> None:
    broken = photos / "one" / "3.png"
    broken.write_bytes(broken.read_bytes()[:60])
    with pytest.raises(PhotoFolderError, match=r"3\.png"):
        read_photos([photos], 24, quiet=True)


def test_an_empty_or_missing_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty holds no photo"):
        read_photos([tmp_path / "empty"], 24, quiet=True)
    with pytest.raises(DataError, match="absent is not a folder"):
        read_photos([tmp_path / "absent"], 24, quiet=True)


def test_the_fingerprint_notices_another_photo(photos: Path) -> None:
    before = read_photos([photos], 24, quiet=True).fingerprint
    assert read_photos([photos], 24, quiet=True).fingerprint == before
    Image.new("RGB", (30, 30)).save(photos / "two" / "new.png")
    assert read_photos([photos], 24, quiet=True).fingerprint != before
