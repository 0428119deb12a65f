"""What every room's tests share: the same random numbers in each run, whatever the order of tests."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def _same_random_numbers() -> None:
    torch.manual_seed(0)
