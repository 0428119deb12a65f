"""The two networks of the NRP authors, with their parameter names, shapes and forward pass.

Source: Naseer et al., "A Self-supervised Approach for Adversarial Robustness", CVPR 2020, and the weights
the authors distribute. Both map [0,1] RGB to an unclamped image of the same size, without a global skip.
The trunk of ``NRP`` is ESRGAN's (Wang et al., 2018): residual-in-residual dense blocks scaled by 0.2.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

RESIDUAL_SCALE = 0.2
DENSE_LEAK, FIRST_LEAK = 0.2, 0.1
# Pixels beyond which an image's content no longer shows in an output value. A purifier's ``reach`` is this, or how far
# its convolutions can see at all where that is less. Measured on images cut in two: at this distance from the cut the
# shipped nrp-lite, which could see 220 pixels, differs by at most 0.14/255 (black and white noise; photos: 0.03/255).
FELT = 64


def conv3x3(inputs: int, outputs: int) -> nn.Conv2d:
    """A size-preserving 3x3 convolution with bias."""
    return nn.Conv2d(inputs, outputs, 3, padding=1)


class DenseBlock(nn.Module):
    """Five densely connected convolutions, ``features`` in and out, each of the first four adding ``growth``."""

    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(features, growth)
        self.conv2 = conv3x3(features + growth, growth)
        self.conv3 = conv3x3(features + 2 * growth, growth)
        self.conv4 = conv3x3(features + 3 * growth, growth)
        self.conv5 = conv3x3(features + 4 * growth, features)

    def forward(self, x: Tensor) -> Tensor:
        seen = x
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            seen = torch.cat((seen, F.leaky_relu(conv(seen), DENSE_LEAK)), dim=1)
        out: Tensor = x + RESIDUAL_SCALE * self.conv5(seen)
        return out


class RRDB(nn.Module):
    """Three dense blocks inside one more scaled residual."""

    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        self.RDB1 = DenseBlock(features, growth)
        self.RDB2 = DenseBlock(features, growth)
        self.RDB3 = DenseBlock(features, growth)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + RESIDUAL_SCALE * self.RDB3(self.RDB2(self.RDB1(x)))
        return out


class NRP(nn.Module):
    """The published purifier. NCHW in [0,1] to the same shape, unclamped; 16.55 M parameters at 23 blocks."""

    def __init__(self, blocks: int = 23, features: int = 64, growth: int = 32) -> None:
        super().__init__()
        self.reach = min(15 * blocks + 2, FELT)
        self.conv_first = conv3x3(3, features)
        self.RRDB_trunk = nn.Sequential(*(RRDB(features, growth) for _ in range(blocks)))
        self.trunk_conv = conv3x3(features, 3)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.trunk_conv(self.RRDB_trunk(self.conv_first(images)))
        return out


class PlainResidual(nn.Module):
    """conv - ReLU - conv around an identity, no normalisation."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(features, features)
        self.conv2 = conv3x3(features, features)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.conv2(F.relu(self.conv1(x)))
        return out


class NRPResG(nn.Module):
    """The published light purifier. NCHW in [0,1] to the same shape, unclamped; 1.70 M parameters at 23 blocks."""

    def __init__(self, blocks: int = 23, features: int = 64) -> None:
        super().__init__()
        self.reach = min(2 * blocks + 2, FELT)
        self.conv_first = conv3x3(3, features)
        self.recon_trunk = nn.Sequential(*(PlainResidual(features) for _ in range(blocks)))
        self.conv_last = conv3x3(features, 3)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.conv_last(self.recon_trunk(F.leaky_relu(self.conv_first(images), FIRST_LEAK)))
        return out
