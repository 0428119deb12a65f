"""A segmenter from before skip connections: an encoder whose pooling indices its decoder takes up again."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from model_store.architectures.normalise import Normalise

LEVELS = 4
MULTIPLE = 2**LEVELS


class SegNetBasic(nn.Module):
    """SegNet-Basic (Badrinarayanan et al., 2017). NCHW in [0,1], any size from 1x1, to logits (N, classes, H, W).

    Four encoders of convolution, batch norm, ReLU and 2x2 max-pooling; four decoders that put each value back where
    its maximum stood (zeros elsewhere), convolve and batch-normalise, without a ReLU; a 1x1 convolution classifies.
    Inputs are padded to a multiple of 16 by repeating their borders, and the logits cut back. The original's local
    response normalisation of the input is left out: the fixed channel statistics stand for it. Raises TypeError for
    an even kernel, which could not keep the resolution.
    """

    def __init__(self, classes: int, width: int = 64, kernel: int = 7) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise TypeError(f"kernel must be odd, not {kernel}")
        self.normalise = Normalise()
        self.encoders = nn.ModuleList(
            nn.Sequential(*self._convolution(3 if level == 0 else width, width, kernel), nn.ReLU(inplace=True))
            for level in range(LEVELS)
        )
        self.decoders = nn.ModuleList(nn.Sequential(*self._convolution(width, width, kernel)) for _ in range(LEVELS))
        self.classify = nn.Conv2d(width, classes, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    @staticmethod
    def _convolution(inputs: int, outputs: int, kernel: int) -> tuple[nn.Module, nn.Module]:
        return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(outputs)

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        bottom, right = -height % MULTIPLE, -width % MULTIPLE
        # Repeated, not reflected: reflection needs more pixels than a 1x1 image has.
        padded = F.pad(images, (0, right, 0, bottom), mode="replicate") if bottom or right else images
        x = self.normalise(padded)
        places: list[Tensor] = []
        for encoder in self.encoders:
            x, indices = F.max_pool2d(encoder(x), 2, return_indices=True)
            places.append(indices)
        for decoder, indices in zip(self.decoders, reversed(places), strict=True):
            x = decoder(F.max_unpool2d(x, indices, [2, 2]))
        out: Tensor = self.classify(x)
        return out[..., :height, :width]
