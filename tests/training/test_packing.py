"""Photos in one file: what goes in comes out, and what does not fit is refused with the way out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from training.errors import DataError
from training.packing import (
    EXACT,
    FINE,
    SMALL,
    Packed,
    PackedPhotos,
    chosen,
    in_turn,
    open_photos,
    pack,
    pack_files,
    pack_what_fits,
)
from training.photos import PhotoFolders, Photos, decode, list_photos, read_photos


def packed(photos: Path, *, side: int = 24, limit: int | None = None, most_mb: float = 1.0) -> Path:
    pack([photos], photos.parent / "photos.safetensors", side=side, limit=limit, most_mb=most_mb, quiet=True)
    return photos.parent / "photos.safetensors"


def read(path: Path, side: int = 24) -> Photos:
    return decode(open_photos([path]), side, quiet=True)


def test_a_packed_file_holds_what_the_folders_do(photos: Path) -> None:
    from_file, from_folder = read(packed(photos)), read_photos([photos], 24, quiet=True)
    assert from_file.folders == from_folder.folders
    assert torch.equal(from_file.labels, from_folder.labels)
    assert from_file.pixels.shape == from_folder.pixels.shape
    differ = (from_file.pixels.float() - from_folder.pixels.float()).abs()
    assert differ.mean() < 1  # all that JPEG at this quality costs
    assert differ.max() < 8


def test_it_can_be_read_smaller_but_not_larger(photos: Path) -> None:
    path = packed(photos)
    assert read(path, 16).pixels.shape == (12, 3, 16, 16)
    with pytest.raises(DataError, match=r"24 pixels but 32 .* --side 32"):
        read(path, 32)


def test_the_report_counts_what_was_left_out(photos: Path) -> None:
    path = photos.parent / "deep" / "photos.safetensors"
    report = pack([photos], path, side=24, limit=5, most_mb=1, quiet=True)
    assert report == Packed(5, 12, path.stat().st_size)
    assert len(read(path)) == 5


def test_a_limit_takes_from_all_folders_alike_and_always_the_same(photos: Path) -> None:
    files = list_photos([photos])
    few = chosen(files, 4)
    assert [path.parent.name for path in few] == ["one", "one", "two", "two"]
    assert few == [path for path in files if path in few]
    assert set(few) <= set(chosen(files, 6))
    assert chosen(files, None) == chosen(files, 12) == files
    for number in range(6, 20):  # the small folder runs out; the other makes up for it
        (photos / "two" / f"{number}.png").write_bytes((photos / "two" / "0.png").read_bytes())
    many = chosen(list_photos([photos]), 16)
    assert [path.parent.name for path in many].count("one") == 6


def test_too_large_a_file_is_refused_with_what_would_fit(photos: Path) -> None:
    generator = np.random.default_rng(0)
    for number in range(6):
        noise = generator.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(noise).save(photos / "one" / f"{number}.png")
    output = photos.parent / "photos.safetensors"
    with pytest.raises(
        DataError, match=r"of the 12 photos fit into 0\.02 MB; lower --side or give --limit (\d+)"
    ) as told:
        packed(photos, side=64, most_mb=0.02)
    assert not output.exists()
    limit = int(str(told.value).rsplit(" ", 1)[1])
    assert 0 < limit < 12


def test_the_fingerprint_is_of_the_bytes(photos: Path) -> None:
    before = read(packed(photos)).fingerprint
    assert read(packed(photos)).fingerprint == before
    assert read(packed(photos), 16).fingerprint != before
    Image.new("RGB", (30, 30)).save(photos / "two" / "0.png")
    assert read(packed(photos)).fingerprint != before


def test_a_damaged_file_is_refused(photos: Path) -> None:
    path = packed(photos)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match="damaged on its way"):
        open_photos([path])


def test_another_file_is_refused_with_how_to_write_one(tmp_path: Path) -> None:
    other = tmp_path / "weights.safetensors"
    save_file({"weight": torch.zeros(2)}, other)
    text = tmp_path / "text.safetensors"
    text.write_text("nothing of the kind")
    for path in (other, text, tmp_path / "absent.safetensors"):
        with pytest.raises(DataError, match=r"no packed file of photos .*nrp train pack"):
            open_photos([path])


def test_a_packed_file_is_read_alone_and_folders_together(photos: Path) -> None:
    path = packed(photos)
    assert isinstance(open_photos([path]), PackedPhotos)
    assert isinstance(open_photos([photos / "one", photos / "two"]), PhotoFolders)
    with pytest.raises(DataError, match="read alone"):
        open_photos([photos, path])


def test_a_bad_photo_is_named_before_anything_is_written(photos: Path) -> None:
    Image.new("RGB", (40, 3)).save(photos / "two" / "thin.png")
    with pytest.raises(DataError, match=r"thin\.png"):
        packed(photos)
    assert not (photos.parent / "photos.safetensors").exists()


def noisy(folder: Path, count: int = 6, side: int = 64) -> list[Path]:
    generator = np.random.default_rng(0)
    folder.mkdir()
    paths = [folder / f"{number}.png" for number in range(count)]
    for path in paths:
        Image.fromarray(generator.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(path)
    return paths


def test_as_many_as_fit_are_packed_from_the_beginning(tmp_path: Path) -> None:
    files, output = noisy(tmp_path / "noise"), tmp_path / "pack.safetensors"
    packed = pack_what_fits(files, output, side=64, most_mb=0.04, codec=EXACT, quiet=True)
    assert packed.found == 6
    assert 1 <= packed.count < 6
    assert packed.size <= 0.04e6
    held, first = read(output, 64), read_photos([tmp_path / "noise"], 64, quiet=True)
    assert torch.equal(held.pixels, first.pixels[: packed.count])  # losslessly
    with pytest.raises(DataError, match="not one photo fits"):
        pack_what_fits(files, output, side=64, most_mb=0.01, codec=EXACT, quiet=True)


def test_a_small_pack_is_smaller_and_near(photos: Path) -> None:
    files = list_photos([photos])
    fine, small = (
        pack_files(files, photos.parent / f"{codec.options['quality']}.safetensors", side=24, most_mb=1, codec=codec)
        for codec in (FINE, SMALL)
    )
    assert small.size < fine.size
    near = (read(photos.parent / "85.safetensors").pixels.float() - read_photos([photos], 24).pixels.float()).abs()
    assert near.mean() < 3


def test_in_turn_any_beginning_takes_of_all_folders(photos: Path) -> None:
    ordered = in_turn(list_photos([photos]))
    assert [path.parent.name for path in ordered[:4]] == ["one", "two", "one", "two"]
    assert set(ordered[:4]) == set(chosen(list_photos([photos]), 4))
