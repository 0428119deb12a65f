from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from training.errors import RunError
from training.loop import Run, batch_at, generator_at, rate_at, train, update_average
from training.parallel import Workers


class Walk:
    """A trainable whose state is one number that depends on every step before."""

    def __init__(self, total: int = 10, fail_at: int | None = None, value: float = 0.0) -> None:
        self.total, self.fail_at, self.value = total, fail_at, value

    def step(self, number: int) -> Mapping[str, float]:
        if number == self.fail_at:
            raise KeyboardInterrupt
        drawn = torch.rand(1, generator=generator_at(0, number)).item()
        self.value = 0.5 * self.value + drawn
        return {"loss": self.value}

    def state(self) -> dict[str, Any]:
        return {"value": self.value}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.value = state["value"]


def straight() -> float:
    walk = Walk()
    for number in range(walk.total):
        walk.step(number)
    return walk.value


@pytest.mark.parametrize("stop", range(10))
def test_resume_at_any_step_gives_the_same_result(tmp_path: Path, stop: int) -> None:
    run = Run(tmp_path, "same", save_every=3)
    assert not train(Walk(), run, stop_at=stop, quiet=True)
    walk = Walk()
    assert train(walk, run, quiet=True)
    assert walk.value == straight()


@pytest.mark.parametrize("stop", range(10))
def test_interrupt_at_any_step_saves_and_resumes(tmp_path: Path, stop: int) -> None:
    run = Run(tmp_path, "same", save_every=3)
    with pytest.raises(KeyboardInterrupt):
        train(Walk(fail_at=stop), run, quiet=True)
    walk = Walk()
    assert train(walk, run, quiet=True)
    assert walk.value == straight()


@pytest.mark.parametrize("killed", range(1, 10))
def test_a_run_killed_between_two_checkpoints_does_the_same_steps_again(tmp_path: Path, killed: int) -> None:
    class Killed(Walk):
        def step(self, number: int) -> Mapping[str, float]:
            if number == killed:
                raise SystemExit
            return super().step(number)

    run = Run(tmp_path, "same", save_every=3)
    with pytest.raises(SystemExit):
        train(Killed(), run, quiet=True)
    assert run.load()[0] == killed // 3 * 3
    walk = Walk()
    assert train(walk, run, quiet=True)
    assert walk.value == straight()


def test_the_time_of_every_part_of_a_run_is_added_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("training.loop.time.monotonic", lambda: clock[0])

    class Slow(Walk):
        def step(self, number: int) -> Mapping[str, float]:
            clock[0] += 2
            return super().step(number)

    run = Run(tmp_path, "one", save_every=3)
    train(Slow(), run, stop_at=4, quiet=True)
    assert run.load()[:2] == (4, 8.0)
    clock[0] += 1000  # the pause between two parts is no training
    train(Slow(), run, quiet=True)
    assert run.load()[:2] == (10, 20.0)


def test_a_new_run_has_cost_nothing(tmp_path: Path) -> None:
    assert Run(tmp_path, "one").load() == (0, 0.0, None)


def test_another_recipes_checkpoint_is_refused(tmp_path: Path) -> None:
    train(Walk(), Run(tmp_path, "one"), stop_at=2, quiet=True)
    with pytest.raises(RunError, match="another recipe"):
        train(Walk(), Run(tmp_path, "two"), quiet=True)


def test_a_broken_checkpoint_is_one_clear_error(tmp_path: Path) -> None:
    run = Run(tmp_path, "one")
    run.path.write_bytes(b"not a checkpoint")
    with pytest.raises(RunError, match="cannot be read"):
        train(Walk(), run, quiet=True)


def test_a_diverged_loss_stops_before_it_is_saved(tmp_path: Path) -> None:
    run = Run(tmp_path, "one", save_every=1)
    train(Walk(), run, stop_at=3, quiet=True)

    class Diverging(Walk):
        def step(self, number: int) -> Mapping[str, float]:
            return {**super().step(number), "loss": float("nan")}

    with pytest.raises(RunError, match="diverged at step 3"):
        train(Diverging(), run, quiet=True)
    assert run.load()[0] == 3


def test_an_epoch_visits_each_photo_once() -> None:
    visited = torch.cat([batch_at(12, 4, step, seed=1) for step in range(3)])
    assert sorted(visited.tolist()) == list(range(12))
    assert not torch.equal(batch_at(12, 4, 0, seed=1), batch_at(12, 4, 3, seed=1))


