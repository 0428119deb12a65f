"""How much a suite measures: counts that fit ten minutes of two cores, and those of the committed tables.

The ten minutes are those of cores without bfloat16, which are the slower ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal


@dataclass(frozen=True)
class Sizes:
    """``eps`` in /255. ``photos`` are judged against unaware attackers, the first ``aware_photos`` of them against
    those who know the purifier; ``scenes`` and ``aware_scenes`` are the same for segmentation and detection,
    at ``scene_eps``.

    ``overview_victims`` is how many classifiers the overview attacks in every way, the first of those named; None for
    all. ``white`` and ``transfer`` are keys of the registry of attacks. ``heavy_eps`` get the slow adaptive attacks as
    well, ``eot_eps`` of those the gradient averaged over draws alone. ``outsider`` names a second network that transfer
    attacks follow, and its layer. ``table`` is where the photos' rows go: "overview", or "purifier" where purifiers are
    compared and judged by bars, at ``transfer_eps`` alone (None: at every eps) where attacks are transferred.
    """

    eps: tuple[int, ...]
    photos: int
    aware_photos: int
    aware_eps: tuple[int, ...]
    aware_steps: int
    scenes: int
    scene_eps: tuple[int, ...]
    aware_scenes: int
    overview_victims: int | None
    white: tuple[str, ...]
    transfer: tuple[str, ...]
    ssp_iterations: int
    fff_iterations: int
    heavy_eps: tuple[int, ...]
    outsider: tuple[str, str] | None
    paper_tables: bool
    eot_eps: tuple[int, ...] = ()
    transfer_eps: tuple[int, ...] | None = None
    table: Literal["overview", "purifier"] = "overview"

    @property
    def transfer_budgets(self) -> tuple[int, ...]:
        """The eps at which attacks are transferred."""
        return self.eps if self.transfer_eps is None else self.transfer_eps

    @property
    def compares(self) -> bool:
        """Whether the suite compares purifiers."""
        return self.table == "purifier"


QUICK = Sizes(
    eps=(2, 4, 8, 16),
    photos=10,
    aware_photos=10,
    aware_eps=(8,),
    aware_steps=20,
    scenes=4,
    scene_eps=(16,),
    aware_scenes=2,
    overview_victims=None,
    white=("DIM",),
    transfer=("DIM", "SSP"),
    ssp_iterations=10,
    fff_iterations=0,
    heavy_eps=(),
    outsider=None,
    paper_tables=False,
)
PAPER = Sizes(
    eps=(2, 4, 8, 16),
    photos=60,
    aware_photos=16,
    aware_eps=(2, 4, 8, 16),
    aware_steps=100,
    scenes=40,
    scene_eps=(8, 16),
    aware_scenes=16,
    overview_victims=3,
    white=("FGSM", "R-FGSM", "I-FGSM", "MI-FGSM", "DIM", "DIM-TI", "PGD-10 targeted", "PGD-10 untargeted"),
    transfer=("MI-FGSM", "DIM", "DIM-TI", "FSA", "SSP", "FFF", "CDA"),
    ssp_iterations=100,
    fff_iterations=10_000,
    heavy_eps=(4, 8, 16),
    outsider=("imagenette-vgg", "features.13"),
    paper_tables=True,
)
PURIFIER = Sizes(
    eps=(2, 4, 8, 16),
    photos=200,
    aware_photos=100,
    aware_eps=(4,),
    aware_steps=50,
    scenes=40,
    scene_eps=(8, 16),
    aware_scenes=0,
    overview_victims=None,
    white=("PGD-50 untargeted", "AutoAttack standard"),
    transfer=("MI-FGSM", "DIM", "DIM-TI", "SSP"),
    ssp_iterations=100,
    fff_iterations=0,
    heavy_eps=(),
    outsider=None,
    paper_tables=False,
    eot_eps=(4,),
    transfer_eps=(16,),
    table="purifier",
)
SUITES: Mapping[str, Sizes] = MappingProxyType({"quick": QUICK, "paper": PAPER, "purifier": PURIFIER})
