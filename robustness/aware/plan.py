"""The plan: which attacks the attackers who know make, and how hard."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from robustness.attacks.apgd import APGD
from robustness.attacks.attack import Attack
from robustness.attacks.pgd import PGD
from robustness.aware.defended import FLOAT32, Arithmetic
from robustness.aware.losses import LossName
from robustness.aware.objective import Route
from robustness.errors import EvaluationError

Search = Literal["PGD", "APGD"]


@dataclass(frozen=True)
class Assault:
    """One gradient attack through the defence: which search, on which loss, by which route, over how many draws.

    ``eps`` in /255; ``known_noise``: of the decision that is judged, where the defence's seeds are no secret.
    """

    search: Search
    loss: LossName
    route: Route
    eps: int
    steps: int
    eot: int
    restarts: int = 1
    known_noise: bool = False

    @property
    def attack(self) -> Attack:
        """One run of the search, which the objective makes an attack on the defence."""
        return PGD(self.eps, iterations=self.steps) if self.search == "PGD" else APGD(self.eps, self.steps)

    @property
    def name(self) -> str:
        """What tables call it."""
        runs = f" x{self.restarts}" if self.restarts > 1 else ""
        noise = "known noise" if self.known_noise else f"EOT-{self.eot}"
        return f"{self.route} {self.search}-{self.steps}{runs} {self.loss} {noise}"


@dataclass(frozen=True)
class AwarePlan:
    """How hard the protocol attacks; the defaults are for two cores. Budgets in /255.

    ``photos`` are attacked by the three main attacks (exact PGD on cross-entropy, exact APGD on the margin, BPDA), all
    with ``steps`` steps, ``eot`` draws a gradient and ``restarts`` runs. Each adversary gets ``decisions`` independent
    decisions. The first ``few`` photos are used for the curve over ``eot_curve``, the known noise, and the attack at
    ``unbounded_eps`` (0: none of them is made); ``square_photos`` for Square's ``square_queries``, each the mean of
    ``square_draws`` draws (0 photos: not made). ``batch`` photos (Square: ``square_batch``) are one entry in the
    cache: what a kill loses at most; ``chunk`` copies are in flight. ``drop``: a photo of which every decision is
    wrong already is not attacked again by a later main attack. ``attacked`` and ``judged`` say what the networks
    compute in under attack and in judgement.
    """

    eps: int = 4
    photos: int = 64
    steps: int = 40
    eot: int = 10
    restarts: int = 1
    decisions: int = 8
    few: int = 8
    eot_curve: tuple[int, ...] = (1, 5, 10, 20)
    unbounded_eps: int = 32
    square_photos: int = 8
    square_queries: int = 5000
    square_draws: int = 4
    square_batch: int = 1
    batch: int = 8
    chunk: int = 16
    drop: bool = True
    attacked: Arithmetic = FLOAT32
    judged: Arithmetic = FLOAT32

    def __post_init__(self) -> None:
        positive = (self.eps, self.photos, self.steps, self.eot, self.restarts, self.batch, self.chunk)
        if min(*positive, self.unbounded_eps, self.square_draws, self.square_batch, *self.eot_curve) < 1:
            raise EvaluationError("budgets, photos, steps, draws, restarts, batch and chunk are at least 1")
        if self.decisions < 2 or min(self.few, self.square_photos, self.square_queries) < 0:
            raise EvaluationError("at least 2 decisions; counts of photos and queries are not negative")

    def main(self) -> tuple[Assault, ...]:
        """The attacks whose worst case, photo by photo, is the headline."""
        return (self.exact(), replace(self.exact(), search="APGD", loss="margin"), replace(self.exact(), route="BPDA"))

    def exact(self) -> Assault:
        """Exact PGD on cross-entropy: the attack that curve, transfer, known noise and the large budget repeat."""
        return Assault("PGD", "CE", "exact", self.eps, self.steps, self.eot, self.restarts)


CPU_PLAN = AwarePlan()
GPU_PLAN = AwarePlan(
    photos=512,
    steps=200,
    eot=20,
    restarts=1,
    few=64,
    square_photos=64,
    square_draws=10,
    square_batch=64,
    batch=64,
    chunk=640,
)
