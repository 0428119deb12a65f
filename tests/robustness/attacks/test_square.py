from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from robustness.attacks.attack import Knowledge
from robustness.attacks.square import Square, margins, square_share
from robustness.errors import AttackError

Seeded = Callable[..., torch.Generator]


class Scales:
    """Two classes: how light an image is, against a bar; dark images and light ones may have a bar each.

    It counts its queries, refuses to be differentiated, and draws from ``noise`` if it has one.
    """

    def __init__(self, bars: list[float], noise: torch.Generator | None = None) -> None:
        self.bars, self.noise = torch.tensor(bars), noise
        self.sizes: list[int] = []
        self.seen: list[Tensor] = []

    def __call__(self, images: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        assert not images.requires_grad
        self.sizes.append(len(images))
        self.seen.append(images.clone())
        if self.noise is not None:
            torch.rand(5, generator=self.noise)
        light = images.mean((1, 2, 3))
        which = (light > 0.5).long().clamp_max(len(self.bars) - 1)
        return torch.stack([light, self.bars[which]], dim=1)


def known(network: Scales, count: int) -> Knowledge:
    return Knowledge(logits=network, labels=torch.zeros(count, dtype=torch.int64))


@pytest.mark.parametrize(
    ("query", "halvings"), [(0, 0), (10, 0), (11, 1), (50, 1), (51, 2), (1001, 5), (8000, 8), (8001, 9), (9999, 9)]
)
def test_the_schedule_is_the_paper_s(query: int, halvings: int) -> None:
    assert square_share(query, 10_000, 0.8) == 0.8 / 2**halvings
    assert square_share(query // 2, 5_000, 0.8) == square_share(query // 2 * 2, 10_000, 0.8)


def test_margins_are_against_the_best_other_class() -> None:
    logits = torch.tensor([[1.0, 4.0, 3.0], [1.0, 4.0, 3.0]])
    assert margins(logits, torch.tensor([1, 2])).tolist() == [1.0, -1.0]
    with pytest.raises(AttackError, match="two classes"):
        margins(logits[:, :1], torch.tensor([0, 0]))


def test_square_lowers_a_margin_by_corners_alone(seeded: Seeded) -> None:
    images = torch.full((2, 3, 10, 14), 0.4)
    network = Scales([0.0])
    found = Square(8, queries=150)(images, known(network, 2), seeded())
    stripes, best = (each.mean((1, 2, 3)) - 0.4 for each in (network.seen[1], found))
    assert (best < stripes - 2 / 255).all()
    assert torch.allclose((found - images).abs() * 255, torch.tensor(8.0), atol=1e-3)


def test_a_query_sets_one_square_to_one_corner(seeded: Seeded) -> None:
    images = torch.full((1, 3, 20, 30), 0.5)
    network = Scales([-9.0])
    Square(8, queries=400)(images, known(network, 1), seeded())
    first, queries = network.seen[1], network.seen[2:]
    assert torch.equal(first[..., :1, :].expand_as(first), first)  # stripes
    current = first
    for number, candidate in enumerate(queries):
        changed = (candidate != current).any(1)[0]
        rows, columns = changed.any(1).nonzero().flatten(), changed.any(0).nonzero().flatten()
        side = min(20, max(1, round((square_share(number, 400, 0.8) * 600) ** 0.5)))
        if len(rows) > 0:
            assert rows.max() - rows.min() < side
            assert columns.max() - columns.min() < side
        if candidate.mean() < current.mean():
            current = candidate


def test_queries_are_counted_and_broken_images_are_asked_no_more(seeded: Seeded) -> None:
    images = torch.stack([torch.full((3, 8, 8), level) for level in (0.40, 0.60)])
    network = Scales([0.405, 0.0])  # the first is wrong already, the second holds to the end
    found = Square(8, queries=30)(images, known(network, 2), seeded())
    assert network.sizes == [2] + [1] * 30
    assert torch.equal(found[0], images[0])
    network = Scales([0.395, 0.595])  # both break soon
    found = Square(8, queries=5000)(images, known(network, 2), seeded())
    assert sum(network.sizes) < 100
    assert (margins(torch.stack([found.mean((1, 2, 3)), network.bars], 1), torch.zeros(2, dtype=torch.int64)) < 0).all()


def test_what_happens_to_one_image_does_not_depend_on_the_others(seeded: Seeded) -> None:
    images = torch.stack([torch.full((3, 8, 8), level) for level in (0.40, 0.60)])
    alone, noisy = [], seeded(1)
    for first, noise in ((0.405, None), (0.0, None), (0.0, noisy)):  # a wrong neighbour, a strong one, a random victim
        network = Scales([first, 0.0], noise)
        alone.append(Square(8, queries=40)(images, known(network, 2), noisy.manual_seed(1))[1])
    assert torch.equal(alone[0], alone[1])
    assert torch.equal(alone[0], alone[2])


@pytest.mark.parametrize("settings", [{"queries": 0}, {"initial": 0.0}, {"initial": 1.5}])
def test_settings_that_make_no_attack_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(AttackError, match="at least one query"):
        Square(8, **settings)  # type: ignore[arg-type]


class Lucky:
    """Two classes whose margin is how dark an image is, plus noise that now and then hides it."""

    def __init__(self) -> None:
        self.noise = torch.Generator().manual_seed(1)
        self.sizes: list[int] = []

    def __call__(self, images: Tensor) -> Tensor:
        self.sizes.append(len(images))
        margin = 0.5 - images.mean((1, 2, 3)) + torch.randn(len(images), generator=self.noise)
        return torch.stack([margin, torch.zeros(len(images))], dim=1)


def test_a_stubborn_search_is_not_ended_by_a_lucky_draw(seeded: Seeded) -> None:
    images = torch.full((8, 3, 6, 6), 0.4)
    labels = torch.zeros(8, dtype=torch.int64)
    quick, stubborn = Lucky(), Lucky()
    found = Square(8, queries=20)(images, Knowledge(logits=quick, labels=labels), seeded())
    assert (found == images).flatten(1).all(1).any()
    found = Square(8, queries=20, stubborn=True)(images, Knowledge(logits=stubborn, labels=labels), seeded())
    assert set(stubborn.sizes) == {8}
    assert (found != images).flatten(1).any(1).all()
