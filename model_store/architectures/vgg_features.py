"""The feature network that self-supervised perturbations attack: VGG-16 up to conv3-3, after its ReLU.

``features.0`` to ``features.14`` (of five blocks: to ``features.28``) carry torchvision's names and, at ``width`` 1,
its shapes, so ImageNet's weights drop in. The head exists only to train the trunk where no such weights can be had,
and then also tells what the network takes an image for; ``classes`` None leaves it out.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torchvision.models.vgg import make_layers

from model_store.architectures.normalise import IMAGENET_MEAN, IMAGENET_STD, Normalise

BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # channels and convolutions of each
CONV3_3 = "features.15"  # the ReLU after it


class VGG16Features(nn.Module):
    """VGG-16 (Simonyan & Zisserman, 2015) to conv3-3. NCHW in [0,1] to logits; ``extract`` gives the features.

    ``blocks``: 3, or as many as five for layers beyond conv3-3, which ``extract`` does not reach.
    ``mean`` and ``std``: what the weights' authors subtracted from [0,1] and divided by, a channel.
    """

    def __init__(
        self,
        classes: int | None = 10,
        width: float = 1.0,
        blocks: int = 3,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        if not 3 <= blocks <= len(BLOCKS):
            raise ValueError(f"blocks must be 3 to {len(BLOCKS)}")
        self.deeper = blocks > 3
        if self.deeper and classes is not None:
            raise ValueError("a head stands on conv3-3: with more than 3 blocks, classes must be None")
        self.normalise = Normalise(mean, std)
        layers: list[nn.Module] = []
        inputs = 3
        for place, (channels, count) in enumerate(BLOCKS[:blocks]):
            layers += [nn.MaxPool2d(2)] if place else []
            for _ in range(count):
                outputs = round(width * channels)
                layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
                inputs = outputs
        self.features = nn.Sequential(*layers)
        self.head = None if classes is None else self._head(round(width * BLOCKS[2][0]), classes)
        for module in self.features:
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    @staticmethod
    def _head(inputs: int, classes: int) -> nn.Sequential:
        return nn.Sequential(
            nn.MaxPool2d(2),
            nn.Conv2d(inputs, 2 * inputs, 3, stride=2, padding=1),
            nn.BatchNorm2d(2 * inputs),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(2 * inputs, classes),
        )

    def extract(self, images: Tensor) -> Tensor:
        """Features (N, 256 x width, H/4, W/4) of conv3-3 after the ReLU, for images in [0,1]."""
        trunk = self.features[: int(CONV3_3.rpartition(".")[2]) + 1] if self.deeper else self.features
        out: Tensor = trunk(self.normalise(images))
        return out

    def classify(self, features: Tensor) -> Tensor:
        """Logits (N, classes) of what ``extract`` gave. Raises TypeError for a network without a head."""
        if self.head is None:
            raise TypeError("this feature network has no head, so it makes no predictions")
        out: Tensor = self.head(features)
        return out

    def forward(self, images: Tensor) -> Tensor:
        # All blocks run, so that whoever listens to a layer beyond conv3-3 hears it.
        return self.classify(self.features(self.normalise(images)))


class VGGSmall(nn.Module):
    """VGG-11 with batch norm (Simonyan & Zisserman, 2015) of ``width``. NCHW in [0,1] to logits (N, classes).

    One linear layer on the averaged features stands for the original's three, which hold most of its parameters.
    """

    def __init__(self, classes: int, width: float = 0.5) -> None:
        super().__init__()
        layout: tuple[int | str, ...] = (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512)
        scaled = [round(width * part) if isinstance(part, int) else part for part in layout]
        self.normalise = Normalise()
        self.features = make_layers(scaled, batch_norm=True)
        self.head = nn.Linear(round(width * 512), classes)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.head(self.features(self.normalise(images)).mean(dim=(2, 3)))
        return out
