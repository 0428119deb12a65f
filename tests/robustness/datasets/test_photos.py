from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from model_store.card import InputConvention
from model_store.pixels import fit, image_to_bytes, to_bytes, to_float
from robustness.datasets.photos import PhotoFile, find_photos, in_rounds, keep_part, load_photos
from robustness.errors import PhotoFolderError
from robustness.progress import Progress

FOLDERS = ["n00000001", "n00000002", "n00000003"]
CONVENTION = InputConvention(short_side=16, crop=16)


def listed(sizes: tuple[int, ...]) -> list[PhotoFile]:
    return [PhotoFile(Path(), f"c{y}/{i}.png", y) for y, size in enumerate(sizes) for i in range(size)]


def test_labels_follow_the_folders_of_the_card_not_the_alphabet(data: Path) -> None:
    files = find_photos(data, [*FOLDERS[2:], *FOLDERS[:2]])
    assert {file.name.split("/")[0]: file.label for file in files} == {"n00000003": 0, "n00000001": 1, "n00000002": 2}
    assert len(files) == 12


def test_a_photo_is_brought_to_the_victims_size_as_the_store_does_it(data: Path) -> None:
    files = find_photos(data, FOLDERS)
    photos = load_photos(files, CONVENTION, Progress(quiet=True))
    assert photos.pixels.shape == (12, 3, 16, 16)
    assert photos.pixels.dtype == torch.uint8
    with Image.open(files[5].path) as image:
        expected = to_bytes(fit(to_float(image_to_bytes(image))[None], CONVENTION))[0]
    assert torch.equal(photos.pixels[5], expected)
    assert photos.truths["labels"].tolist() == [0] * 4 + [1] * 4 + [2] * 4


def test_the_digest_tells_photos_labels_and_names_apart(data: Path) -> None:
    photos = load_photos(find_photos(data, FOLDERS), CONVENTION, Progress(quiet=True))
    other = load_photos(find_photos(data, FOLDERS[::-1]), CONVENTION, Progress(quiet=True))
    assert photos.digest == photos.first(99).digest
    assert len({photos.digest, photos.first(11).digest, other.digest}) == 3


def test_any_beginning_is_balanced_and_a_limit_only_cuts() -> None:
    files = listed((7, 5, 6))
    ordered = in_rounds(files, seed=3)
    assert [file.label for file in ordered[:15]] == [0, 1, 2] * 5
    assert sorted(ordered, key=lambda f: f.name) == sorted(files, key=lambda f: f.name)
    assert in_rounds(files, seed=3, limit=13) == ordered[:12]
    assert in_rounds(files[::-1], seed=3) == ordered
    assert in_rounds(files, seed=4, limit=12) != ordered[:12]


@pytest.mark.parametrize(
    ("limit", "advice"), [(2, "give --limit 3 or more"), (18, "--limit 18 needs 6 photos a class")]
)
def test_a_limit_that_cannot_be_equal_numbers_is_refused(limit: int, advice: str) -> None:
    with pytest.raises(PhotoFolderError, match=advice):
        in_rounds(listed((7, 5, 6)), seed=0, limit=limit)


def test_selection_and_rest_split_every_class_whatever_the_order() -> None:
    files = listed((10, 20))
    selection, rest = keep_part(files, 0.25, "selection"), keep_part(files[::-1], 0.25, "rest")
    assert [sum(f.label == y for f in selection) for y in (0, 1)] == [3, 5]
    assert sorted(f.name for f in selection + rest) == sorted(f.name for f in files)
    assert keep_part(files, 0, "rest") != []
    with pytest.raises(PhotoFolderError, match="no photo"):
        keep_part(files, 0, "selection")


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(PhotoFolderError, match=r"no folder .*nowhere"):
        find_photos(tmp_path / "nowhere", FOLDERS)


def test_an_unknown_or_absent_class_folder_is_named(data: Path) -> None:
    with pytest.raises(PhotoFolderError, match=r"'n00000003'.*remove it"):
        find_photos(data, FOLDERS[:2])
    with pytest.raises(PhotoFolderError, match="no class folder 'n99'"):
        find_photos(data, [*FOLDERS, "n99"])


def test_an_empty_class_is_named(data: Path) -> None:
    for path in (data / "n00000002").iterdir():
        path.unlink()
    with pytest.raises(PhotoFolderError, match="n00000002 holds no photo"):
        find_photos(data, FOLDERS)


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n"])
def test_a_broken_photo_is_named_in_one_line(data: Path, content: bytes) -> None:
    (data / "n00000002" / "2.png").write_bytes(content)
    with pytest.raises(PhotoFolderError, match=r"n00000002/2\.png cannot be decoded") as caught:
        load_photos(find_photos(data, FOLDERS), CONVENTION, Progress(quiet=True))
    assert "\n" not in str(caught.value)


def test_a_truncated_photo_is_named(data: Path) -> None:
    path = data / "n00000001" / "0.png"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(PhotoFolderError, match=r"n00000001/0\.png cannot be decoded"):
        load_photos(find_photos(data, FOLDERS), CONVENTION, Progress(quiet=True))
