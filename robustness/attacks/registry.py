"""Every attack that needs no artefact of its own, by the name that tables give it, with the NRP paper's settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

from robustness.attacks.attack import Attack
from robustness.attacks.autoattack import AutoAttack
from robustness.attacks.iterative import DIM, DIMTI, IFGSM, MIFGSM
from robustness.attacks.pgd import PGD
from robustness.attacks.scattering import FSA
from robustness.attacks.single_step import FGSM, RFGSM
from robustness.attacks.square import Square
from robustness.attacks.ssp import SSP

ATTACKS: Mapping[str, Callable[[float], Attack]] = MappingProxyType(
    {
        "FGSM": FGSM,
        "R-FGSM": RFGSM,
        "I-FGSM": IFGSM,
        "MI-FGSM": MIFGSM,
        "DIM": DIM,
        "DIM-TI": DIMTI,
        "PGD-10 targeted": partial(PGD, targeted=True),
        "PGD-10 untargeted": PGD,
        "PGD-50 untargeted": partial(PGD, iterations=50),
        "PGD-100 x5 untargeted": partial(PGD, iterations=100, restarts=5),
        "SSP": SSP,
        "FSA": FSA,
        "Square": Square,
        "AutoAttack standard": AutoAttack,
        "AutoAttack pair": partial(AutoAttack, version="pair"),
        "AutoAttack rand": partial(AutoAttack, version="rand"),
    }
)
"""From a budget in /255 to the attack at that budget, whose ``name`` is the key."""
