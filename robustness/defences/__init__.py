"""Defences: image transformations that stand between an upload and a model.

Each maps NCHW float32 in [0,1] to the same shape and range. The baselines are those of the NRP paper's tables:
JPEG, total variation minimisation (Guo et al., ICLR 2018) and a median filter (Xu et al., NDSS 2018); with them, the
same authors' reduction of the bit depth.
"""

from __future__ import annotations

from robustness.defences.bit_depth import BitDepth
from robustness.defences.defence import Defence, NoDefence, Role
from robustness.defences.jpeg import Jpeg
from robustness.defences.median import Median
from robustness.defences.purification import Purification
from robustness.defences.total_variation import TotalVariation

BASELINES: tuple[Defence, ...] = (
    Jpeg(75),
    Jpeg(50),
    Jpeg(20),
    TotalVariation(30),
    TotalVariation(10),
    Median(),
    BitDepth(4),
)

__all__ = [
    "BASELINES",
    "BitDepth",
    "Defence",
    "Jpeg",
    "Median",
    "NoDefence",
    "Purification",
    "Role",
    "TotalVariation",
]
