from __future__ import annotations

from robustness.seeds import derive_seed


def test_a_derived_seed_is_the_same_on_every_machine() -> None:
    assert derive_seed(0, "defence", 1) == 1854554119698921045


def test_unequal_purposes_give_unequal_seeds() -> None:
    seeds = {derive_seed(seed, purpose, index) for seed in range(3) for purpose in "ab" for index in range(50)}
    assert len(seeds) == 300
    assert all(0 <= seed < 2**63 for seed in seeds)
