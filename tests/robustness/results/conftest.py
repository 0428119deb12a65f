"""Made-up rows of a whole suite: no figure here was measured."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import Any

import pytest

from robustness.intervals import wilson
from robustness.results.row import Row

VICTIMS = ("tiny-densenet", "tiny-resnet", "tiny-vgg")
BASELINES = ("JPEG 75", "JPEG 50", "JPEG 20", "TV 30", "TV 10", "median 3x3")
PURIFIERS = ("purifier static", "purifier noise-0.15x4")
DEFENCES = ("none", *BASELINES, *PURIFIERS)
BUDGETS = (2, 4, 8, 16)


def role_of(defence: str) -> str:
    return {"none": "none"}.get(defence, "purifier" if defence.startswith("purifier") else "baseline")


def made_up(percent: float | None, count: int = 100, **given: Any) -> Row:
    """A row of what matters to a test, the rest filled in; None is a row that was not measured."""
    interval = None
    if percent is not None:
        low, high = wilson(percent / 100 * count, count)
        interval = (100 * low, 100 * high)
    fields: dict[str, Any] = {
        "suite": "paper",
        "table": "overview",
        "task": "classification",
        "attacker": "none",
        "attack": "clean",
        "eps": 0,
        "victim": VICTIMS[0],
        "defence": "none",
        "metric": "accuracy",
        "missing": "" if percent is not None else "it takes a week",
        "versions": {"torch": "2.15.0", "python": "3.11.9"},
        "weights": {"tiny-vgg": "ab" * 32, "tiny-purifier": "cd" * 32},
        "data": {"photos/val": "ef" * 32},
        "command": "nrp evaluate --suite paper --data photos/val",
        "settings": {"iterations": 10},
    }
    fields |= given
    fields.setdefault("role", role_of(fields["defence"]))
    return Row(percent=percent, interval=interval, count=count if percent is not None else 0, **fields)


def some_share(*parts: object) -> float:
    """A percentage that depends on nothing but ``parts``."""
    return round(random.Random(repr(parts)).uniform(20, 80), 1)  # noqa: S311 - made up


def overview_rows(suite: str = "paper") -> Iterator[Row]:
    for victim, defence in itertools.product(VICTIMS, DEFENCES):
        bonus = 12 if defence.startswith("purifier") else 0
        clean = 92 - bonus / 4 + VICTIMS.index(victim)
        yield made_up(clean, suite=suite, victim=victim, defence=defence)
        for eps in BUDGETS:
            left = max(0.0, 80 - 6 * eps) + some_share(victim, defence) / 8
            where: dict[str, Any] = {"suite": suite, "victim": victim, "defence": defence, "eps": eps}
            for place, attack in enumerate(("FGSM", "PGD-10 untargeted")):
                yield made_up(max(0, left + bonus - 5 * place), attacker="white box", attack=attack, **where)
            yield made_up(min(95, left + bonus + 8), attacker="transfer", attack="SSP-100", surrogate="vgg16", **where)
            if victim != "tiny-vgg":
                yield made_up(min(95, left + bonus), attacker="transfer", attack="DIM", surrogate="tiny-vgg", **where)
            if bonus:
                yield made_up(left / 2, 32, attacker="aware", attack="BPDA PGD-100", **where)


def table_1_rows() -> Iterator[Row]:
    aware = "NRP dynamic, purifier-aware"
    for series in ("original", "adversarial training", "NRP static", "NRP dynamic", aware):
        victim = "tiny-robust" if series == "adversarial training" else "tiny-resnet"
        where: dict[str, Any] = {"table": "T1", "series": series, "victim": victim}
        yield made_up(some_share(series), **where)
        known = "aware" if series == aware else "white box"
        yield made_up(some_share(series, 16), attacker=known, attack="PGD-10 targeted", eps=16, **where)


def table_3_rows() -> Iterator[Row]:
    for attack, surrogate in (("FSA-10", "tiny-vgg"), ("FSA-10", "tiny-resnet"), ("SSP-100", "vgg16")):
        for victim in VICTIMS:
            if victim != surrogate:
                where: dict[str, Any] = {"victim": victim, "surrogate": surrogate, "table": "T3"}
                yield made_up(some_share(attack, victim), attacker="transfer", attack=attack, eps=16, **where)


def table_4_rows() -> Iterator[Row]:
    where: dict[str, Any] = {"table": "T4", "task": "detection", "metric": "mAP@0.5", "victim": "tiny-retinanet"}
    yield made_up(83.5, **where)
    for eps in (8, 16):
        for attack in ("SSP-100", "CDA imagenette", "CDA camvid"):
            percent = None if (attack, eps) == ("CDA camvid", 16) else some_share(attack, eps)
            yield made_up(percent, attacker="transfer", attack=attack, eps=eps, surrogate="vgg16", **where)


def table_5_rows() -> Iterator[Row]:
    for metric, victim in itertools.product(("top-1", "top-5"), VICTIMS):
        yield made_up(some_share(metric, victim), 500, table="T5", metric=metric, victim=victim)


def scene_rows(table: str) -> Iterator[Row]:
    metric, task, victim = {
        "T6": ("pixel accuracy", "segmentation", "tiny-segnet"),
        "T7": ("mAP@0.5", "detection", "tiny-retinanet"),
    }[table]
    for defence in DEFENCES:
        where: dict[str, Any] = {"table": table, "task": task, "metric": metric, "victim": victim, "defence": defence}
        yield made_up(78 - DEFENCES.index(defence), 60, **where)
        for eps in (8, 16):
            left = 70 - 3 * eps + some_share(defence) / 5
            yield made_up(left, 60, attacker="transfer", attack="SSP-100", eps=eps, surrogate="vgg16", **where)
        if defence.startswith("purifier"):
            yield made_up(some_share(defence) / 2, 20, attacker="aware", attack="BPDA PGD-100", eps=16, **where)


def figure_rows() -> Iterator[Row]:
    layers = {"vgg16": ("conv1-2", "conv2-2", "conv3-3", "conv4-3"), "resnet50": ("stem", "layer1", "layer2")}
    for network, names in layers.items():
        for place, layer in enumerate(names):
            where: dict[str, Any] = {"table": "F1", "series": network, "x": place, "settings": {"layer": layer}}
            where |= {"attacker": "transfer", "attack": "SSP-100", "eps": 16, "surrogate": network}
            yield made_up(some_share(network, layer), metric="fooling rate", **where)
    for attack, iterations in itertools.product(("I-FGSM", "MI-FGSM", "DIM", "SSP"), (1, 2, 5, 10, 20, 50, 100)):
        fall = {"SSP": 30 * iterations**0.2, "I-FGSM": 8.0}.get(attack, 40.0)
        where = {"attacker": "transfer", "attack": f"{attack}-{iterations}", "eps": 16, "surrogate": "vgg16"}
        yield made_up(90 - fall, table="F6", series=attack, x=iterations, **where)


@pytest.fixture(scope="session")
def rows() -> tuple[Row, ...]:
    """Every table and figure of the paper suite."""
    tables = (table_1_rows(), table_3_rows(), table_4_rows(), table_5_rows(), scene_rows("T6"), scene_rows("T7"))
    return tuple(itertools.chain(overview_rows(), *tables, figure_rows()))
