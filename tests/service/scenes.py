"""Scene networks whose answers can be worked out by hand, and an engine that has them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from model_store.scenes import SceneScale
from service.downstream import Detector, Segmenter
from service.downstreams import Downstreams
from service.engine import Engine
from service.settings import Settings

SIDE = 24
SHADES = ("black", "grey", "white")
LEVELS = torch.tensor([0.0, 0.5, 1.0])


class Shades(nn.Module):
    """Three logits a pixel: how near its mean is to black, grey and white."""

    def forward(self, images: Tensor) -> Any:
        return -20 * (images.mean(dim=1, keepdim=True) - LEVELS.view(1, 3, 1, 1)).abs()


class BrightSpots(nn.Module):
    """The box around the pixels above one half, twice: with score 0.9 as label 1, with score 0.3 as label 0."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, ...]] = []

    def forward(self, images: Tensor) -> Any:
        self.seen.append(tuple(images.shape))
        return [self._one(image) for image in images]

    def _one(self, image: Tensor) -> dict[str, Tensor]:
        rows, columns = torch.nonzero(image.mean(dim=0) > 0.5, as_tuple=True)
        if not len(rows):
            return {"boxes": torch.zeros(0, 4), "scores": torch.zeros(0), "labels": torch.zeros(0, dtype=torch.int64)}
        box = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]).float()
        return {
            "boxes": torch.stack([box, box]),
            "scores": torch.tensor([0.3, 0.9]),
            "labels": torch.tensor([0, 1]),
        }


class SceneEngine(Engine):
    """An engine with ``BrightSpots`` and ``Shades``, both trained, so to say, at a short side of 24 pixels."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, tasks=())
        self.spots = BrightSpots()
        scale = SceneScale(short_side=SIDE)
        self.downstreams = Downstreams(
            {
                "segmenter": Segmenter("shades", SHADES, "", Shades(), False, scale),
                "detector": Detector("spots", ("faint", "bright"), "", self.spots, False, scale),
            },
            self.device,
            self.precision,
        )


class Blackout(nn.Module):
    """A purifier that leaves nothing."""

    def forward(self, images: Tensor) -> Any:
        return torch.zeros_like(images)
