from __future__ import annotations

import dataclasses

from robustness.attacks.title import titled


@dataclasses.dataclass(frozen=True)
class Settings:
    eps: float
    must: int
    step: float | None = None
    times: int = 10


def test_a_title_states_what_is_not_default_and_never_the_budget() -> None:
    assert titled("X", Settings(8, 1)) == "X"
    assert titled("X", Settings(16, 2, 0.5, 20)) == "X (step 0.5, times 20)"
    assert titled("X-20", Settings(16, 2, times=20), "times") == "X-20"
