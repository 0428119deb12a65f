from pathlib import Path

import pytest
import torch
from PIL import Image

from robustness.errors import PhotoFolderError
from training.errors import DataError
from training.photos import SMALLEST, PhotoFolders, decode, parted, read_photos


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


def test_a_photo_too_small_to_learn_from_is_named(photos: Path) -> None:
    Image.new("RGB", (40, SMALLEST - 1)).save(photos / "two" / "thin.png")
    with pytest.raises(DataError, match=r"thin\.png has 40x7 pixels"):
        read_photos([photos], 24, quiet=True)
    Image.new("RGB", (40, SMALLEST)).save(photos / "two" / "thin.png")
    assert len(read_photos([photos], 24, quiet=True)) == 13


def test_fewer_photos_than_a_batch_are_refused_before_any_is_decoded(photos: Path) -> None:
    (photos / "one" / "0.png").write_bytes(b"no photo, but that is not found out")
    with pytest.raises(DataError, match=r"photos holds 12 photos, fewer than the 13 .* lower batch"):
        decode(PhotoFolders([photos]), 24, least=13, quiet=True)


def test_photos_held_back_are_not_trained_on(photos: Path) -> None:
    learnt, kept = parted(12, 5, seed=3)
    assert sorted([*learnt.tolist(), *kept.tolist()]) == list(range(12))
    assert len(kept) == 5
    assert not torch.equal(kept, parted(12, 5, seed=4)[1])
    whole = read_photos([photos], 24, quiet=True)
    part = whole.pick(learnt)
    assert torch.equal(part.pixels, whole.pixels[learnt])
    assert torch.equal(part.labels, whole.labels[learnt])
    assert part.folders == whole.folders
    assert part.fingerprint not in {whole.fingerprint, whole.pick(kept).fingerprint}
