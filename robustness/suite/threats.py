"""Threats: the suite's attacks as someone can make them, with those that need an artefact made first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch

from model_store.inference import seeded
from robustness.adversaries import Threat, white_box
from robustness.attacks.attack import Attack, Knowledge
from robustness.attacks.generated import load_perturber
from robustness.attacks.registry import ATTACKS
from robustness.attacks.ssp import SSP
from robustness.attacks.universal import FoolSettings, Universal, fast_feature_fool
from robustness.examples import Truths
from robustness.seeds import derive_seed
from robustness.suite.session import Arena, Session
from robustness.victims.victim import Victim

LABELLED = frozenset({"FGSM", "R-FGSM", "I-FGSM", "MI-FGSM", "DIM", "DIM-TI"})
FFF_EPS = 16
PERTURBERS = ("cda-imagenette", "cda-camvid")


def named(session: Session, key: str, eps: float) -> Attack:
    """The registry's attack ``key``; SSP with as many iterations as the suite's sizes say."""
    attack = ATTACKS[key](eps)
    return replace(attack, iterations=session.sizes.ssp_iterations) if isinstance(attack, SSP) else attack


def white_boxes(session: Session, victims: Sequence[Victim]) -> Iterator[tuple[Victim, Threat]]:
    """Each of the suite's white-box attacks on each victim at each budget, weakest budget first."""
    for eps in session.sizes.eps:
        for key in session.sizes.white:
            for victim in victims:
                yield victim, white_box(named(session, key, eps), victim)


def transfers(session: Session, arena: Arena) -> Iterator[Threat]:
    """Each of the suite's transfer attacks at each budget; a generator for CDA only where the store has one."""
    known = tuple(key for key in session.sizes.transfer if key not in unknowable(session, arena))
    for eps in session.sizes.eps:
        for key in known:
            if key == "CDA":
                yield from generated(session, eps)
            elif key == "FFF":
                yield fooling_noise(session, arena, eps)
            else:
                yield session.surrogate.threat(named(session, key, eps))


def unknowable(session: Session, arena: Arena) -> tuple[str, ...]:
    """The transfer attacks that need a label, where the surrogate's classes are not the victims'."""
    if all(victim.folders == session.surrogate.folders for victim in arena.classifiers()):
        return ()
    return tuple(key for key in session.sizes.transfer if key in LABELLED)


def generated(session: Session, eps: float) -> list[Threat]:
    """CDA by each generator that the store holds."""
    device = session.recorder.conditions.device
    found = []
    for name in PERTURBERS:
        if name in session.store.names():
            attack = load_perturber(session.store, name, eps, device)
            found.append(Threat(attack, name, session.store.card(name).sha256, _nothing, "transfer"))
    return found


def fooling_noise(session: Session, arena: Arena, eps: float) -> Threat:
    """FFF: universal noise for the arena's image size, made once from the surrogate's activations alone.

    It is made at the paper's 16/255, which takes minutes, and scaled to other budgets.
    """
    bench, surrogate = arena.bench, session.surrogate
    shape = tuple(bench.examples.pixels.shape[1:])
    iterations = session.sizes.fff_iterations
    conditions = bench.conditions
    seed = derive_seed(conditions.seed, "FFF", FFF_EPS)
    settings = FoolSettings(device=conditions.device)
    made_from = {
        "attack": "FFF",
        "settings": repr(settings),
        "torch": str(torch.__version__),
        "surrogate": surrogate.identity,
        "shape": list(shape),
        "eps": FFF_EPS,
        "iterations": iterations,
        "seed": seed,
        "precision": conditions.attack_precision,
        "device": conditions.device.type,
    }

    def make() -> dict[str, torch.Tensor]:
        bench.progress.begin(f"FFF noise, eps {FFF_EPS}/255")
        with bench.progress.bar(iterations, "step") as bar, conditions.attack_autocast():
            noise = fast_feature_fool(
                surrogate.activations,
                (shape[1], shape[2]),
                FFF_EPS,
                iterations,
                generator=seeded(seed),
                settings=settings,
                progress=lambda done, _: bar.update(done - bar.n),
            )
        return {"noise": noise}

    noise = bench.cache.recall(f"FFF noise eps{FFF_EPS} {surrogate.name}", made_from, make)["noise"]
    return Threat(
        Universal(noise * (eps / FFF_EPS), eps, "FFF"), surrogate.name, surrogate.identity, _nothing, "transfer"
    )


def _nothing(truths: Truths, generator: torch.Generator) -> Knowledge:
    del truths, generator
    return Knowledge()
