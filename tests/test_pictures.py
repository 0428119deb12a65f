"""The README's photo: within its budget, and answered as the picture says."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

import nrp
from model_store.store import ModelStore

DOCS = Path(nrp.__file__).parent / "docs"


@pytest.fixture
def pictures(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> object:
    """The documentation's script, which writes elsewhere."""
    monkeypatch.syspath_prepend(str(DOCS))
    monkeypatch.delitem(sys.modules, "pictures", raising=False)
    script = importlib.import_module("pictures")
    for name in ("photo.png", "photo-adversarial.png"):
        (tmp_path / name).write_bytes((DOCS / "images" / name).read_bytes())
    monkeypatch.setattr(script, "IMAGES", tmp_path)
    return script


def test_the_attacked_photo_keeps_its_budget(pictures: object) -> None:
    clean, attacked = (pictures.read(name).int() for name in ("photo.png", "photo-adversarial.png"))  # type: ignore[attr-defined]
    assert (attacked - clean).abs().max() == 8


def test_the_picture_is_made_and_shows_a_right_a_wrong_and_a_right_answer(
    pictures: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tones: list[str] = []
    answered = pictures.answered  # type: ignore[attr-defined]

    def watched(*given: object) -> object:
        panel = answered(*given)
        tones.append(panel.tone)
        return panel

    monkeypatch.setattr(pictures, "answered", watched)
    pictures.main()  # type: ignore[attr-defined]
    assert tones == ["right", "wrong", "right"]
    assert (tmp_path / "before-after.png").stat().st_size > 10_000


def test_the_photos_credit_is_told() -> None:
    told = (DOCS / "images" / "README.md").read_text()
    for needed in ("ThoseGuys119", "CC BY 2.0", "NeurIPS 2017", "nrp attack docs/images/photo.png"):
        assert needed in told
    assert "school bus" in ModelStore().card("efficientnet-lite0").labels
