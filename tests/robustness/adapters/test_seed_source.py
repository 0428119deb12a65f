from __future__ import annotations

import torch

from robustness.adapters.seed_source import SeedSource


def test_a_seed_gives_one_sequence_that_goes_on() -> None:
    one, other = SeedSource(5), SeedSource(5)
    first = one.draw(3)
    assert first == other.draw(3)
    assert first != one.draw(3)
    assert first != SeedSource(6).draw(3)


def test_without_a_seed_every_call_is_fresh() -> None:
    source = SeedSource(None)
    assert source.draw(2) != source.draw(2)
    assert SeedSource(None).draw(2) != SeedSource(None).draw(2)


def test_the_global_generator_is_neither_read_nor_moved() -> None:
    torch.manual_seed(0)
    first, after = SeedSource(None).draw(2), torch.rand(1)
    torch.manual_seed(0)
    assert torch.rand(1) == after
    torch.manual_seed(0)
    assert SeedSource(None).draw(2) != first
