from __future__ import annotations

import pytest
import torch

from training import precision
from training.recipe import Precision

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("asked", "hardware", "lowered"),
    [
        ("auto", True, True),
        ("auto", False, False),
        ("bfloat16", False, True),
        ("float32", True, False),
    ],
)
def test_the_recipe_decides_and_auto_asks_the_hardware(
    monkeypatch: pytest.MonkeyPatch, asked: Precision, hardware: bool, lowered: bool
) -> None:
    monkeypatch.setattr(precision, "computes_in_bfloat16", lambda device: hardware and device == CPU)
    with precision.autocast(CPU, asked):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == (torch.bfloat16 if lowered else torch.float32)
