from __future__ import annotations

import pytest
import torch

from service.budget import STEPS_BACK, PixelBudget, is_out_of_memory


def test_what_did_not_fit_is_halved_and_comes_back_slowly() -> None:
    budget = PixelBudget(6400)
    budget.lower(6400)
    assert budget.now == 3200
    budget.lower(1000)
    assert budget.now == 500
    budget.creep_up()
    assert budget.now == 600
    for _ in range(STEPS_BACK):
        budget.creep_up()
    assert budget.now == budget.full == 6400


def test_there_is_always_one_pixel_to_try() -> None:
    budget = PixelBudget(1)
    budget.lower(1)
    assert budget.now == 1


@pytest.mark.parametrize(
    ("error", "meant"),
    [
        (torch.OutOfMemoryError("x"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 5 bytes"), True),
        (RuntimeError("shapes differ"), False),
    ],
)
def test_out_of_memory_is_told_from_other_failures(error: RuntimeError, meant: bool) -> None:
    assert is_out_of_memory(error) is meant
