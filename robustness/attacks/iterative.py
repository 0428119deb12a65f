"""The iterative family from the clean image: I-FGSM, then momentum, input diversity and translation invariance."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from robustness.attacks.ascent import Direction, ascend
from robustness.attacks.attack import Attack, Knowledge, Network, required
from robustness.attacks.title import titled
from robustness.errors import AttackError


class Momentum:
    """The direction of an accumulated gradient: each gradient over its mean absolute value, plus ``decay`` x the past.

    Made anew for each call of an attack, because it remembers. A gradient of zeros adds nothing.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self._past: Tensor | None = None

    def __call__(self, gradient: Tensor) -> Tensor:
        """The signs (N, C, H, W) of what has been accumulated."""
        size = gradient.abs().mean((1, 2, 3), keepdim=True)
        fresh = gradient / torch.where(size > 0, size, 1.0)
        self._past = fresh if self._past is None else self.decay * self._past + fresh
        return self._past.sign()


def diversify(images: Tensor, enlarge: float, generator: torch.Generator) -> Tensor:
    """Images (N, C, H, W) enlarged at random, padded with zeros at random, and brought back to their own size.

    The longer side is drawn from its own length to ``enlarge`` times that, the other follows; the padding fills up to
    ``enlarge`` times both. One draw for the whole batch, as in the authors' code. Bilinear; differentiable.
    """
    size = torch.tensor(images.shape[-2:])
    largest = (size * enlarge).round().long()
    longer = int(size.argmax())
    length = int(_between(int(size[longer]), int(largest[longer]), generator))
    resized = (size * length / size[longer]).round().long().minimum(largest)
    top, left = (_between(0, int(room), generator) for room in largest - resized)
    bottom, right = (int(room) - before for room, before in zip(largest - resized, (top, left), strict=True))
    scaled = F.interpolate(images, size=resized.tolist(), mode="bilinear", align_corners=False)
    padded = F.pad(scaled, (left, right, top, bottom))
    return F.interpolate(padded, size=size.tolist(), mode="bilinear", align_corners=False)


def _between(low: int, high: int, generator: torch.Generator) -> int:
    """A whole number of [low, high]."""
    return int(torch.randint(low, high + 1, (), generator=generator))


def gaussian_kernel(length: int, sigmas: float) -> Tensor:
    """A Gaussian (length, length) that sums to 1 and is cut ``sigmas`` standard deviations from its centre."""
    row = torch.linspace(-sigmas, sigmas, length).square().mul(-0.5).exp()
    kernel = torch.outer(row, row)
    return kernel / kernel.sum()


def smooth(gradient: Tensor, kernel: Tensor) -> Tensor:
    """Each channel of the gradient (N, C, H, W) convolved with the kernel, zeros beyond its edges."""
    channels = gradient.shape[1]
    weights = kernel.to(gradient).expand(channels, 1, *kernel.shape)
    return F.conv2d(gradient, weights, padding=kernel.shape[0] // 2, groups=channels)


@dataclass(frozen=True)
class IFGSM(Attack):
    """The iterative fast gradient sign method (Kurakin et al., 2017), L-infinity, from the clean image.

    Images (N, 3, H, W) in [0,1] to the same; ``eps`` and ``step`` in /255. ``step`` None means eps/10: with the
    default 10 iterations the NRP paper's Appendix F.
    """

    eps: float
    step: float | None = None
    iterations: int = 10

    @property
    def name(self) -> str:
        """What tables call it."""
        return titled("I-FGSM", self)

    def __call__(self, images: Tensor, knowledge: Knowledge, generator: torch.Generator) -> Tensor:
        """Adversaries of ``images``."""
        loss = required(knowledge.loss, "a loss", self.name)
        return ascend(
            images,
            self._seen(loss, generator),
            images,
            eps=self.eps,
            step=self.eps / 10 if self.step is None else self.step,
            iterations=self.iterations,
            direction=self._direction(),
        )

    def _seen(self, loss: Network, generator: torch.Generator) -> Network:
        """The loss as this attack looks at it."""
        del generator
        return loss

    def _direction(self) -> Direction:
        """Where a gradient leads, made anew for one call."""
        return torch.sign


@dataclass(frozen=True)
class MIFGSM(IFGSM):
    """Momentum I-FGSM (Dong et al., CVPR 2018): steps along the accumulated, normalised gradient.

    ``decay`` 1 keeps all of the past, as in the NRP paper's Appendix F.
    """

    decay: float = 1.0

    @property
    def name(self) -> str:
        """What tables call it."""
        return titled("MI-FGSM", self)

    def _direction(self) -> Direction:
        return Momentum(self.decay)


@dataclass(frozen=True)
class DIM(MIFGSM):
    """Diverse inputs with momentum (M-DI2-FGSM; Xie et al., CVPR 2019), for transfer between classifiers.

    Before each gradient the images are, with ``probability`` (0.7 in the NRP paper's Appendix F), resized and padded
    at random within ``enlarge`` times their size; 330/299 is Xie et al.'s. They are then brought back to their own
    size, since a victim may take no other. That moves what is in the image, so a loss that compares places (boxes,
    masks) is attacked with a truth up to a tenth of the image away. Raises AttackError for settings out of range.
    """

    probability: float = 0.7
    enlarge: float = 330 / 299

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise AttackError(f"a probability of {self.probability} is none; give DIM one in [0,1]")
        if self.enlarge < 1:
            raise AttackError(f"DIM enlarges before it pads; give a factor of at least 1, not {self.enlarge}")

    @property
    def name(self) -> str:
        """What tables call it."""
        return titled("DIM", self)

    def _seen(self, loss: Network, generator: torch.Generator) -> Network:
        def diverse(images: Tensor) -> Tensor:
            drawn = float(torch.rand((), generator=generator)) < self.probability
            return loss(diversify(images, self.enlarge, generator) if drawn else images)

        return diverse


@dataclass(frozen=True)
class DIMTI(DIM):
    """DIM with a translation-invariant gradient (TI-DIM; Dong et al., CVPR 2019).

    Each gradient is smoothed by a Gaussian of ``kernel`` x ``kernel`` cut at ``sigmas`` standard deviations before it
    is accumulated: to first order, the mean gradient over shifted images. 15 and 3 are Dong et al.'s.
    """

    kernel: int = 15
    sigmas: float = 3.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise AttackError(f"a kernel of {self.kernel} has no centre; give DIM-TI an odd length")

    @property
    def name(self) -> str:
        """What tables call it."""
        return titled("DIM-TI", self)

    def _direction(self) -> Direction:
        kernel, momentum = gaussian_kernel(self.kernel, self.sigmas), super()._direction()
        return lambda gradient: momentum(smooth(gradient, kernel))
