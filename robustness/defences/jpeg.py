"""JPEG compression (Dziugaite et al., 2016; Guo et al., ICLR 2018)."""

from __future__ import annotations

import io
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from model_store.pixels import bytes_to_image, image_to_bytes, to_bytes, to_float
from robustness.defences.defence import Defence


@dataclass(frozen=True)
class Jpeg(Defence):
    """JPEG compression by Pillow at ``quality`` (1-95), with Pillow's default chroma subsampling (4:2:0)."""

    quality: int

    @property
    def name(self) -> str:
        """What tables call it."""
        return f"JPEG {self.quality}"

    @property
    def differentiable(self) -> bool:
        """The codec works on bytes; no gradient passes."""
        return False

    def __call__(self, images: Tensor) -> Tensor:
        """Images compressed and decoded one by one, of 8 bits a channel."""
        return torch.stack([to_float(self._recompress(image)) for image in to_bytes(images)]).to(images.device)

    def _recompress(self, pixels: Tensor) -> Tensor:
        buffer = io.BytesIO()
        bytes_to_image(pixels).save(buffer, "JPEG", quality=self.quality)
        with Image.open(buffer) as image:
            return image_to_bytes(image)
