"""The same attack by torchattacks gives the same adversary, where it has the same attack."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustness.attacks.attack import Attack, Knowledge
from robustness.attacks.iterative import DIM, DIMTI, IFGSM, MIFGSM, gaussian_kernel
from robustness.attacks.pgd import PGD
from robustness.attacks.single_step import FGSM
from robustness.attacks.square import Square, square_share

Seeded = Callable[..., torch.Generator]
Known = Callable[[nn.Module, Tensor], Knowledge]
EPS, STEP = 8 / 255, 0.8 / 255

Pair = tuple[Attack, str, dict[str, Any]]
PAIRS: list[Pair] = [
    (FGSM(8), "FGSM", {"eps": EPS}),
    (IFGSM(8), "BIM", {"eps": EPS, "alpha": STEP, "steps": 10}),
    (IFGSM(8, step=3, iterations=4), "BIM", {"eps": EPS, "alpha": 3 / 255, "steps": 4}),
    (MIFGSM(8), "MIFGSM", {"eps": EPS, "alpha": STEP, "steps": 10, "decay": 1.0}),
    (MIFGSM(8, decay=0.3), "MIFGSM", {"eps": EPS, "alpha": STEP, "steps": 10, "decay": 0.3}),
    (PGD(8, start="clean"), "PGD", {"eps": EPS, "alpha": 2 / 255, "steps": 10, "random_start": False}),
    (DIM(8, probability=0), "DIFGSM", {"eps": EPS, "alpha": STEP, "decay": 1.0, "diversity_prob": 0.0}),
    (DIMTI(8, probability=0), "TIFGSM", {"eps": EPS, "alpha": STEP, "decay": 1.0, "diversity_prob": 0.0}),
]


@pytest.fixture
def theirs() -> Any:
    return pytest.importorskip("torchattacks")


@pytest.fixture
def squares(seeded: Seeded) -> Tensor:
    """Square images, since some of theirs take no others; large enough for them to have something to pad."""
    return torch.rand(5, 3, 22, 22, generator=seeded(8))


@pytest.mark.parametrize("pair", PAIRS, ids=[f"{pair[1]}-{pair[0].name}" for pair in PAIRS])
def test_the_adversaries_are_theirs(
    pair: Pair, theirs: Any, network: nn.Module, squares: Tensor, known: Known, seeded: Seeded
) -> None:
    ours, name, settings = pair
    knowledge = known(network, squares)
    expected = getattr(theirs, name)(network, **settings)(squares, knowledge.labels)
    assert not torch.equal(expected, squares)
    assert torch.allclose(ours(squares, knowledge, seeded()), expected, atol=1e-6)


def test_the_kernel_is_theirs(theirs: Any, network: nn.Module) -> None:
    assert torch.allclose(gaussian_kernel(15, 3), theirs.TIFGSM(network).stacked_kernel[0, 0], atol=1e-7)


def test_square_s_schedule_is_theirs(theirs: Any, network: nn.Module) -> None:
    attack = theirs.Square(network, n_queries=5000, resc_schedule=True)
    assert all(square_share(query, 5000, 0.8) == attack.p_selection(query) for query in range(5000))


def test_square_breaks_what_theirs_breaks(
    theirs: Any, network: nn.Module, squares: Tensor, known: Known, seeded: Seeded
) -> None:
    knowledge = known(network, squares)
    found = Square(16, queries=300)(squares, knowledge, seeded())
    expected = theirs.Square(network, eps=16 / 255, n_queries=300)(squares, knowledge.labels)
    with torch.no_grad():
        ours_broken, theirs_broken = (network(each).argmax(1) != knowledge.labels for each in (found, expected))
    assert theirs_broken.any()
    assert int(ours_broken.sum()) >= int(theirs_broken.sum())
