from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from robustness.errors import EvaluationError
from robustness.results.tsne import embed, plot_tsne

LABELS = torch.arange(24) % 3


def clusters(spread: float, shape: tuple[int, ...] = (4,)) -> Tensor:
    """Twenty-four values in three clusters, ``spread`` apart."""
    noise = torch.randn(24, *shape, generator=torch.Generator().manual_seed(0))
    return noise + spread * LABELS.view(-1, *[1] * len(shape))


def test_what_is_apart_stays_apart_and_the_seed_fixes_the_map() -> None:
    pytest.importorskip("sklearn")
    points = embed(clusters(30.0, (2, 6, 6)))
    assert points.shape == (24, 2)
    centres = np.stack([points[label == LABELS].mean(0) for label in range(3)])
    nearest = np.linalg.norm(points[:, None] - centres, axis=-1).argmin(1)
    assert (nearest == LABELS.numpy()).all()
    assert np.array_equal(embed(clusters(30.0, (2, 6, 6))), points)


def test_two_maps_are_drawn_side_by_side(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    path = tmp_path / "out" / "tsne.png"
    names = ["tench", "church", "parachute"]
    assert plot_tsne(clusters(30.0), clusters(0.0, (2, 4, 4)), LABELS, names, path, layer="conv3-3") == path
    with Image.open(path) as picture:
        assert picture.size == (1200, 620)
        halves = [np.asarray(picture.convert("RGB"))[:, part] for part in (slice(0, 600), slice(600, 1200))]
    for half in halves:
        assert len({tuple(colour) for colour in half.reshape(-1, 3)[::7].tolist()}) > 5


@pytest.mark.parametrize(
    "values",
    [torch.randn(3, 5), torch.full((8, 5), torch.nan), torch.ones(8, 5)],
    ids=["too few", "not finite", "all the same"],
)
def test_what_has_no_map_is_refused(values: Tensor) -> None:
    with pytest.raises(EvaluationError, match="at least four values"):
        embed(values)


def test_other_numbers_of_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="24 logits, 23 features"):
        plot_tsne(clusters(1.0), clusters(1.0)[1:], LABELS, ["a", "b", "c"], tmp_path / "x.png", layer="conv3-3")


@pytest.mark.parametrize(
    ("package", "module"), [("scikit-learn", "sklearn.decomposition"), ("matplotlib", "matplotlib.figure")]
)
def test_a_missing_package_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, package: str, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(EvaluationError, match=rf"{package}; install the extra: pip install -e \"\.\[evaluate\]\""):
        plot_tsne(clusters(1.0), clusters(1.0), LABELS, ["a", "b", "c"], tmp_path / "x.png", layer="conv3-3")
