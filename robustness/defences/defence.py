"""What a defence is, and the one that does nothing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

Role = Literal["none", "baseline", "purifier"]


class Defence(ABC):
    """Same shape out as in. ``draws`` tells randomised defences apart from nothing else: most have one draw."""

    @property
    def role(self) -> Role:
        """Its part in a comparison."""
        return "baseline"

    @property
    def draw_count(self) -> int:
        """How many versions of an image ``draws`` gives."""
        return 1

    @property
    @abstractmethod
    def name(self) -> str:
        """What tables and cards call it."""

    @property
    @abstractmethod
    def differentiable(self) -> bool:
        """Whether backpropagation through ``draws`` gives the true gradient, at almost every image.

        Where it is False, an attacker who knows the defence needs BPDA: the exact gradient is zero or missing.
        """

    @abstractmethod
    def __call__(self, images: Tensor) -> Tensor:
        """Defended images, same shape, in [0,1]."""

    def draws(self, images: Tensor, seeds: Sequence[int]) -> Tensor:
        """Defended versions (N, ``draw_count``, C, H, W), image i's randomness from ``seeds[i]`` alone."""
        del seeds
        return self(images).unsqueeze(1)


@dataclass(frozen=True)
class NoDefence(Defence):
    """The image as it is."""

    @property
    def role(self) -> Role:
        """The row that others are compared with."""
        return "none"

    @property
    def name(self) -> str:
        """What tables call it."""
        return "none"

    @property
    def differentiable(self) -> bool:
        """It is the identity."""
        return True

    def __call__(self, images: Tensor) -> Tensor:
        """The images themselves."""
        return images
