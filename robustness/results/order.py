"""Order: how victims, attacks and defences follow each other in every file, table and picture."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from types import MappingProxyType

from robustness.results.row import Attacker, Row

NaturalKey = tuple[tuple[int, float, str], ...]

ATTACKERS: tuple[Attacker, ...] = ("none", "white box", "transfer", "aware")

# Weak to strong, as the literature grew; an attack that is not listed comes after these.
_FAMILIES = ("clean", "FGSM", "R-FGSM", "I-FGSM", "MI-FGSM", "DIM", "DIM-TI", "PGD", "SSP", "FFF", "CDA", "FSA")
_ROLES = MappingProxyType({"none": 0, "baseline": 1, "purifier": 2})
_BASELINES = ("JPEG 75", "JPEG 50", "JPEG 20", "TV 30", "TV 10", "median 3x3")
_NUMBER = re.compile(r"(\d+(?:\.\d+)?)")
_SETTINGS = re.compile(r"-\d+$| \((iterations \d+|space features)\)$")


def natural(text: str) -> NaturalKey:
    """A sort key by which "DIM 2" comes before "DIM 10"."""
    parts = _NUMBER.split(text)
    return tuple((1, float(part), "") if place % 2 else (0, 0.0, part) for place, part in enumerate(parts))


def family(attack: str) -> str:
    """An attack's name without how it was set, at its end: "SSP" of "SSP-100", "FSA" of "FSA (space features)"."""
    return _SETTINGS.sub("", attack)


def attack_key(attack: str) -> tuple[int, NaturalKey]:
    """A sort key for attacks by name."""
    words = (family(attack), re.split(r"[ -]\d", attack)[0], attack.partition(" ")[0])
    known = [_FAMILIES.index(word) for word in words if word in _FAMILIES]
    return (known[0] if known else len(_FAMILIES), natural(attack))


def defence_key(name: str, role: str) -> tuple[int, int, NaturalKey]:
    """A sort key for defences: none, then the paper's baselines in its order, other baselines, purifiers."""
    place = _BASELINES.index(name) if name in _BASELINES else len(_BASELINES)
    return (_ROLES[role], place, natural(name))


def row_key(row: Row) -> tuple[object, ...]:
    """A sort key for rows; rows of different identity never compare equal."""
    return (
        natural(row.suite),
        natural(row.table),
        row.task,
        ATTACKERS.index(row.attacker),
        attack_key(row.attack),
        row.eps,
        natural(row.surrogate or ""),
        natural(row.victim),
        defence_key(row.defence, row.role),
        natural(row.series),
        float("-inf") if row.x is None else row.x,
        natural(row.metric),
        row.identity,
    )


def victims_of(rows: Iterable[Row]) -> tuple[str, ...]:
    """Their victims, each once."""
    return tuple(sorted({row.victim for row in rows}, key=natural))


def defences_of(rows: Iterable[Row]) -> tuple[tuple[str, str], ...]:
    """The name and role of their defences, each once."""
    return tuple(sorted({(row.defence, row.role) for row in rows}, key=lambda pair: defence_key(*pair)))


def suites_of(rows: Sequence[Row]) -> tuple[str, ...]:
    """Their suites, that of real networks first."""
    return tuple(sorted({row.suite for row in rows}, key=lambda suite: (suite != "imagenet", natural(suite))))
