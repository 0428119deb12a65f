"""Runs by the clock: the rate, the end, going on, a kill, and what cannot be timed."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from model_store.architectures import build
from model_store.card import Card
from model_store.store import ModelStore
from tests.training.conftest import PURIFIER, tiny_recipe
from training.bare import main
from training.commands import configure_train, run_train
from training.errors import RecipeError
from training.purifier import PurifierTraining
from training.purifier_recipe import AdaptiveRecipe
from training.recipe import SupervisedRecipe
from training.timed import ByTime, require_timeable

ONLINE = """
validate_every = 50
held_back = 4
judge = "tiny-features"
adversarial_weight = 0.0
warmup = 0.0
"""


class Clock:
    """A clock that moves on by a second whenever it is read."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        self.now += 1
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in ("timed", "bare", "loop"):
        monkeypatch.setattr(f"training.{module}.time", clock)
    return clock


def at(pace: ByTime, clock: Clock, now: float, step: int = 1000) -> float:
    clock.now = now - 1
    return pace.rate(step)


def test_the_rate_is_a_cosine_of_the_clock_and_zero_when_time_is_up(clock: Clock) -> None:
    pace = ByTime(spent=0.0, began=100.0, deadline=200.0, rising=10)
    assert [round(at(pace, clock, now), 3) for now in (100, 150, 200, 300)] == [1.0, 0.5, 0.0, 0.0]
    clock.now = 198
    assert not pace.over()
    assert pace.over()


def test_the_warm_up_is_of_steps(clock: Clock) -> None:
    pace = ByTime(spent=0.0, began=100.0, deadline=200.0, rising=10)
    assert [at(pace, clock, 100, step) for step in (0, 4, 9, 50)] == [0.1, 0.5, 1.0, 1.0]
    assert at(pace, clock, 150, 0) == pytest.approx(0.05)  # the first step may have taken long, compiling


def test_a_call_that_goes_on_begins_where_one_of_all_the_time_would_be(clock: Clock) -> None:
    pace = ByTime(spent=100.0, began=1000.0, deadline=1100.0, rising=1)
    assert at(pace, clock, 1000) == pytest.approx(0.5)
    assert at(pace, clock, 1100) == pytest.approx(0.0)


def test_what_needs_to_know_how_many_steps_there_are_is_refused() -> None:
    timeable = tiny_recipe(adversarial_weight=0.0)
    require_timeable(timeable)
    require_timeable(replace(timeable, adversarial_weight=1.0, adversarial_from=0.0))
    with pytest.raises(RecipeError, match="adversarial_from is a share of steps"):
        require_timeable(replace(timeable, adversarial_weight=1.0, adversarial_from=0.5))
    late = AdaptiveRecipe(share=0.1, begins=0.5)
    with pytest.raises(RecipeError, match=r"adaptive\.begins is a share of steps"):
        require_timeable(replace(timeable, adaptive=late))
    supervised = SupervisedRecipe(name="c", summary="c", architecture="resnet_small", epochs=1.0, learning_rate=1e-3)
    with pytest.raises(RecipeError, match="trained by epochs"):
        require_timeable(supervised)


@pytest.fixture
def home(tmp_path: Path, photos: Path) -> Path:
    """A plan of one purifier without end, attacked online, and a packed file."""
    arguments = {"width": 0.0625, "classes": 2}
    torch.manual_seed(0)
    card = Card(
        name="tiny-features", summary="f", task="feature-network", architecture="vgg16_conv3_3", arguments=arguments
    )
    ModelStore(tmp_path / "store").publish(card, build("vgg16_conv3_3", arguments))
    text = PURIFIER.replace("\n[arguments]", f"{ONLINE}\n[arguments]", 1).replace("steps = 6", "steps = 10000")
    (tmp_path / "purifier.toml").write_text(text.replace("count = 16", 'source = "online"'))
    nrp_train("pack", photos, "--output", tmp_path / "pack.safetensors", "--side", 24, "--quiet")
    nrp_train(
        "plan", tmp_path / "purifier.toml", "--output", tmp_path / "plan" / "plan.json", "--store", tmp_path / "store"
    )
    return tmp_path


def nrp_train(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    configure_train(parser)
    return run_train(parser.parse_args([str(argument) for argument in arguments]))


def timed_run(home: Path, *more: object, minutes: float = 0.5) -> int:
    words = (home / "plan" / "plan.json", "--pack", home / "pack.safetensors", "--run", home / "run", "--quiet")
    return main([str(word) for word in (*words, "--timed", "--minutes", minutes, *more)])


def outcome(home: Path) -> Mapping[str, Any]:
    facts: dict[str, Any] = json.loads((home / "run" / "finished" / "tiny-purifier" / "run.json").read_text())
    return facts


def test_it_ends_in_time_validated_and_goes_on_in_the_next_call(home: Path, clock: Clock) -> None:
    assert timed_run(home) == 0
    first = outcome(home)
    assert 1 < first["steps"] < 50  # as many as thirty readings of the clock allow; the recipe has 10000
    assert [row["step"] for row in first["validation"]["scores"]] == [first["steps"]]
    assert timed_run(home) == 0
    assert outcome(home)["steps"] > first["steps"]


def test_a_killed_run_goes_on_from_its_checkpoint(home: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    step = PurifierTraining.step

    def killed(self: PurifierTraining, number: int) -> Mapping[str, float]:
        if number == 5:
            raise KeyboardInterrupt
        return step(self, number)

    monkeypatch.setattr(PurifierTraining, "step", killed)
    assert timed_run(home, minutes=5) == 130
    begun: list[int] = []

    def noted(self: PurifierTraining, number: int) -> Mapping[str, float]:
        begun.append(number)
        return step(self, number)

    monkeypatch.setattr(PurifierTraining, "step", noted)
    assert timed_run(home) == 0
    assert begun[0] == 5
    assert outcome(home)["steps"] == begun[-1] + 1


def test_it_wants_minutes_and_a_plan_of_one_stage(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = (home / "plan" / "plan.json", "--pack", home / "pack.safetensors", "--run", home / "run", "--quiet")
    assert main([str(word) for word in (*words, "--timed")]) == 1
    assert "wants --minutes" in capsys.readouterr().err


def test_the_card_says_how_many_steps_were_done(home: Path, clock: Clock) -> None:
    assert timed_run(home) == 0
    finished = home / "run" / "finished" / "tiny-purifier"
    assert nrp_train("publish", finished, "--store", home / "published") == 0
    card = ModelStore(home / "published").card("tiny-purifier")
    assert card.recipe["steps_done"] == outcome(home)["steps"]
