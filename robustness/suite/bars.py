"""The bars of a suite: each attack's figure of each purifier, in the unit that it is judged in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from robustness.comparison import Comparison, Measured, compare
from robustness.defences import Purification
from robustness.judgement import judge
from robustness.observations import Observation, Scenario
from robustness.results.averages import MEAN
from robustness.results.bars import WORDS, Judged, judged_in, kind_of
from robustness.scores import Score
from robustness.suite.recorder import Evidence, Place
from robustness.suite.session import Arena, Session
from robustness.suite.tables import SHALLOW, features_attacked

TABLE = "bars"
SCENES_EPS = 16
# Where SSP is made on scenes: the paper's layer by its name, and the shallower one.
LAYERS: tuple[tuple[str, str | None], ...] = (("conv3-3", None), SHALLOW)
Facts = dict[str, object]
Scores = Mapping[str, Observation]


@dataclass(frozen=True)
class Line:
    """One figure of a purifier: under which attack, on whose images, of which victims (sha256 by name)."""

    arena: Arena
    scenario: Scenario
    defence: Purification
    victim: str
    weights: Mapping[str, str]
    layer: str = ""

    def keep(self, session: Session, judged: Judged, figure: Measured, facts: Facts) -> None:
        """Record it, with what it was computed from."""
        value, interval = figure
        examples = self.arena.bench.examples
        score = Score(WORDS[judged], value, interval, len(examples))
        seen = Observation(self.scenario, self.victim, self.defence.name, self.defence.role, score)
        weights = {**self.weights, self.defence.purifier: self.defence.weights}
        evidence = Evidence({"purifier": self.defence.purifier, **facts}, weights, {self.arena.source: examples.digest})
        session.recorder.add(Place(TABLE, self.layer), self.arena.task, seen, evidence)

    def lack(self, session: Session, reason: str) -> None:
        """Record why there is none."""
        place, weights = Place(TABLE, self.layer), {self.defence.purifier: self.defence.weights}
        session.recorder.lack(place, self.arena.task, self.scenario, self.victim, self.defence, reason, weights)


def judge_photos(session: Session, arena: Arena, seen: Sequence[Observation], scenarios: Iterable[Scenario]) -> None:
    """One row an attack and purifier: the mean over victims, in points over the best baseline or in % of clean.

    ``seen`` are all observations of photos; each of ``scenarios`` is judged.
    """
    chosen = list(scenarios)
    victim = MEAN if len(arena.victims) > 1 else arena.victims[0].name
    weights = {one.name: one.identity for one in arena.victims}
    for defence in session.purified:
        for scenario in chosen:
            found = compare(seen, scenario, defence.name)
            if found is not None:
                line = Line(arena.first(len(found.defended)), scenario, defence, victim, weights)
                _keep_photos(session, line, found)


def _keep_photos(session: Session, line: Line, found: Comparison) -> None:
    judged = judged_in(kind_of(line.scenario.attacker), line.scenario.eps)
    points, share, best = found.points(), found.share(), found.best
    figure = points if judged == "points" else share
    if figure is None:
        lacks = "baseline to compare with" if judged == "points" else "clean photo that is classified right"
        line.lack(session, f"there is no {lacks}")
        return
    facts: Facts = {
        "clean": _percent(found.clean.mean()),
        "undefended": None if found.undefended is None else _percent(found.undefended.mean()),
        "baseline": best,
        "baseline_percent": None if best is None else _percent(found.baselines[best].mean()),
        "defended": _percent(found.defended.mean()),
        "points": None if points is None else round(points[0], 3),
        "share": None if share is None else round(share[0], 3),
    }
    line.keep(session, judged, figure, facts)


def judge_scenes(session: Session, arena: Arena) -> None:
    """SSP at 16/255 on segmentation or detection: the share of the loss that each purifier recovers.

    What every defence leaves stands in tables 6 and 7, so no rows are made of it here.
    """
    defences = (*session.defences, *session.purified)
    clean = [one for each in defences for one in judge(arena.bench, session.clean(arena), each)]
    for name, layer in LAYERS:
        trial = features_attacked(session, arena, SCENES_EPS, layer)
        hit = [one for each in defences for one in judge(arena.bench, trial, each)]
        for victim in arena.victims:
            before, after = ({o.defence: o for o in seen if o.victim == victim.name} for seen in (clean, hit))
            for defence in session.purified:
                line = Line(arena, trial.scenario, defence, victim.name, {victim.name: victim.identity}, name)
                _keep_scenes(session, line, before, after)


def _keep_scenes(session: Session, line: Line, before: Scores, after: Scores) -> None:
    """The interval is that of the figure behind the purifier; what is lost is taken as it was measured."""
    bare = next(name for name, seen in before.items() if seen.role == "none")
    clean, left, score = before[bare].score.percent, after[bare].score.percent, after[line.defence.name].score
    lost = clean - left
    if lost <= 0:
        line.lack(session, f"{line.scenario.attack} on {line.layer} costs this victim nothing that could be recovered")
        return
    baselines = {name: seen.score.percent for name, seen in after.items() if seen.role == "baseline"}
    best = max(baselines, key=lambda name: baselines[name], default=None)
    low, high = (100 * (end - left) / lost for end in score.interval)
    facts: Facts = {
        "clean": round(clean, 3),
        "undefended": round(left, 3),
        "baseline": best,
        "baseline_percent": None if best is None else round(baselines[best], 3),
        "defended": round(score.percent, 3),
        "points": None if best is None else round(score.percent - baselines[best], 3),
        "share": round(100 * score.percent / clean, 3),
    }
    line.keep(session, "recovered", (100 * (score.percent - left) / lost, (low, high)), facts)


def _percent(share: Tensor) -> float:
    return round(100 * float(share), 3)
