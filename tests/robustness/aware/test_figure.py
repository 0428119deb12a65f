from __future__ import annotations

import json

import pytest
import torch

from robustness.aware.figure import Figure, figure_of
from robustness.errors import EvaluationError
from robustness.scores import accuracy

FIGURE = Figure(
    "exact PGD-40 CE EOT-10",
    4,
    "vote",
    accuracy(torch.tensor([0.25, 1.0, 0.0])),
    accuracy(torch.ones(3)),
    source="other",
    x=10.0,
    settings={"attacked": 3},
)


def test_a_figure_comes_home_as_it_left() -> None:
    entry = json.loads(json.dumps(FIGURE.as_json()))
    assert entry["percent"] == pytest.approx(100 * 1.25 / 3)
    assert json.loads(json.dumps(figure_of(entry).as_json())) == entry
    assert figure_of(entry).score.interval == FIGURE.score.interval


@pytest.mark.parametrize("wrong", [{}, {"each": "?"}, {"each": []}])
def test_what_is_no_figure_is_refused(wrong: dict[str, object]) -> None:
    entry = {**FIGURE.as_json(), **wrong} if wrong else {}
    with pytest.raises(EvaluationError, match="no figure of the aware protocol"):
        figure_of(entry)
