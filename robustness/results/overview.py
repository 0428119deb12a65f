"""The overview: accuracy of every classifier behind every defence under every attack, one table an eps.

Attackers are set apart by what they know, and the figures of those who know the defence always stand in the same
table as the others: a purifier with figures of the one kind and none of the other is an error.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from robustness.errors import EvaluationError
from robustness.results.averages import MEAN, lowest, mean_of_victims
from robustness.results.cells import NOT_APPLICABLE, Footnotes, blocks, grid, only, photos
from robustness.results.order import ATTACKERS, attack_key, defences_of, natural, victims_of
from robustness.results.row import Attacker, Row

KNOWING: Mapping[Attacker, str] = MappingProxyType(
    {
        "none": "no attack",
        "white box": "white box: knows the victim, not the defence",
        "transfer": "transfer: knows another model, neither the victim nor the defence",
        "aware": "aware: knows the victim and the defence",
    }
)


@dataclass(frozen=True)
class Threat:
    """An attack by someone; ``surrogate`` is the model a transferred attack was made on.

    It is empty where it says nothing: in a white box, and where every victim has a surrogate of its own.
    """

    attacker: Attacker
    attack: str
    surrogate: str = ""

    @property
    def title(self) -> str:
        """For a table."""
        return f"{self.attack}, from {self.surrogate}" if self.surrogate else self.attack


CLEAN = Threat("none", "clean")
Place = tuple[Threat, int, str, str]
LEGEND = f"{NOT_APPLICABLE} no attacker of this kind was run; that does not make the defence strong."


class Overview:
    """The overview rows of one suite. Raises EvaluationError for rows that do not make one whole table an eps."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.suite = only((row.suite for row in rows), "suite in an overview")
        only((row.task for row in rows), "task in an overview")
        self.metric = only((row.metric for row in rows), "metric in an overview")
        self.victims = victims_of(rows)
        self.defences = defences_of(rows)
        self.budgets = tuple(sorted({row.eps for row in rows} - {0}))
        own = _own_surrogates(rows)
        self._rows: dict[Place, Row] = {}
        for row in rows:
            place = (_threat(row, own), row.eps, row.victim, row.defence)
            if place in self._rows:
                raise EvaluationError(f"two rows for one cell: {row.title}; keep one")
            self._rows[place] = row
        self._unaware = frozenset(threat for threat, eps, _, _ in self._rows if eps and threat.attacker != "aware")
        self._knowing = {(eps, victim, defence) for t, eps, victim, defence in self._rows if t.attacker == "aware"}
        self._check()

    def threats(self, eps: int) -> tuple[Threat, ...]:
        """Those of one table: unaware ones that the suite has at any eps, aware ones that it has at this."""
        aware = {threat for threat, at, _, _ in self._rows if at == eps and threat.attacker == "aware"}
        return tuple(sorted(self._unaware | aware, key=_threat_key))

    def cell(self, threat: Threat, eps: int, victim: str, defence: str) -> Row | None:
        """The row of a cell (``victim`` may be ``MEAN``), None where there can be none.

        There can be none for the surrogate itself, for a baseline whose attacker was never told of it, and for a
        purifier that other aware attacks were made on. Raises EvaluationError for a hole.
        """
        if victim == MEAN:
            return self._mean(threat, eps, defence)
        row = self._rows.get((threat, eps, victim, defence))
        if row is not None or threat.surrogate == victim:
            return row
        known = (eps, victim, defence) in self._knowing
        if threat.attacker == "aware" and (known or dict(self.defences)[defence] != "purifier"):
            return None
        raise EvaluationError(
            f"the overview of suite {self.suite} has no row for {threat.title} ({threat.attacker}), eps {eps}, victim "
            f"{victim}, defence {defence}; measure it, or keep a row that says why not"
        )

    def least(self, attacker: Attacker, eps: int, victim: str, defence: str) -> Row | None:
        """The row of the attack of this kind that leaves least; None where there can be none."""
        threats = [threat for threat in self.threats(eps) if threat.attacker == attacker]
        found = [self.cell(threat, eps, victim, defence) for threat in threats]
        rows = [row for row in found if row is not None]
        return lowest(rows) if rows else None

    def _check(self) -> None:
        """Raise EvaluationError if a purifier was attacked by those who do not know it alone."""
        for defence, role in self.defences:
            for eps in self.budgets if role == "purifier" else ():
                for victim in self.victims:
                    if (eps, victim, defence) not in self._knowing:
                        raise EvaluationError(
                            f"the overview of suite {self.suite} has no row of an aware attacker for {defence}, victim "
                            f"{victim}, eps {eps}; measure it, or keep a row that says why not"
                        )

    def _mean(self, threat: Threat, eps: int, defence: str) -> Row | None:
        victims = [victim for victim in self.victims if victim != threat.surrogate]
        found = {victim: self.cell(threat, eps, victim, defence) for victim in victims}
        rows = [row for row in found.values() if row is not None]
        if rows and len(rows) < len(victims):
            lacking = next(victim for victim, row in found.items() if row is None)
            raise EvaluationError(
                f"the overview of suite {self.suite}: {threat.title} ({threat.attacker}), eps {eps}, defence {defence} "
                f"has rows for some victims and none for {lacking}; measure it, or keep a row that says why not"
            )
        return mean_of_victims(rows) if rows else None


