"""A victim with attention: convolutional stages, then a transformer on what they leave."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import BasicBlock

from model_store.architectures.normalise import Normalise

GRID = 8


class ConvAttention(nn.Module):
    """Convolution first, attention last, as in CoAtNet (Dai et al., 2021). NCHW in [0,1] to logits (N, classes).

    Residual blocks bring the image to a sixteenth of its resolution; ``depth`` pre-norm transformer layers then see
    all of it at once. Position embeddings are learnt on an 8x8 grid (128 px) and interpolated for other sizes.
    """

    def __init__(
        self, classes: int, widths: Sequence[int] = (48, 96, 192), depth: int = 4, heads: int = 6, expansion: int = 3
    ) -> None:
        super().__init__()
        self.normalise = Normalise()
        self.stem = nn.Sequential(
            nn.Conv2d(3, widths[0], 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(inplace=True),
        )
        blocks: list[nn.Module] = []
        inputs = widths[0]
        for width in widths:
            shortcut = nn.Sequential(nn.Conv2d(inputs, width, 1, 2, bias=False), nn.BatchNorm2d(width))
            blocks += [BasicBlock(inputs, width, 2, shortcut)]
            inputs = width
        self.blocks = nn.Sequential(*blocks)
        self.positions = nn.Parameter(torch.zeros(1, inputs, GRID, GRID))
        nn.init.trunc_normal_(self.positions, std=0.02)
        layer = nn.TransformerEncoderLayer(
            inputs, heads, expansion * inputs, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.attention = nn.TransformerEncoder(layer, depth, norm=nn.LayerNorm(inputs), enable_nested_tensor=False)
        self.head = nn.Linear(inputs, classes)

    def forward(self, images: Tensor) -> Tensor:
        features = self.blocks(self.stem(self.normalise(images)))
        grid = F.interpolate(self.positions, features.shape[-2:], mode="bilinear", align_corners=False)
        tokens = self.attention((features + grid).flatten(2).transpose(1, 2))
        out: Tensor = self.head(tokens.mean(dim=1))
        return out
