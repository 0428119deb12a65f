"""Scenes: whole pictures of any size as segmenters and detectors take them, and torchvision's networks in one form.

A classifier sees a crop of fixed size; of a scene nothing may be cut away. It is scaled, as a whole, to about the size
that the network was trained at, and what the network finds is scaled back by the caller.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from model_store.card import Card
from model_store.errors import InvalidCardError
from model_store.pixels import LONGEST_ASPECT

# A side that scaling would leave thinner than this is stretched to it: networks halve their maps several times.
LEAST_SIDE = 16
# torchvision's detectors bring the longer side to at most 1333 pixels; a longer sliver would lose its short side there.
SLIVER_ASPECT = 16
SLIVER_LENGTH = 1333
# What they bring an image to at the most, whatever its size: 800 by 1333 pixels.
DETECTOR_PIXELS = 800 * SLIVER_LENGTH


@dataclass(frozen=True)
class SceneScale:
    """What size a scene is brought to.

    ``exact`` (height, width): to this, whatever its shape. Else ``short_side``: its shorter side to that many pixels
    and the longer in proportion, up to four times as long. Both None: left as it is (the network scales by itself),
    except for slivers.
    """

    short_side: int | None = None
    exact: tuple[int, int] | None = None

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width that a scene of ``height`` and ``width`` is brought to; bounded unless both are None."""
        if self.exact is not None:
            return self.exact
        short, long = min(height, width), max(height, width)
        if self.short_side is not None:
            scale = min(self.short_side / short, LONGEST_ASPECT * self.short_side / long)
            least = min(LEAST_SIDE, self.short_side)
        elif long > SLIVER_ASPECT * short:
            scale, least = min(1.0, SLIVER_LENGTH / long), -(-SLIVER_LENGTH // SLIVER_ASPECT)
        else:
            return height, width
        return max(least, round(height * scale)), max(least, round(width * scale))

    def pixels(self, height: int, width: int) -> int:
        """Pixels that the network works on for a scene of ``height`` and ``width``, at the most."""
        seen_height, seen_width = self.size(height, width)
        scales_itself = self.short_side is None and self.exact is None
        return max(seen_height * seen_width, DETECTOR_PIXELS if scales_itself else 0)

    def __call__(self, images: Tensor) -> Tensor:
        """Scenes (N, 3, H, W) in [0,1], resampled bilinearly with antialiasing."""
        height, width = images.shape[-2:]
        size = self.size(height, width)
        if size == (height, width):
            return images
        return F.interpolate(images, size=size, mode="bilinear", antialias=True)


class Masks(nn.Module):
    """A torchvision segmenter as logits (N, classes, H, W): its main output alone, at the images' size."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.network(images)["out"]
        return out


class Boxes(nn.Module):
    """A torchvision detector on images (N, 3, H, W) in [0,1] of one size; it normalises and resizes inside.

    Boxes are x1 y1 x2 y2 in pixels of those images.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
        """Boxes (K, 4), scores (K,) and labels (K,) of each image, best first."""
        found: list[dict[str, Tensor]] = self.network(list(images))
        return found


def trained_size(card: Card) -> tuple[int, int]:
    """Height and width that a segmenter or detector was trained at. Raises InvalidCardError where its card has none."""
    size = card.recipe.get("size")
    if not (isinstance(size, list | tuple) and len(size) == 2 and all(isinstance(s, int) and s > 0 for s in size)):
        raise InvalidCardError(
            f"the card of {card.name} has no height and width in recipe.size; add what it was trained at"
        )
    return size[0], size[1]


def scene_scale(card: Card) -> SceneScale:
    """The scale that a card asks for: ``input.short_side``, else the shorter side of what it was trained at."""
    return SceneScale(short_side=card.input.short_side or min(trained_size(card)))
