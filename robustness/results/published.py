"""The published figures: tables 1 to 7 of the NRP paper's supplement, in percent, and what its figures show.

Naseer, Khan, Hayat, Khan and Porikli, "A Self-supervised Approach for Adversarial Robustness", CVPR 2020. The copy at
hand is a scan: a figure whose digits or decimal point had to be guessed is marked approximate, and shown with "~".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from robustness.results.costs import CostLine


@dataclass(frozen=True)
class PublishedFigure:
    """``percent``, plus or minus ``spread`` where the paper gives one."""

    percent: float
    approximate: bool = False
    spread: float | None = None

    def __str__(self) -> str:
        spread = "" if self.spread is None else f" ± {self.spread:.1f}"
        digits = f"{self.percent:.2f}".removesuffix("0")
        return f"{'~' if self.approximate else ''}{digits}{spread}"


@dataclass(frozen=True)
class PublishedTable:
    """``setting`` is the models and data that the paper measured; ``lines`` hold one figure a column."""

    metric: str
    setting: str
    columns: tuple[str, ...]
    lines: Mapping[str, tuple[PublishedFigure, ...]]

    def at(self, line: str, column: str) -> PublishedFigure | None:
        """The figure in a cell, None where the paper has no such line or column."""
        if line not in self.lines or column not in self.columns:
            return None
        return self.lines[line][self.columns.index(column)]


def _line(*percents: float | PublishedFigure) -> tuple[PublishedFigure, ...]:
    return tuple(p if isinstance(p, PublishedFigure) else PublishedFigure(p) for p in percents)


def _about(percent: float, spread: float | None = None) -> PublishedFigure:
    return PublishedFigure(percent, approximate=True, spread=spread)


T1 = PublishedTable(
    metric="accuracy",
    setting="ResNet-152 on the 50 000 photos of the ImageNet validation set",
    columns=("clean", "PGD-10 targeted"),
    lines=MappingProxyType(
        {
            "Original": _line(78.31, 0.66),
            "Feature Denoising": _line(65.3, 55.7),
            "NRP": _line(_about(73.5, 1.5), _about(63.0, 2.0)),
        }
    ),
)

T2 = (
    CostLine("Feature Denoising (adversarial training)", 128, 52, "GPUs", needs_labels=True, dataset_specific=True),
    CostLine("NRP", 4, 28, "GPUs", needs_labels=False, dataset_specific=False),
)

T3 = PublishedTable(
    metric="accuracy",
    setting="ImageNet classifiers on the ImageNet-NeurIPS photos, eps 16",
    columns=("Inc-v3", "Inc-v4", "Res-152", "IncRes-v2", "Adv-v3", "IncRes-v2ens"),
    lines=MappingProxyType(
        {
            "FSA": _line(60.4, 64.2, 68.8, 71.0, 72.2, 88.6),
            "SSP": _line(_about(5.3), _about(5.9), _about(16.5), _about(14.1), 25.9, 58.0),
        }
    ),
)

T4 = PublishedTable(
    metric="mAP@0.5",
    setting="Mask-RCNN on the MS-COCO validation set",
    columns=("8", "16"),
    lines=MappingProxyType(
        {
            "CDA-ImageNet": _line(35.2, 8.1),
            "CDA-Comics": _line(40.5, 16.8),
            "CDA-Paintings": _line(41.7, 14.8),
            "SSP": _line(31.8, 9.7),
        }
    ),
)

T5 = PublishedTable(
    metric="accuracy",
    setting="ImageNet classifiers on the ImageNet-NeurIPS photos, no attack",
    columns=("Inc-v3", "Inc-v4", "Res-152", "IncRes-v2", "VGG-19", "Adv-v3", "Inc-v3ens3", "IncRes-v2ens"),
    lines=MappingProxyType(
        {
            "top-1": _line(95.3, 97.7, 96.1, 100.0, 85.5, 95.1, 93.9, 97.8),
            "top-5": _line(99.8, 99.8, 99.9, 100.0, 96.7, 99.4, 98.1, 99.8),
        }
    ),
)

# The defences of tables 6 and 7 under the names they have here; "JPEG (quality=75)" is JPEG 75, and so on.
T6 = PublishedTable(
    metric="pixel accuracy",
    setting="SegNet-Basic on the CamVid test set",
    columns=("clean", "SSP 8", "SSP 16"),
    lines=MappingProxyType(
        {
            "none": _line(79.70, 52.48, 32.59),
            "JPEG 75": _line(77.25, 51.76, 32.44),
            "JPEG 50": _line(75.27, 52.45, 33.16),
            "JPEG 20": _line(68.82, 53.08, 35.54),
            "TV 30": _line(73.70, 55.54, 34.21),
            "TV 10": _line(70.38, 59.52, 34.57),
            "median 3x3": _line(75.65, 49.18, 30.52),
        }
    ),
)

T7 = PublishedTable(
    metric="mAP@0.5",
    setting="RetinaNet on the MS-COCO validation set",
    columns=("clean", "SSP 8", "SSP 16"),
    lines=MappingProxyType(
        {
            "none": _line(53.78, 22.75, 5.16),
            "JPEG 75": _line(49.57, 20.73, _about(4.7)),
            "JPEG 50": _line(46.36, 19.89, 4.33),
            "JPEG 20": _line(40.04, 19.13, 4.58),
            "TV 30": _line(47.06, 27.63, 6.36),
            "TV 10": _line(42.79, 32.21, 9.56),
            "median 3x3": _line(43.48, 19.59, 5.05),
        }
    ),
)

PUBLISHED: Mapping[str, PublishedTable] = MappingProxyType({"T1": T1, "T3": T3, "T4": T4, "T5": T5, "T6": T6, "T7": T7})


@dataclass(frozen=True)
class PublishedPurifier:
    """Another purifier's figures as published: accuracy in % on ImageNet, ``clean`` and ``attacked``.

    ``attacked`` is AutoAttack's at 4/255 by someone who does not know the purifier. ``milliseconds`` are those that the
    source gives, None where it gives none; ``architecture`` is the network of this project that is the same.
    """

    name: str
    clean: float
    attacked: float
    setting: str
    milliseconds: float | None = None
    architecture: str = ""


PURIFIERS: tuple[PublishedPurifier, ...] = (
    PublishedPurifier(
        "DiffPure",
        68.3,
        68.0,
        "ResNet-50, 5 s an image on an A100; an attacker with the exact gradient leaves 40.9 %, DiffAttack 28.1 %",
        milliseconds=5000,
    ),
    PublishedPurifier(
        "DISCO", 72.6, 67.9, "ResNet-50, from its own logs, no time given; an attacker through all of it leaves nothing"
    ),
    PublishedPurifier(
        "NRP",
        72.5,
        20.4,
        "ResNet-50, as IRAD (tables 2 and 3) measured it, at our time of the same network; BPDA leaves 0.02 %",
        architecture="nrp",
    ),
)

# What each figure of the supplement shows, in our words.
FIGURES: Mapping[int, str] = MappingProxyType(
    {
        1: "Fooling rate against the attacked feature layer: VGG-16 and ResNet-50, trained naturally, and ResNet-50 "
        "trained adversarially; transferred to IncRes-v2.",
        2: "Adversaries that SSP finds in the feature spaces of different networks, eps 16.",
        3: "t-SNE of the logits and of the Block3-Conv3 features of VGG-16, random ImageNet classes.",
        4: "What SegNet-Basic sees in clean images and in their SSP adversaries, eps 16.",
        5: "What RetinaNet detects in clean images and in their SSP adversaries.",
        6: "Accuracy of Inc-v3 against the iterations of several attacks made on VGG-16.",
        7: "SSP adversaries made on an adversarially trained ResNet-50, eps 16, and what NRP makes of them.",
        8: "DIM and translation-invariant adversaries of an ensemble, eps 16, and what NRP makes of them.",
        9: "CDA adversaries (ImageNet and Paintings), and what NRP makes of them.",
    }
)
