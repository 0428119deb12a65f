"""Any classifier of torchvision's zoo, untrained: surrogates of many families without a line of code for each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torchvision import models

from model_store.architectures.normalise import Normalise

TUPLES = frozenset({"googlenet", "inception_v3"})  # answer with auxiliary logits beside their own while they train


class ZooClassifier(nn.Module):
    """``model``, a name of ``torchvision.models.list_models``, behind our pixels: NCHW in [0,1] to logits (N, classes).

    ``options`` go to torchvision's builder. Raises ValueError for a name that torchvision does not know, or one
    whose answer in training is no single tensor.
    """

    def __init__(self, classes: int, model: str, options: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        if model in TUPLES or model not in models.list_models(module=models):
            raise ValueError(f"{model!r} is no single-answer classifier of torchvision")
        self.normalise = Normalise()
        self.network = models.get_model(model, weights=None, num_classes=classes, **(options or {}))

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.network(self.normalise(images))
        return out
