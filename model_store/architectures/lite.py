"""The project's own purifier: a small U-Net on pixel-unshuffled input.

What heavy noise destroys can only be rebuilt from a wide view, so most of the work happens at a quarter and an
eighth of the resolution, where it is also cheap. No normalisation layers: an image's answer must not depend on
its own statistics at one size and another's at the next, and element-wise passes are what a CPU is slow at.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model_store.architectures.published import FELT, PlainResidual, conv3x3


def residuals(features: int, count: int) -> nn.Sequential:
    """``count`` residual blocks at one resolution."""
    return nn.Sequential(*(PlainResidual(features) for _ in range(count)))


class NrpLite(nn.Module):
    """U-Net purifier. NCHW in [0,1], any size from 1x1, to the same shape, unclamped.

    ``widths`` are the features at each resolution, the first at 1/``unshuffle`` of the input's and each next at
    half of the one before; ``encoder`` and ``decoder`` count the residual blocks there (the last entry of
    ``encoder`` is the bottom; ``decoder`` has one entry fewer).

    The skip around the network is learned: for each value it predicts a gate and a reconstruction and returns
    gate x input + (1 - gate) x mid-grey + reconstruction. A plain skip must carry heavy noise through the whole
    network to subtract it exactly; a gate can shut it out and still pass a clean image untouched.

    ``multiple``: the cells of the coarsest level, in pixels; ``reach``: see ``published.FELT``.
    """

    def __init__(
        self,
        widths: Sequence[int] = (32, 80, 144, 224),
        encoder: Sequence[int] = (1, 2, 2, 3),
        decoder: Sequence[int] = (1, 2, 2),
        unshuffle: int = 2,
    ) -> None:
        super().__init__()
        if not len(widths) == len(encoder) == len(decoder) + 1:
            raise TypeError("widths and encoder need one entry a level, decoder one fewer")
        self.unshuffle = unshuffle
        self.multiple: int = unshuffle << (len(widths) - 1)
        self.reach = min(self._farthest(encoder, decoder), FELT)
        self.head = conv3x3(3 * unshuffle**2, widths[0])
        self.down = nn.ModuleList(residuals(width, count) for width, count in zip(widths, encoder, strict=True))
        self.shrink = nn.ModuleList(nn.Conv2d(fine, coarse, 2, stride=2) for fine, coarse in pairwise(widths))
        self.grow = nn.ModuleList(nn.ConvTranspose2d(coarse, fine, 2, stride=2) for fine, coarse in pairwise(widths))
        self.up = nn.ModuleList(residuals(width, count) for width, count in zip(widths, decoder, strict=False))
        self.tail = conv3x3(widths[0], 6 * unshuffle**2)
        self._calm()

    def _calm(self) -> None:
        """Start as a half-open skip with quiet residuals, so that depth without normalisation trains."""
        for module in self.modules():
            if isinstance(module, PlainResidual):
                nn.init.kaiming_normal_(module.conv1.weight, nonlinearity="relu")
                nn.init.kaiming_normal_(module.conv2.weight, nonlinearity="relu")
                with torch.no_grad():
                    module.conv2.weight.mul_(0.1)
        nn.init.zeros_(self.tail.weight)
        if self.tail.bias is not None:
            nn.init.zeros_(self.tail.bias)

    def _farthest(self, encoder: Sequence[int], decoder: Sequence[int]) -> int:
        """Pixels from which a value can be influenced at all: a cell a convolution; a block has two of them."""
        blocks = [down + up for down, up in zip(encoder, (*decoder, 0), strict=True)]
        convolutions = [2 * count + (2 if level == 0 else 0) for level, count in enumerate(blocks)]
        cells = (self.unshuffle << level for level in range(len(blocks)))
        # A cell's own pixels come on top: the farthest of them is nearly one coarsest cell away.
        return sum(count * cell for count, cell in zip(convolutions, cells, strict=True)) + self.multiple

    def forward(self, images: Tensor) -> Tensor:
        return self.around(images, self._rebuild)

    def around(self, images: Tensor, rebuild: Callable[[Tensor], Tensor]) -> Tensor:
        """What frames the convolutions, with ``rebuild`` in their place: gate logits and reconstruction,
        (N, 6 u^2, H/u, W/u), of the unshuffled image (N, 3 u^2, H/u, W/u)."""
        height, width = images.shape[-2:]
        bottom, right = -height % self.multiple, -width % self.multiple
        # Replicated, not reflected: reflection needs more pixels than a 1x1 image has.
        padded = F.pad(images, (0, right, 0, bottom), mode="replicate") if bottom or right else images
        centred = padded - 0.5
        answer = F.pixel_shuffle(rebuild(F.pixel_unshuffle(centred, self.unshuffle)), self.unshuffle)
        gate, rebuilt = answer.chunk(2, dim=1)
        out = torch.sigmoid(gate) * centred + rebuilt + 0.5
        return out[..., :height, :width]

    def _rebuild(self, x: Tensor) -> Tensor:
        x = self.head(x)
        skips = []
        for blocks, shrink in zip(self.down, self.shrink, strict=False):
            x = blocks(x)
            skips.append(x)
            x = shrink(x)
        x = self.down[-1](x)
        for blocks, grow, skip in zip(reversed(self.up), reversed(self.grow), reversed(skips), strict=True):
            x = blocks(grow(x) + skip)
        out: Tensor = self.tail(x)
        return out
