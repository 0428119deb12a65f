"""The protocol: every figure about attackers who know the purifier, each beside its clean twin, and its doubts.

The rules are those of the literature on randomised defences: Athalye et al. (2018), Tramer et al. (2020), Croce and
Hein (AutoAttack's "rand", 2020), Lee and Kim (gradients of the whole defence, 2023).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from robustness.attacks.square import Square
from robustness.aware.crafting import Adversaries, adversaries
from robustness.aware.defended import Defended
from robustness.aware.doubts import blind_warning, curve_warning, masking_warning, unbounded_warning
from robustness.aware.figure import Figure
from robustness.aware.judging import VOTE, Decisions, clean_decisions, decisions, worst_case
from robustness.aware.material import Material
from robustness.aware.plan import Assault, AwarePlan
from robustness.scores import Score

WORST = "worst of attacks"
CURVE = "EOT curve"
KNOWN = "known noise"


Warn = Callable[[str], None]


def measure(
    material: Material, defended: Defended, plan: AwarePlan, warn: Warn, sources: Sequence[Defended] = ()
) -> Iterator[Figure]:
    """All figures of ``defended``, each as soon as it is measured; doubts go to ``warn``, one sentence each.

    ``sources`` are the same victim behind other purifiers, whose adversaries are tried here too. A photo that is wrong
    as it is counts as broken, in every figure. What was kept by an earlier run is not computed again. Raises
    OutOfTimeError after the material's deadline.
    """
    plan = replace(plan, photos=min(plan.photos, len(material.examples)))
    course = Course(material, defended, _suited(plan, defended), warn)
    yield from course.figures("clean", 0, course.clean, {})
    yield from course.main()
    for source in sources:
        yield from course.transfer(source, _suited(plan, source))
    if plan.few and not defended.mode.static:
        yield from course.curve()
        yield from course.known()
    if plan.few:
        yield from course.unbounded()
    if plan.square_photos:
        yield from course.square()


def _suited(plan: AwarePlan, defended: Defended) -> AwarePlan:
    """One draw a gradient where nothing is random."""
    return replace(plan, eot=1) if defended.mode.static else plan


@dataclass
class Course:
    """One defence on its way through the protocol."""

    material: Material
    defended: Defended
    plan: AwarePlan
    warn: Warn
    clean: Decisions = field(init=False)

    def __post_init__(self) -> None:
        self.clean = clean_decisions(self.material, self.defended, self.plan)

    def main(self) -> Iterator[Figure]:
        """The main attacks, and what is left of the strongest on each photo."""
        so_far: list[Decisions] = [self.clean]
        exact: Decisions | None = None
        for attack in self.plan.main():
            spared = self._broken(so_far) if self.plan.drop else self.clean.broken
            found, seen = self._attack(attack, spared)
            self._tell(blind_warning(f"{attack.name} on {self._title}", found.blind))
            if attack.route == "BPDA" and exact is not None:
                # Of photos that another attack broke, BPDA says nothing.
                self._tell(
                    masking_warning(self._title, exact.share, torch.where(found.attacked, seen.share, exact.share))
                )
            exact = seen if exact is None else exact
            so_far.append(seen)
            yield from self.figures(attack.name, attack.eps, seen, self._counts(found, attack))
        settings: dict[str, object] = {"attacks": [attack.name for attack in self.plan.main()]}
        yield from self._series(WORST, self.plan.eps, worst_case(so_far), self.clean.scores(), settings)

    def transfer(self, source: Defended, plan: AwarePlan) -> Iterator[Figure]:
        """The exact attack made through another purifier; its adversaries are those of that purifier's own figures."""
        spared = clean_decisions(self.material, source, plan).broken
        found = adversaries(self.material, source, plan, plan.exact(), spared)
        seen = decisions(self.material, self.defended, self.plan, found.pixels)
        settings: dict[str, object] = {"attacked": int(found.attacked.sum())}
        for figure in self.figures(plan.exact().name, plan.eps, seen, settings):
            yield replace(figure, source=source.name)

    def curve(self) -> Iterator[Figure]:
        """The exact attack with more and more draws a gradient: at its end more must not help."""
        clean, shares = self.clean.first(self.plan.few), []
        for eot in self.plan.eot_curve:
            attack = replace(self.plan.exact(), eot=eot)
            found, seen = self._attack(attack, clean.broken)
            shares.append(seen.share)
            counts = self._counts(found, attack)
            (figure,) = self._series(CURVE, attack.eps, {VOTE: seen.scores()[VOTE]}, clean.scores(), counts)
            yield replace(figure, attack=attack.name, series=CURVE, x=float(eot))
        self._tell(curve_warning(self._title, self.plan.eot_curve, shares))

    def known(self) -> Iterator[Figure]:
        """The exact attack where the noise of the decision is known: the most that any attacker could know."""
        clean = self.clean.first(self.plan.few)
        attack = replace(self.plan.exact(), known_noise=True, eot=self.defended.mode.draws)
        found, seen = self._attack(attack, ~clean.votes[:, 0])
        one, control = (Decisions(of.votes[:, :1], of.singles[:, :1]) for of in (seen, clean))
        yield Figure(
            attack.name,
            attack.eps,
            KNOWN,
            one.scores()[VOTE],
            control.scores()[VOTE],
            settings=self._counts(found, attack),
        )

    def unbounded(self) -> Iterator[Figure]:
        """The exact attack at a budget that nothing can withstand."""
        clean = self.clean.first(self.plan.few)
        attack = replace(self.plan.exact(), eps=self.plan.unbounded_eps)
        found, seen = self._attack(attack, clean.broken)
        self._tell(unbounded_warning(f"{attack.name} at eps {attack.eps}/255 on {self._title}", seen.share))
        yield from self._series(
            attack.name, attack.eps, {VOTE: seen.scores()[VOTE]}, clean.scores(), self._counts(found, attack)
        )

    def square(self) -> Iterator[Figure]:
        """Square, which needs no gradient."""
        noisy = not self.defended.mode.static
        attack = Square(self.plan.eps, queries=self.plan.square_queries, stubborn=noisy)
        clean = self.clean.first(self.plan.square_photos)
        found, seen = self._attack(attack, clean.broken)
        settings = {**self._counts(found, attack), "queries": attack.queries}
        settings["draws of a query"] = self.plan.square_draws if noisy else 1
        yield from self._series(f"Square-{attack.queries}", self.plan.eps, seen.scores(), clean.scores(), settings)

    def figures(self, attack: str, eps: int, seen: Decisions, settings: dict[str, object]) -> Iterator[Figure]:
        """What ``seen`` amounts to, each beside the clean photos'."""
        return self._series(attack, eps, seen.scores(), self.clean.first(len(seen.votes)).scores(), settings)

    def _series(
        self,
        attack: str,
        eps: int,
        scores: dict[str, Score],
        clean: dict[str, Score],
        settings: dict[str, object],
    ) -> Iterator[Figure]:
        for series, score in scores.items():
            yield Figure(attack, eps, series, score, clean[series], settings=settings)

    def _attack(self, attack: Assault | Square, spared: Tensor) -> tuple[Adversaries, Decisions]:
        """The adversaries, and the decisions about them: all wrong for photos that are spared, being broken."""
        found = adversaries(self.material, self.defended, self.plan, attack, spared)
        return found, decisions(self.material, self.defended, self.plan, found.pixels, spared)

    def _broken(self, so_far: Sequence[Decisions]) -> Tensor:
        return torch.stack([one.broken for one in so_far]).any(dim=0)

    def _counts(self, found: Adversaries, attack: Assault | Square) -> dict[str, object]:
        """How many photos were attacked, and what became of the others."""
        counts: dict[str, object] = {"attacked": int(found.attacked.sum()), "attack": repr(attack)}
        if not found.attacked.all():
            counts["not attacked"] = "of which every decision was wrong already; they count as broken"
        return counts

    @property
    def _title(self) -> str:
        return f"{self.defended.victim} behind {self.defended.name}"

    def _tell(self, warning: str | None) -> None:
        if warning is not None:
            self.warn(warning)