def test_the_rate_rises_then_falls_to_zero() -> None:
    rates = [rate_at(step, 100, 0.1) for step in range(100)]
    assert rates[:10] == sorted(rates[:10])
    assert max(rates) == pytest.approx(1.0)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] < 0.01


def test_the_average_moves_towards_the_module() -> None:
    average, module = nn.Linear(2, 2), nn.Linear(2, 2)
    before = (average.weight - module.weight).abs().sum().item()
    update_average(average, module, 0.999, step=0)
    after = (average.weight - module.weight).abs().sum().item()
    assert after == pytest.approx(0.1 * before, rel=1e-4)


@pytest.mark.parametrize("allowed", range(11))
def test_a_deadline_stops_cleanly_and_the_same_command_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allowed: int
) -> None:
    clock = [0.0]
    monkeypatch.setattr("training.loop.time.monotonic", lambda: clock[0])

    class Slow(Walk):
        def step(self, number: int) -> Mapping[str, float]:
            clock[0] += 1
            return super().step(number)

    run = Run(tmp_path, "same", save_every=100)
    ended = train(Slow(), run, deadline=float(allowed), quiet=True)
    assert ended == (allowed == 10)
    assert run.load()[0] == allowed
    walk = Slow()
    assert train(walk, run, deadline=1e9, quiet=True)
    assert walk.value == straight()


def test_a_worker_that_does_not_lead_writes_nothing(tmp_path: Path) -> None:
    Run(tmp_path / "run", "same", workers=Workers(1, 2)).save(3, 1.0, {})
    assert not (tmp_path / "run").exists()


class Module(Walk):
    """A walk whose candidate is one weight: the number itself."""

    def candidate(self) -> nn.Module:
        module = nn.Linear(1, 1, bias=False)
        nn.init.constant_(module.weight, self.value)
        return module

    def images(self, number: int) -> Mapping[str, torch.Tensor]:
        return {"seen": torch.full((1, 3, 2, 2), float(number))}


class Highest:
    """Finds the highest number."""

    def __init__(self, every: int = 3) -> None:
        self.every, self.best, self.seen = every, -1.0, [0]

    def is_due(self, done: int, *, ends: bool) -> bool:
        return ends or done % self.every == 0

    def consider(self, done: int, candidate: nn.Module) -> Mapping[str, float]:
        value = next(candidate.parameters()).item()
        self.seen.append(done)
        self.best = max(self.best, value)
        return {"score": value}

    def state(self) -> dict[str, Any]:
        return {"best": self.best, "seen": self.seen}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.best, self.seen = state["best"], list(state["seen"])


class Notebook:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[int, str]] = []

    def scalars(self, done: int, values: Mapping[str, float]) -> None:
        self.told += [(done, name) for name in values]

    def images(self, done: int, pictures: Any) -> None:
        self.told += [(done, f"{name} of {pictures(done - 1)[name].max():.0f}") for name in pictures(done - 1)]

    def close(self) -> None:
        self.told.append((0, "closed"))


@pytest.mark.parametrize("stop", [0, 2, 3, 7, 10])
def test_the_best_is_remembered_over_a_resume(tmp_path: Path, stop: int) -> None:
    whole, parts = Highest(), Highest()
    train(Module(), Run(tmp_path / "whole", "same"), validation=whole, quiet=True)
    assert whole.seen == [0, 3, 6, 9, 10]
    run = Run(tmp_path / "parts", "same", save_every=3)
    train(Module(), run, validation=parts, stop_at=stop, quiet=True)
    parts = Highest()
    assert train(Module(), run, validation=parts, quiet=True)
    assert (parts.best, parts.seen) == (whole.best, whole.seen)


def test_the_leader_alone_validates(tmp_path: Path) -> None:
    class Deaf(Workers):
        def wait(self) -> None:
            """Nobody is there."""

    follower = Highest()
    train(Module(), Run(tmp_path, "same", workers=Deaf(1, 2)), validation=follower, quiet=True)
    assert follower.seen == [0]


def test_a_training_without_a_candidate_cannot_be_validated(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no candidate"):
        train(Walk(), Run(tmp_path, "same"), validation=Highest(), quiet=True)


def test_losses_scores_and_images_are_shown_where_they_are_due(tmp_path: Path) -> None:
    notebook = Notebook()
    train(Module(12), Run(tmp_path, "same", save_every=5), validation=Highest(6), watcher=notebook, quiet=True)
    assert notebook.told == [
        (5, "seen of 4"),
        (6, "score"),
        (10, "loss"),
        (10, "seen of 9"),
        (12, "loss"),
        (12, "score"),
    ]
