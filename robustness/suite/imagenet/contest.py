"""The contest: the classifiers, the photos and the plan that every section of the suite stands on."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace

from robustness.adversaries import Threat
from robustness.attacks.attack import Attack
from robustness.datasets.nips17 import Credit
from robustness.defences import Defence
from robustness.errors import VictimError
from robustness.observations import Attacker, Observation, Scenario
from robustness.suite.bars import judge_photos
from robustness.suite.imagenet.jobs import JUDGING, Job
from robustness.suite.imagenet.plan import Plan
from robustness.suite.recorder import Place
from robustness.suite.session import Arena, Session
from robustness.victims.classification import Classifier


@dataclass(frozen=True)
class Contest:
    """``session`` has the classifiers that no training has seen; ``seen`` those that one has, named so.

    ``credits`` say whom to name below a photo, by the photo's name; without them no picture is drawn. Long attacks
    begin no batch after ``deadline``, in ``time.monotonic``'s seconds.
    """

    session: Session
    plan: Plan
    seen: tuple[Classifier, ...]
    credits: Mapping[str, Credit]
    deadline: float | None = None

    @property
    def photos(self) -> Arena:
        """The photos under unaware attackers, and the classifiers that no training has seen."""
        arena = self.session.arenas.get("classification")
        if arena is None:
            raise VictimError("this section wants photos of ImageNet; give --data with the folder nips17")
        return arena.first(self.plan.photos)

    @property
    def everyone(self) -> Arena:
        """The photos, and all classifiers."""
        return replace(self.photos, victims=(*self.photos.victims, *self.seen))

    @property
    def defences(self) -> tuple[Defence, ...]:
        """None, the baselines and the purifiers."""
        return (*self.session.defences, *self.session.purified)

    def job(
        self, arena: Arena, threat: Threat, victims: Sequence[Classifier], steps: float, place: Place
    ) -> tuple[Job, list[Observation]]:
        """One attack, judged behind every defence; the list is filled when the job is done."""
        seen: list[Observation] = []

        def measure() -> Sequence[Observation]:
            trial = self.session.attack(arena, threat, victims)
            seen.extend(self.session.measure(arena, trial, self.defences, place))
            return seen

        count = len(arena.bench.examples)
        return Job(threat.title, count * (steps + JUDGING), measure), seen

    def bars(self, seen: Sequence[Sequence[Observation]], attackers: Container[Attacker]) -> Job:
        """What the bars judge of the ``attackers`` among ``seen``: what every unseen classifier, and it alone, met."""
        names = {victim.name for victim in self.photos.victims}

        def measure() -> Sequence[Observation]:
            mine = [one for group in seen for one in group if one.victim in names]
            met: dict[Scenario, set[str]] = {}
            for one in mine:
                met.setdefault(one.scenario, set()).add(one.victim)
            judged = [each for each, victims in met.items() if victims == names and each.attacker in attackers]
            judge_photos(self.session, self.photos, mine, judged)
            return ()

        return Job("bars", 0.0, measure)


def made_on(attack: Attack, classifier: Classifier) -> Threat:
    """``attack`` on one classifier, to be judged on others."""
    return Threat(attack, classifier.name, classifier.identity, classifier.knowledge, "transfer")


def iterations_of(attack: Attack) -> int:
    """How many gradients an attack takes of each image."""
    return int(getattr(attack, "iterations", 1))
