"""The section `pictures`: the image figures of the NRP paper, on photos that may be shown when they are credited."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from model_store.pixels import to_bytes
from robustness.adversaries import Threat
from robustness.attacks.ssp import SSP
from robustness.datasets.nips17 import Credit
from robustness.defences import Defence, NoDefence
from robustness.judgement import Trial
from robustness.observations import Observation
from robustness.results.files import write_text
from robustness.results.grids import Panel, grid, write_grid
from robustness.seeds import derive_seed
from robustness.suite.imagenet.contest import Contest, made_on
from robustness.suite.imagenet.jobs import Job
from robustness.suite.session import Arena
from robustness.suite.tables import PAPER_EPS
from robustness.suite.threats import generated, named
from robustness.surrogates import Surrogate, load_surrogate
from robustness.victims.classification import Classifier

PHOTOS = 3
HEIGHT = 150
FOLDER = "plots"
CREDITS = "CREDITS.md"


@dataclass(frozen=True)
class Sheet:
    """One figure: ``columns`` are what a panel is called, the attack and whether the purifier follows."""

    number: str
    title: str
    columns: tuple[tuple[str, Threat, bool], ...]


def jobs(contest: Contest, results: Path) -> list[Job]:
    """A picture each of the paper's figures that can be drawn, and the credits; none without credits."""
    if not contest.credits:
        return []
    made = [Job(f"figure {sheet.number}", 1.0, partial(_draw, contest, sheet, results)) for sheet in _sheets(contest)]
    return [*made, Job("credits", 0.0, partial(_write_credits, contest, results))]


def _sheets(contest: Contest) -> Iterator[Sheet]:
    session = contest.session
    ssp = SSP(PAPER_EPS, iterations=session.sizes.ssp_iterations)
    features = tuple((f"SSP on {name}", surrogate.threat(ssp), False) for name, surrogate in _surrogates(contest))
    yield Sheet("2", "Adversaries of SSP in the features of different networks", features)
    source = (*contest.photos.classifiers(), *contest.seen)[-1]
    diverse = [(key, made_on(named(session, key, PAPER_EPS), source)) for key in ("DIM", "DIM-TI")]
    yield Sheet("8", f"DIM and DIM-TI made on {source.name}, and purified", tuple(_pairs(diverse)))
    cda = [(threat.attack.name, threat) for threat in generated(session, PAPER_EPS)]
    if cda:
        yield Sheet("9", "Adversaries of CDA, and purified", tuple(_pairs(cda)))


def _surrogates(contest: Contest) -> Iterator[tuple[str, Surrogate]]:
    session = contest.session
    for network, layers in contest.plan.layers:
        if network in session.store.names():
            layer = layers[len(layers) // 2]
            yield (
                f"{network} {layer}",
                load_surrogate(session.store, network, session.recorder.conditions.device, layer),
            )


def _pairs(threats: Sequence[tuple[str, Threat]]) -> Iterator[tuple[str, Threat, bool]]:
    for name, threat in threats:
        yield name, threat, False
        yield f"{name}, purified", threat, True


def _draw(contest: Contest, sheet: Sheet, results: Path) -> Sequence[Observation]:
    session, arena = contest.session, contest.photos.first(PHOTOS)
    victim, purifier = arena.classifiers()[0], session.purified[0]
    trials = [session.clean(arena), *(session.attack(arena, threat, arena.victims) for _, threat, _ in sheet.columns)]
    behind: list[Defence] = [NoDefence(), *(purifier if purified else NoDefence() for _, _, purified in sheet.columns)]
    rows: list[list[Panel | None]] = [
        [_panel(arena, trial, defence, victim, place) for trial, defence in zip(trials, behind, strict=True)]
        for place in range(len(arena.bench.examples))
    ]
    heads = ("clean", *(title for title, _, _ in sheet.columns))
    path = results / FOLDER / f"figure-{sheet.number}.png"
    write_grid(grid(rows, column_titles=heads, height=HEIGHT), path)
    words = f"Below each what {victim.name} says; eps {PAPER_EPS}/255"
    words += f", purified by {purifier.name}. " if any(behind.role == "purifier" for behind in behind) else ". "
    write_text(path.with_suffix(".txt"), f"Figure {sheet.number}: {sheet.title}\n{words}{_credited(contest, arena)}\n")
    return ()


@torch.inference_mode()
def _panel(arena: Arena, trial: Trial, defence: Defence, victim: Classifier, place: int) -> Panel:
    conditions = arena.bench.conditions
    with conditions.autocast():
        images = conditions.floats(trial.examples.pixels[place].unsqueeze(0))
        versions = defence.draws(images, [derive_seed(conditions.seed, "defence", place)])
        logs: Tensor = victim.answer(versions)["log_probabilities"][0]
    guess = int(logs.argmax())
    right = guess == int(arena.bench.examples.truths["labels"][place])
    words = f"{victim.classes[guess]} {float(logs[guess].exp()):.0%}"
    return Panel(to_bytes(versions.float().mean(dim=1))[0].cpu(), words, "right" if right else "wrong")


def _credited(contest: Contest, arena: Arena) -> str:
    shown = [contest.credits[name] for name in arena.bench.examples.names]
    return f"Photos, from top: {'; '.join(f'{credit.author} ({credit.licence})' for credit in shown)}."


def _write_credits(contest: Contest, results: Path) -> Sequence[Observation]:
    """Whom to credit for the photos in the pictures, in a file beside them."""
    names = contest.photos.first(PHOTOS).bench.examples.names
    lines = ["# Photos in the figures here", "", "Cropped, attacked and purified by this project.", ""]
    lines += [f"* {_line(name, contest.credits[name])}" for name in names]
    write_text(results / FOLDER / CREDITS, "\n".join(lines) + "\n")
    return ()


def _line(name: str, credit: Credit) -> str:
    return f"`{name}`: {credit.author}, {credit.page}, {credit.licence}"
