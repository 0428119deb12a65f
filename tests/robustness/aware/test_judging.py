from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from robustness.aware.defended import Mode
from robustness.aware.judging import Decisions, clean_decisions, decide, decision_seed, decisions, worst_case
from robustness.aware.material import Material
from robustness.aware.plan import AwarePlan
from robustness.intervals import wilson
from tests.robustness.aware.conftest import MakeDefended

VOTES = torch.tensor([[1, 1, 1, 1], [1, 0, 0, 0], [0, 0, 0, 0]]).bool()
SINGLES = torch.stack([VOTES, VOTES | torch.tensor([[0, 0, 1, 1]]).bool()], dim=2)


def test_a_vote_a_single_draw_and_the_worst_of_the_decisions() -> None:
    scores = Decisions(VOTES, SINGLES).scores()
    assert scores["vote"].percent == pytest.approx(100 * 5 / 12)
    assert scores["single draw"].percent == pytest.approx(100 * (8 + 4 + 2) / 24)
    assert scores["worst of 4"].percent == pytest.approx(100 / 3)
    assert scores["worst of 4"].interval == pytest.approx(tuple(100 * end for end in wilson(1, 3)))
    assert {score.count for score in scores.values()} == {3}


def test_a_photo_is_broken_where_every_decision_is_wrong() -> None:
    assert Decisions(VOTES, SINGLES).broken.tolist() == [False, False, True]


def test_the_worst_case_is_each_photos_strongest_attack() -> None:
    other = Decisions(VOTES.flip(0), SINGLES.flip(0))
    worst = worst_case([Decisions(VOTES, SINGLES), other])
    assert worst["vote"].percent == pytest.approx(100 * 0.25 / 3)
    assert worst["worst of 4"].percent == 0
    assert worst["vote"].each is not None
    assert worst["vote"].each.tolist() == [0, 0.25, 0]


def test_the_vote_averages_probabilities_over_the_modes_draws(
    material: Material, plan: AwarePlan, make_defended: MakeDefended
) -> None:
    defended = make_defended(Mode(noise_std=0.3, draws=3))
    places = torch.arange(6)
    found = decide(material, defended, plan, material.examples.pixels, places)
    images, labels = material.floats(material.examples.pixels), material.labels(places)
    for turn in range(plan.decisions):
        seeds = [decision_seed(material, turn, place) for place in range(6)]
        said = defended.draws(images, seeds, plan.judged, 64)
        assert torch.equal(found["singles"][:, turn], said.argmax(dim=2) == labels.unsqueeze(1))
        assert torch.equal(found["votes"][:, turn], said.exp().mean(dim=1).argmax(dim=1) == labels)
    assert found["singles"].shape == (6, 4, 3)
    assert not torch.equal(found["votes"][:, 0], found["votes"][:, 1]) or not found["singles"].all()


def test_a_clean_photo_that_is_wrong_is_broken(
    material: Material, plan: AwarePlan, make_defended: MakeDefended
) -> None:
    assert clean_decisions(material, make_defended(), plan).broken.tolist() == [False] * 5 + [True]


def test_no_decision_is_made_about_photos_that_are_broken_already(
    material: Material, plan: AwarePlan, make_defended: MakeDefended
) -> None:
    broken = torch.tensor([True, True, False, True, False, False])
    found = decisions(material, make_defended(), plan, material.examples.pixels, broken)
    assert found.broken.tolist() == [True, True, False, True, False, True]
    assert len(list(material.cache.root.iterdir())) == 2
    assert torch.equal(found.votes[2], clean_decisions(material, make_defended(), plan).votes[2])


def test_where_nothing_is_random_one_decision_is_enough(
    material: Material, plan: AwarePlan, make_defended: MakeDefended
) -> None:
    found = clean_decisions(material, make_defended(Mode()), plan)
    assert found.votes.shape == (6, 1)
    assert set(found.scores()) == {"vote"} == set(worst_case([found]))


def test_decisions_are_kept_by_what_they_are_about(
    material: Material, plan: AwarePlan, make_defended: MakeDefended
) -> None:
    first = clean_decisions(material, make_defended(), plan)
    files = sorted(material.cache.root.iterdir())
    assert len(files) == 3  # batches of two
    assert torch.equal(clean_decisions(material, make_defended(), plan).votes, first.votes)
    assert sorted(material.cache.root.iterdir()) == files
    clean_decisions(material, make_defended(), replace(plan, decisions=5))
    assert len(list(material.cache.root.iterdir())) == 6
