from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor, nn

from robustness.adversaries import white_box
from robustness.attacks.ascent import slope
from robustness.attacks.attack import Attack, Knowledge, required
from robustness.attacks.pgd import PGD
from robustness.judgement import judge
from robustness.observations import Observation, Scenario
from robustness.scores import accuracy
from robustness.suite import checks
from robustness.suite.checks import DECISIONS, check_suite, resubmit
from robustness.suite.overview import knowing, unaware
from robustness.suite.session import Arena, Session


class Stubborn(nn.Module):
    """Says the first class, hardly moved by what it sees."""

    def forward(self, images: Tensor) -> Tensor:
        said = torch.zeros(len(images), 3)
        said[:, 0] = 5
        return said + 1e-3 * images.mean((2, 3))


@dataclass(frozen=True)
class Descent(Attack):
    """The wrong way: each iteration lowers the loss that it should raise."""

    eps: float
    iterations: int = 10

    @property
    def name(self) -> str:
        return f"Descent-{self.iterations}"

    def __call__(self, images: Tensor, knowledge: Knowledge, generator: torch.Generator) -> Tensor:
        del generator
        loss = required(knowledge.loss, "a loss", self.name)
        far = min(self.eps, 2 * self.iterations) / 255
        return (images - far * slope(images, loss).sign()).clamp(0, 1)


@pytest.fixture
def quick_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "ITERATIONS", (1, 4))


def seen(right: int, attacker: str, defence: str = "none", attack: str = "DIM") -> Observation:
    correct = torch.arange(100) < right
    scenario = Scenario(attack, 8, attacker)  # type: ignore[arg-type]
    role = "none" if defence == "none" else "purifier"
    return Observation(scenario, "victim-a", defence, role, accuracy(correct))  # type: ignore[arg-type]


@pytest.mark.usefixtures("quick_checks")
def test_a_sound_run_is_checked_and_not_doubted(session: Session, photos: Arena) -> None:
    found = unaware(session, photos)
    known = knowing(session, photos, found)
    session.warnings.clear()
    check_suite(session, photos, found, known)
    assert session.warnings == []
    rows = [row for row in session.recorder.rows if row.table == "checks"]
    unbounded = {(row.attack, row.attacker, row.defence): row.percent for row in rows if row.eps == 255}
    assert set(unbounded) == {
        ("PGD-10 untargeted", "white box", "none"),
        ("full-gradient PGD-10 untargeted", "aware", "purifier heavy"),
    }
    assert max(percent or 0 for percent in unbounded.values()) <= 100 / 3


@pytest.mark.usefixtures("quick_checks")
def test_a_victim_that_no_attack_moves_is_doubted(session: Session, photos: Arena) -> None:
    victim = replace(photos.victims[0], module=Stubborn(), identity="s" * 64)
    examples = replace(photos.bench.examples, truths={"labels": torch.zeros(9, dtype=torch.int64)})
    arena = replace(photos, bench=replace(photos.bench, examples=examples), victims=(victim,))
    stubborn = replace(session, arenas={"classification": arena})
    check_suite(stubborn, arena, [], [])
    warnings = [warning for warning in session.warnings if "is still 100.0 %" in warning]
    assert len(warnings) == 2
    assert "guessing gets 33.3 %" in warnings[0]
    assert "behind purifier heavy" in warnings[1]


@pytest.mark.usefixtures("quick_checks")
def test_an_attack_that_gets_worse_with_iterations_is_doubted(
    session: Session, photos: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "PGD", Descent)
    check_suite(session, photos, [], [])
    falls = [warning for warning in session.warnings if "the mean loss falls" in warning]
    assert [warning.split(":")[0] for warning in falls] == [
        "Descent-4, eps 8/255 on victim-a",
        "full-gradient Descent-4, eps 8/255 on victim-a",
    ]


@pytest.mark.usefixtures("quick_checks")
def test_transfer_that_beats_a_white_box_and_knowing_that_hurts_are_doubted(session: Session, photos: Arena) -> None:
    check_suite(session, photos, [seen(60, "white box"), seen(10, "transfer")], [])
    assert any("transfer must not beat white box" in warning for warning in session.warnings)
    session.warnings.clear()
    purified = "purifier heavy"
    check_suite(session, photos, [seen(30, "white box", purified)], [seen(70, "aware", purified, "BPDA PGD")])
    assert any("without knowing the defence" in warning for warning in session.warnings)


def test_a_static_purifier_is_not_asked_again(session: Session, photos: Arena) -> None:
    resubmit(session, photos, session.classifiers()[0], session.purified[1])
    assert session.recorder.rows == []


def test_a_randomised_purifier_is_asked_again_and_the_worst_is_said(session: Session, photos: Arena) -> None:
    resubmit(session, photos, session.classifiers()[0], session.purified[0])
    rows = {(row.attack, row.series): row for row in session.recorder.rows}
    assert set(rows) == {
        (attack, f"{kind} of {DECISIONS}")
        for attack in ("clean", "PGD-10 untargeted")
        for kind in ("single", "majority", "worst")
    }
    assert {(row.defence, row.victim, row.count) for row in rows.values()} == {("purifier heavy", "victim-a", 9)}
    victim = session.classifiers()[:1]
    hit = session.attack(photos, white_box(PGD(8), victim[0]), victim)
    for attack, trial in (("clean", session.clean(photos, victim)), ("PGD-10 untargeted", hit)):
        decisions = []
        for seed in range(DECISIONS):
            bench = replace(photos.bench, conditions=replace(photos.bench.conditions, seed=seed))
            decisions.append(judge(bench, trial, session.purified[0])[0].correct)
        right = torch.stack(decisions)
        assert rows[attack, f"single of {DECISIONS}"].percent == pytest.approx(
            100 * float(right.double().mean()), abs=1e-3
        )
        worst = 100 * float(right.all(0).double().mean())
        assert rows[attack, f"worst of {DECISIONS}"].percent == pytest.approx(worst, abs=1e-3)


def test_every_decision_has_noise_of_its_own(session: Session, photos: Arena) -> None:
    resubmit(session, photos, session.classifiers()[0], session.purified[0])
    judged = list(photos.bench.cache.root.glob("clean-eps0-victim-a-purifier-heavy-*"))
    assert len(judged) == DECISIONS
