"""JPEG in torch: what a codec does to an image, on any device and with a gradient.

The baseline codec of Pillow's default (libjpeg: YCbCr, chroma at half resolution, 8x8 DCT, the standard's tables scaled
by quality, smooth upsampling), but for its entropy coding, which loses nothing. Rounding passes the gradient straight
through, so an attacker, and a training, can see past it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

Rounding = Callable[[Tensor], Tensor]

BLOCK = 8
CENTRE = 128
MULTIPLE = 2 * BLOCK  # chroma is halved before it is cut into blocks

# ITU-T T.81, Annex K: quantisation of luminance and of chrominance, row by row.
LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
CHROMINANCE = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99, 99, 99, 99, 99, 99, 99, 99),) * 4,
)
TO_YCBCR = ((0.299, 0.587, 0.114), (-0.168735892, -0.331264108, 0.5), (0.5, -0.418687589, -0.081312411))
TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136286, -0.714136286), (1.0, 1.772, 0.0))


def jpeg(images: Tensor, quality: Tensor, quantised: Rounding | None = None) -> Tensor:
    """Images (N, 3, H, W) in [0,1] as they come back from JPEG at ``quality`` (N,), 1 to 100: 8 bits a channel.

    ``quantised`` rounds the coefficients, ``rounded`` if None: another must give the same values, with a gradient of
    its own.
    """
    quantised = quantised or rounded
    height, width = images.shape[-2:]
    bottom, right = -height % MULTIPLE, -width % MULTIPLE
    with torch.autocast(images.device.type, enabled=False):  # half of the precision would be a quantisation of its own
        levels = rounded(images.float().clamp(0, 1) * 255)
        padded = F.pad(levels, (0, right, 0, bottom), mode="replicate") if bottom or right else levels
        ycbcr = rounded(_mixed(padded, TO_YCBCR))
        luma = _quantised(ycbcr[:, :1] - CENTRE, quality_tables(quality.to(images.device), LUMINANCE), quantised)
        halved = rounded(F.avg_pool2d(ycbcr[:, 1:], 2))
        chroma = _quantised(halved, quality_tables(quality.to(images.device), CHROMINANCE), quantised)
        whole = F.interpolate(chroma, scale_factor=2, mode="bilinear", align_corners=False)
        decoded = rounded(_mixed(torch.cat((luma + CENTRE, whole), dim=1), TO_RGB))[..., :height, :width]
    return decoded.clamp(0, 255) / 255


def rounded(values: Tensor) -> Tensor:
    """Whole numbers, with the gradient of ``values``."""
    return values + (values.round() - values).detach()


def softly_rounded(values: Tensor) -> Tensor:
    """Whole numbers, with the gradient of a cubic that joins them (Shin & Song, 2017): flat at them, steep between.

    An attacker who follows it spends nothing on coefficients that the quantisation would drop again.
    """
    whole = values.round().detach()
    curve = whole + (values - whole) ** 3
    return whole + (curve - curve.detach())


def quality_tables(quality: Tensor, table: tuple[tuple[int, ...], ...]) -> Tensor:
    """``table`` (8, 8) for each ``quality`` (N,): (N, 8, 8), whole numbers from 1 to 255, scaled as libjpeg does."""
    percent = torch.where(quality < 50, 5000 // quality, 200 - 2 * quality).view(-1, 1, 1)
    base = torch.tensor(table, device=quality.device)
    return ((base * percent + 50) // 100).clamp(1, 255).float()


def _mixed(images: Tensor, matrix: tuple[tuple[float, ...], ...]) -> Tensor:
    return torch.einsum("ij,njhw->nihw", images.new_tensor(matrix), images)


def _quantised(planes: Tensor, tables: Tensor, quantised: Rounding) -> Tensor:
    """``planes`` (N, C, H, W), H and W multiples of 8, values around 0: DCT, ``tables`` (N, 8, 8), and back."""
    count, channels, height, width = planes.shape
    grid = (count, channels, height // BLOCK, BLOCK, width // BLOCK, BLOCK)
    blocks = planes.reshape(grid).transpose(3, 4).flatten(-2)
    # Both directions at once: one large product takes less time than two of 8x8 for each block.
    basis = torch.kron(_cosines(planes), _cosines(planes))
    steps = tables.view(count, 1, 1, 1, BLOCK**2)
    kept = quantised(blocks @ basis.T / steps) * steps
    back = (kept @ basis).view(*blocks.shape[:-1], BLOCK, BLOCK).transpose(3, 4)
    return rounded(back).reshape(planes.shape)


def _cosines(like: Tensor) -> Tensor:
    """The orthonormal DCT-II (8, 8), a frequency a row."""
    places = torch.arange(BLOCK, device=like.device, dtype=torch.float32)
    waves = torch.cos(math.pi / BLOCK * (places + 0.5) * places.view(-1, 1)) * math.sqrt(2 / BLOCK)
    return torch.cat((waves[:1] / math.sqrt(2), waves[1:]))
