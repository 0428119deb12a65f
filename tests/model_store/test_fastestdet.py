from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from model_store.errors import IncompatibleWeightsError
from model_store.fastestdet import LEAST_SCORE, MOST, OVERLAP, decode_fastestdet

Grid = NDArray[np.float32]


def overlap(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(wide, 0.0) * max(high, 0.0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return float(shared / (sum(areas) - shared))


def decoded(grid: Grid, size: tuple[int, int]) -> list[tuple[NDArray[np.float64], float, int]]:
    """One image's boxes, cell by cell in plain NumPy: the reference that the decoder is compared with."""
    _, rows, columns = grid.shape
    found = []
    for row in range(rows):
        for column in range(columns):
            cell = grid[:, row, column].astype(np.float64)
            label = int(cell[5:].argmax())
            score = cell[0] ** 0.6 * cell[5 + label] ** 0.4
            x, y = (np.tanh(cell[1]) + column) / columns, (np.tanh(cell[2]) + row) / rows
            w, h = 1 / (1 + np.exp(-cell[3:5]))
            box = np.clip([x - w / 2, y - h / 2, x + w / 2, y + h / 2], 0, 1) * [size[1], size[0], size[1], size[0]]
            if score >= LEAST_SCORE:
                found.append((box, float(score), label))
    found.sort(key=lambda one: -one[1])
    kept: list[tuple[NDArray[np.float64], float, int]] = []
    for one in found:
        if all(one[2] != other[2] or overlap(one[0], other[0]) <= OVERLAP for other in kept):
            kept.append(one)
    return kept[:MOST]


def grid(generator: np.random.Generator, rows: int = 6, columns: int = 5, classes: int = 4) -> Grid:
    """What FastestDet gives: objectness and classes in [0,1], the rest of any sign."""
    found = generator.normal(0, 1, (5 + classes, rows, columns))
    found[0] = generator.random((rows, columns))
    scores = np.exp(found[5:])
    found[5:] = scores / scores.sum(axis=0)
    return found.astype(np.float32)


def test_boxes_scores_and_labels_are_those_of_a_plain_reading() -> None:
    generator = np.random.default_rng(0)
    grids, size = [grid(generator), grid(generator)], (48, 40)
    answers = decode_fastestdet(torch.from_numpy(np.stack(grids)), size)
    for answer, one in zip(answers, grids, strict=True):
        expected = decoded(one, size)
        assert answer["labels"].tolist() == [label for _, _, label in expected]
        np.testing.assert_allclose(answer["scores"], [score for _, score, _ in expected], rtol=1e-4)
        np.testing.assert_allclose(answer["boxes"], [box for box, _, _ in expected], atol=1e-3)
        assert 1 < len(expected) < 30  # some were suppressed


def test_what_is_unlikely_is_left_out() -> None:
    empty = np.zeros((9, 3, 3), dtype=np.float32)
    (found,) = decode_fastestdet(torch.from_numpy(empty).unsqueeze(0), (32, 32))
    assert [tuple(found[key].shape) for key in ("boxes", "scores", "labels")] == [(0, 4), (0,), (0,)]


@pytest.mark.parametrize("shape", [(1, 5, 3, 3), (1, 85, 9)])
def test_another_shape_is_refused_in_one_line(shape: tuple[int, ...]) -> None:
    with pytest.raises(IncompatibleWeightsError, match="as FastestDet does") as failure:
        decode_fastestdet(torch.zeros(shape), (32, 32))
    assert "\n" not in str(failure.value)
