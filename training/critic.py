"""The critic that tells clean photos from purified ones."""

from __future__ import annotations

from torch import Tensor, nn

from model_store.architectures.published import conv3x3


class Critic(nn.Module):
    """VGG-like: each block halves the resolution. NCHW in [0,1] to one realness logit a patch, (N, 1, H/16, W/16).

    Patch logits instead of one an image: local sharpness is what pixel and feature distances leave to the critic.
    No batch normalisation, which would leak which half of a batch is real.
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        widths = (width, 2 * width, 4 * width, 4 * width)
        layers: list[nn.Module] = []
        inputs = 3
        for outputs in widths:
            layers += [nn.Conv2d(inputs, outputs, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
            inputs = outputs
        self.blocks = nn.Sequential(*layers, conv3x3(inputs, 1))

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.blocks(images - 0.5)
        return out
