"""What an attacker raises: losses of logits (M, classes) and true labels (M,), one value a copy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from robustness.attacks.square import margins

LossName = Literal["CE", "margin"]
Loss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy (M,)."""
    return F.cross_entropy(logits, labels, reduction="none")


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """The largest wrong logit minus the true one (M,): above 0 where misclassified (Carlini & Wagner, 2017).

    Unlike cross-entropy it does not vanish where a network is certain. Raises AttackError for a single class.
    """
    return -margins(logits, labels)


LOSSES: Mapping[LossName, Loss] = MappingProxyType({"CE": cross_entropy, "margin": margin})
