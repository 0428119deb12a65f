"""The generator that perturbs any image in one pass, as CDA trains it.

Layout: the image transformation network of Johnson et al. ("Perceptual losses for real-time style transfer", ECCV
2016), which Poursaeed et al. ("Generative adversarial perturbations", CVPR 2018) and Naseer et al. ("Cross-domain
transferability of adversarial perturbations", NeurIPS 2019) took up to make perturbations.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

MULTIPLE = 4
SMALLEST = 8


def convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """A convolution on a reflected border, batch norm and ReLU."""
    return nn.Sequential(
        nn.ReflectionPad2d(kernel // 2),
        nn.Conv2d(inputs, outputs, kernel, stride, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def doubling(inputs: int, outputs: int) -> nn.Sequential:
    """A transposed convolution to twice the resolution, batch norm and ReLU."""
    return nn.Sequential(
        nn.ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1, output_padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch norm around an identity, no ReLU after the sum."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *convolution(features, features, 3),
            nn.ReflectionPad2d(1),
            nn.Conv2d(features, features, 3, bias=False),
            nn.BatchNorm2d(features),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.body(x)
        return out


class PerturbationGenerator(nn.Module):
    """NCHW in [0,1], any size from 1x1, to the same shape in [0,1]; the caller keeps it within a budget.

    A 7x7 convolution, two that halve the resolution, ``blocks`` residual blocks, two that double it and a 7x7
    convolution, whose tanh is mapped to [0,1]. ``width`` is the features at full resolution, four times that at the
    bottom; the papers use 64, and six or nine blocks. Batch norm, not the image's own statistics: once trained, an
    image's answer does not depend on its neighbours, nor a crop's on the rest.
    """

    def __init__(self, width: int = 32, blocks: int = 3) -> None:
        super().__init__()
        self.down = nn.Sequential(
            convolution(3, width, 7), convolution(width, 2 * width, 3, 2), convolution(2 * width, 4 * width, 3, 2)
        )
        self.blocks = nn.Sequential(*(ResidualBlock(4 * width) for _ in range(blocks)))
        self.up = nn.Sequential(doubling(4 * width, 2 * width), doubling(2 * width, width))
        self.last = nn.Sequential(nn.ReflectionPad2d(3), nn.Conv2d(width, 3, 7))

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        bottom, right = (max(SMALLEST, -(-side // MULTIPLE) * MULTIPLE) - side for side in (height, width))
        # Replicated, not reflected: reflection needs more pixels than a 1x1 image has.
        padded = F.pad(images, (0, right, 0, bottom), mode="replicate") if bottom or right else images
        answer: Tensor = self.last(self.up(self.blocks(self.down(padded - 0.5))))
        # In the images' own precision: half of it could not tell one level of 8 bits from the next.
        return 0.5 + 0.5 * answer[..., :height, :width].to(images.dtype).tanh()
