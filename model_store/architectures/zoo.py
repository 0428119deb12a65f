"""Any classifier of torchvision's or timm's, untrained: networks of many families without a line of code for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torchvision import models

from model_store.architectures.normalise import IMAGENET_MEAN, IMAGENET_STD, Normalise

TUPLES = frozenset({"googlenet", "inception_v3"})  # answer with auxiliary logits beside their own while they train


class ZooClassifier(nn.Module):
    """``model``, a name of ``torchvision.models.list_models``, behind our pixels: NCHW in [0,1] to logits (N, classes).

    ``options`` go to torchvision's builder; ``mean`` and ``std`` are those of the weights to come. Raises ValueError
    for a name that torchvision does not know, or one whose answer in training is no single tensor.
    """

    def __init__(
        self,
        classes: int,
        model: str,
        options: Mapping[str, Any] | None = None,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        if model in TUPLES or model not in models.list_models(module=models):
            raise ValueError(f"{model!r} is no single-answer classifier of torchvision")
        self.normalise = Normalise(mean, std)
        self.network = models.get_model(model, weights=None, num_classes=classes, **(options or {}))

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.network(self.normalise(images))
        return out


class TimmClassifier(nn.Module):
    """``model``, a name of ``timm.list_models``, behind our pixels: NCHW in [0,1] to logits (N, classes).

    ``mean`` and ``std`` are those of the weights to come. Raises ValueError for a name that timm does not know, and
    where timm is not installed.
    """

    def __init__(
        self,
        classes: int,
        model: str,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        try:
            import timm  # noqa: PLC0415 - takes a second; only cards that name one of its networks wait for it
        except ImportError as error:
            raise ValueError("timm is not installed; run: pip install timm") from error
        if not timm.is_model(model):
            raise ValueError(f"{model!r} is no model of timm {timm.__version__}")
        self.normalise = Normalise(mean, std)
        self.network = timm.create_model(model, pretrained=False, num_classes=classes)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.network(self.normalise(images))
        return out
