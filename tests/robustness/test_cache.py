from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from robustness.cache import Cache
from robustness.errors import CacheError


class Maker:
    """Counts how often it is asked."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> dict[str, Tensor]:
        self.calls += 1
        return {"pixels": torch.arange(12, dtype=torch.uint8).view(3, 4).T, "flag": torch.tensor([True, False])}


def test_an_equal_fingerprint_is_recalled_bit_for_bit(tmp_path: Path) -> None:
    cache, maker = Cache(tmp_path / "deep" / "cache"), Maker()
    first = cache.recall("a b", {"seed": 0, "eps": 4}, maker)
    again = cache.recall("a b", {"eps": 4, "seed": 0}, maker)
    assert maker.calls == 1
    assert all(torch.equal(first[key], again[key]) and first[key].dtype == again[key].dtype for key in first)


def test_any_other_fingerprint_is_made_anew(tmp_path: Path) -> None:
    cache, maker = Cache(tmp_path), Maker()
    for fingerprint in ({"seed": 0}, {"seed": 1}, {"seed": 0, "weights": "f"}):
        cache.recall("a", fingerprint, maker)
    assert maker.calls == 3


def test_an_upgraded_package_answers_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, maker = Cache(tmp_path), Maker()
    cache.recall("a", {"seed": 0}, maker)
    monkeypatch.setattr("robustness.cache.versions", lambda: {"pillow": "99.0"})
    cache.recall("a", {"seed": 0}, maker)
    assert maker.calls == 2


def test_a_stale_entry_under_this_name_is_refused(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.recall("a", {"seed": 0}, Maker())
    (old,) = tmp_path.glob("*")
    cache.recall("a", {"seed": 1}, Maker())
    (new,) = set(tmp_path.glob("*")) - {old}
    old.replace(new)
    with pytest.raises(CacheError, match=r"made with other settings.*delete it"):
        cache.recall("a", {"seed": 1}, Maker())


def test_a_damaged_entry_is_named(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.recall("a", {}, Maker())
    (path,) = tmp_path.glob("*")
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(CacheError, match=path.name):
        cache.recall("a", {}, Maker())


def test_a_run_killed_while_making_leaves_nothing(tmp_path: Path) -> None:
    def killed() -> dict[str, Tensor]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Cache(tmp_path).recall("a", {}, killed)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheError, match="cannot be written"):
        Cache(tmp_path / "file" / "cache").recall("a", {}, Maker())


def test_a_label_too_long_for_a_file_system_is_cut_and_still_found(tmp_path: Path) -> None:
    cache, maker = Cache(tmp_path), Maker()
    label = "PGD on " + ", ".join(f"imagenette-resnet-{number}" for number in range(30))
    cache.recall(label, {"seed": 0}, maker)
    cache.recall(label, {"seed": 0}, maker)
    cache.recall(label, {"seed": 1}, maker)
    assert maker.calls == 2
    assert all(len(f".{path.name}.new") <= 255 for path in tmp_path.iterdir())
