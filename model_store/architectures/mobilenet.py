"""A victim of another family: torchvision's MobileNetV3-Small behind our pixel convention."""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.models import mobilenet_v3_small

from model_store.architectures.normalise import Normalise


class MobileNetV3Small(nn.Module):
    """MobileNetV3-Small (Howard et al., 2019). NCHW in [0,1] to logits (N, classes)."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.normalise = Normalise()
        self.network = mobilenet_v3_small(weights=None, num_classes=classes)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.network(self.normalise(images))
        return out
