"""How much the suite `quick` measures: a smoke test of five minutes, not figures to publish."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """``eps`` in /255. ``photos`` are judged against unaware attackers, the first ``aware_photos`` of them against
    those who know the purifier; ``scenes`` and ``aware_scenes`` are the same for segmentation and detection,
    at ``scene_eps``. ``white`` and ``transfer`` are keys of the registry of attacks, ``fff_iterations`` those of FFF.
    """

    eps: tuple[int, ...]
    photos: int
    aware_photos: int
    aware_eps: tuple[int, ...]
    aware_steps: int
    scenes: int
    scene_eps: tuple[int, ...]
    aware_scenes: int
    white: tuple[str, ...]
    transfer: tuple[str, ...]
    ssp_iterations: int
    fff_iterations: int = 0


QUICK = Sizes(
    eps=(2, 4, 8, 16),
    photos=10,
    aware_photos=10,
    aware_eps=(8,),
    aware_steps=20,
    scenes=4,
    scene_eps=(16,),
    aware_scenes=2,
    white=("DIM",),
    transfer=("DIM", "SSP"),
    ssp_iterations=10,
)