def overview_table(overview: Overview, eps: int, victim: str) -> str:
    """Accuracy at one eps of one victim, or of ``MEAN``: one line an attack, one column a defence."""
    names = [name for name, _ in overview.defences]
    notes, groups = Footnotes(), defaultdict[Attacker, list[tuple[str, ...]]](list)
    for threat in (CLEAN, *overview.threats(eps)):
        budget = 0 if threat == CLEAN else eps
        found = [overview.cell(threat, budget, victim, name) for name in names]
        rows = [row for row in found if row is not None]
        if rows:
            figures = [NOT_APPLICABLE if row is None else notes.cell(row) for row in found]
            groups[threat.attacker].append((_title(threat, victim, rows), photos(rows), *figures))
    lines = [
        line
        for attacker, group in groups.items()
        for line in ((f"**{KNOWING[attacker]}**", *[""] * (1 + len(names))), *group)
    ]
    return _explained(grid(("attack", "photos", *names), lines), notes)


def headline(overview: Overview, eps: int) -> str:
    """One line a defence: clean accuracy, and the least that the attacks of each kind leave."""
    victim = MEAN if len(overview.victims) > 1 else overview.victims[0]
    notes, lines = Footnotes(), []
    kinds = [a for a in ATTACKERS[1:] if any(threat.attacker == a for threat in overview.threats(eps))]
    for name, _ in overview.defences:
        found = [overview.cell(CLEAN, 0, victim, name), *(overview.least(a, eps, victim, name) for a in kinds)]
        lines.append((name, *(NOT_APPLICABLE if row is None else notes.cell(row) for row in found)))
    return _explained(grid(("defence", "clean", *kinds), lines), notes)


def _explained(table: str, notes: Footnotes) -> str:
    return blocks(table, LEGEND if f"| {NOT_APPLICABLE} |" in table else "", notes.lines())


def _title(threat: Threat, victim: str, rows: Sequence[Row]) -> str:
    if threat.attacker != "transfer" or threat.surrogate:
        return threat.title
    if victim == MEAN:
        return f"{threat.attack}, from another model for each victim"
    return f"{threat.attack}, from {only((row.surrogate for row in rows), 'surrogate')}"


def _own_surrogates(rows: Sequence[Row]) -> frozenset[tuple[str, int]]:
    """The attacks (and eps) of which each victim saw one transferred version, not the same for all."""
    seen: dict[tuple[str, int], dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for row in rows:
        if row.attacker == "transfer":
            seen[row.attack, row.eps][row.victim].add(row.surrogate or "")
    return frozenset(
        attack
        for attack, sources in seen.items()
        if all(len(names) == 1 for names in sources.values()) and len(set[str]().union(*sources.values())) > 1
    )


def _threat(row: Row, own: frozenset[tuple[str, int]]) -> Threat:
    silent = row.surrogate is None or row.surrogate == row.victim or (row.attack, row.eps) in own
    return Threat(row.attacker, row.attack, "" if silent or row.surrogate is None else row.surrogate)


def _threat_key(threat: Threat) -> tuple[object, ...]:
    return (ATTACKERS.index(threat.attacker), attack_key(threat.attack), natural(threat.surrogate))
