"""The shipped classifier: torchvision's ResNet with basic blocks, made narrow."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from model_store.architectures.normalise import Normalise


class ResNetSmall(nn.Module):
    """ResNet (He et al., 2016) with free stage widths. NCHW in [0,1] to logits (N, classes).

    The stem is a 3x3 stride-2 convolution and a 3x3 stride-2 pool, so the first stage runs at a quarter of the
    input's resolution, as in the original; small inputs lose less to the 3x3 stem than to the original's 7x7.
    """

    def __init__(self, classes: int, widths: Sequence[int] = (48, 96, 192, 320), blocks: int = 2) -> None:
        super().__init__()
        self.normalise = Normalise()
        self.stem = nn.Sequential(
            nn.Conv2d(3, widths[0], 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        stages: list[nn.Module] = []
        inputs = widths[0]
        for index, width in enumerate(widths):
            stages.append(self._stage(inputs, width, blocks, stride=1 if index == 0 else 2))
            inputs = width
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(inputs, classes)

    @staticmethod
    def _stage(inputs: int, width: int, blocks: int, stride: int) -> nn.Sequential:
        shortcut = None
        if stride != 1 or inputs != width:
            shortcut = nn.Sequential(nn.Conv2d(inputs, width, 1, stride, bias=False), nn.BatchNorm2d(width))
        first = BasicBlock(inputs, width, stride, shortcut)
        return nn.Sequential(first, *(BasicBlock(width, width) for _ in range(blocks - 1)))

    def forward(self, images: Tensor) -> Tensor:
        features = self.stages(self.stem(self.normalise(images)))
        out: Tensor = self.head(torch.mean(features, dim=(2, 3)))
        return out
