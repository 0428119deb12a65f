"""Defences: image transformations that stand between an upload and a classifier.

Each maps NCHW float32 in [0,1] to the same shape and range. The baselines are those of the NRP paper's tables:
JPEG, total variation minimisation (Guo et al., ICLR 2018) and a median filter (Xu et al., NDSS 2018).
"""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from PIL import Image
from skimage.restoration import denoise_tv_bregman
from torch import Tensor
from torch.nn import functional as F

from model_store.inference import InferenceMode, PurifierDraws
from model_store.pixels import bytes_to_image, image_to_bytes, to_bytes, to_float

Role = Literal["none", "baseline", "purifier"]


class Defence(ABC):
    """Same shape out as in. ``draws`` tells randomised defences apart from nothing else: most have one draw."""

    @property
    def role(self) -> Role:
        """Its part in a comparison."""
        return "baseline"

    @property
    def draw_count(self) -> int:
        """How many versions of an image ``draws`` gives."""
        return 1

    @property
    @abstractmethod
    def name(self) -> str:
        """What tables and cards call it."""

    @abstractmethod
    def __call__(self, images: Tensor) -> Tensor:
        """Defended images, same shape, in [0,1]."""

    def draws(self, images: Tensor, seeds: Sequence[int]) -> Tensor:
        """Defended versions (N, ``draw_count``, C, H, W), image i's randomness from ``seeds[i]`` alone."""
        del seeds
        return self(images).unsqueeze(1)


@dataclass(frozen=True)
class NoDefence(Defence):
    """The image as it is."""

    @property
    def role(self) -> Role:
        """The row that others are compared with."""
        return "none"

    @property
    def name(self) -> str:
        """What tables call it."""
        return "none"

    def __call__(self, images: Tensor) -> Tensor:
        """The images themselves."""
        return images


@dataclass(frozen=True)
class Jpeg(Defence):
    """JPEG compression by Pillow at ``quality`` (1-95), with Pillow's default chroma subsampling (4:2:0)."""

    quality: int

    @property
    def name(self) -> str:
        """What tables call it."""
        return f"JPEG {self.quality}"

    def __call__(self, images: Tensor) -> Tensor:
        """Images compressed and decoded one by one, of 8 bits a channel."""
        return torch.stack([to_float(self._recompress(image)) for image in to_bytes(images)]).to(images.device)

    def _recompress(self, pixels: Tensor) -> Tensor:
        buffer = io.BytesIO()
        bytes_to_image(pixels).save(buffer, "JPEG", quality=self.quality)
        with Image.open(buffer) as image:
            return image_to_bytes(image)


@dataclass(frozen=True)
class TotalVariation(Defence):
    """Total variation minimisation by split Bregman (scikit-image); a smaller ``weight`` smooths more."""

    weight: float

    @property
    def name(self) -> str:
        """What tables call it."""
        return f"TV {self.weight:g}"

    def __call__(self, images: Tensor) -> Tensor:
        """Smoothed images, the channels taken together."""
        arrays = images.detach().cpu().permute(0, 2, 3, 1).numpy()
        smooth = [torch.as_tensor(denoise_tv_bregman(a, weight=self.weight, channel_axis=-1)) for a in arrays]
        return torch.stack(smooth).permute(0, 3, 1, 2).to(images).clamp(0, 1)


@dataclass(frozen=True)
class Median(Defence):
    """A ``window`` x ``window`` median filter on each channel, the border pixels repeated outwards."""

    window: int = 3

    @property
    def name(self) -> str:
        """What tables call it."""
        return f"median {self.window}x{self.window}"

    def __call__(self, images: Tensor) -> Tensor:
        """Filtered images."""
        padded = F.pad(images, (self.window // 2,) * 4, mode="replicate")
        windows = padded.unfold(2, self.window, 1).unfold(3, self.window, 1)
        return windows.flatten(4).median(dim=-1).values


@dataclass(frozen=True)
class Purification(Defence):
    """A purifier in one named mode. ``weights`` (sha256) and ``mode`` are its identity in a cache."""

    mode_name: str
    mode: InferenceMode
    weights: str
    module: PurifierDraws = field(repr=False)

    @property
    def role(self) -> Role:
        """The row that is measured."""
        return "purifier"

    @property
    def name(self) -> str:
        """What tables call it."""
        return f"purifier {self.mode_name}"

    @property
    def draw_count(self) -> int:
        """How many noisy copies of an image are purified."""
        return self.mode.draws

    def __call__(self, images: Tensor) -> Tensor:
        """The mean over draws, image i seeded with i."""
        return self.draws(images, range(len(images))).mean(dim=1)

    def with_draws(self, count: int) -> Purification:
        """The same purifier and noise with another number of draws."""
        mode = self.mode.model_copy(update={"draws": count})
        return replace(self, mode=mode, module=PurifierDraws(self.module.purifier, mode))

    def draws(self, images: Tensor, seeds: Sequence[int]) -> Tensor:
        """Purified versions (N, D, C, H, W)."""
        return self.module.draws(images, seeds)


BASELINES: tuple[Defence, ...] = (
    Jpeg(75),
    Jpeg(50),
    Jpeg(20),
    TotalVariation(30),
    TotalVariation(10),
    Median(),
)
