"""Universal noise, one for all images, and FFF, which makes it without seeing any."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from robustness.attacks.ascent import project
from robustness.attacks.attack import Attack, Knowledge
from robustness.errors import AttackError

Activations = Callable[[Tensor], list[Tensor]]
Progress = Callable[[int, float], None]

FAINTEST = 1e-12  # keeps the logarithm of a silent layer finite; its gradient is zero all the same


@dataclass(frozen=True)
class FoolSettings:
    """How FFF searches; the defaults are the authors' published code.

    ``rate`` is Adam's, in /255. Every ``halve_every`` iterations (None: never) the noise is halved, which frees the
    values that sit on the surface of the ball. ``background`` is the image that networks normalise to zero, the mean
    colour of ImageNet, so that the network sees the noise alone. ``device`` is where the network is.
    """

    rate: float = 0.1
    halve_every: int | None = 300
    background: tuple[float, float, float] = (0.485, 0.456, 0.406)
    device: str | torch.device = "cpu"


PUBLISHED = FoolSettings()


def fast_feature_fool(
    activations: Activations,
    shape: tuple[int, int],
    eps: float,
    iterations: int = 10_000,
    *,
    generator: torch.Generator,
    settings: FoolSettings = PUBLISHED,
    progress: Progress | None = None,
) -> Tensor:
    """Universal noise (1, 3, H, W) on the CPU, within ``eps``/255: FFF (Mopuri et al., BMVC 2017), L-infinity, no data.

    From uniform noise, Adam raises the product over layers of the mean absolute activation (as a sum of logarithms)
    that the noise alone evokes; after each step the noise is projected onto the ball. Of all iterations the noise of
    the highest objective is returned, as the authors keep their best. The paper takes VGG-16's convolutional layers
    and 10 000 iterations. ``shape`` is (H, W); ``progress`` is told iterations done and the objective reached.
    Raises AttackError where there is no layer or no iteration.
    """
    if iterations < 1:
        raise AttackError(f"FFF optimises its noise; give it at least one iteration, not {iterations}")
    limit = eps / 255
    background = torch.tensor(settings.background, device=settings.device).view(1, 3, 1, 1).expand(1, 3, *shape)
    start = (torch.rand((1, 3, *shape), generator=generator) * 2 - 1) * limit
    noise = start.to(settings.device).requires_grad_(True)
    adam = torch.optim.Adam([noise], lr=settings.rate / 255)
    best, highest = noise.detach().clone(), torch.tensor(-torch.inf, device=settings.device)
    for done in range(iterations + 1):
        value = response(activations, background + noise)
        reached = value.detach()
        best, highest = torch.where(reached > highest, noise.detach(), best), torch.maximum(highest, reached)
        if progress is not None:
            progress(done, float(highest))
        if done == iterations:
            break
        (slope,) = torch.autograd.grad(value, noise)
        noise.grad = -slope
        adam.step()
        with torch.no_grad():
            if settings.halve_every is not None and (done + 1) % settings.halve_every == 0:
                noise /= 2
            noise.clamp_(-limit, limit)
    return best.cpu()


def response(activations: Activations, images: Tensor) -> Tensor:
    """The sum over layers of the logarithm of the mean absolute activation, a scalar."""
    layers = activations(images)
    if not layers:
        raise AttackError("FFF was given no layer to excite; name at least one layer of the network")
    return torch.stack([layer.float().abs().mean().clamp_min(FAINTEST).log() for layer in layers]).sum()


@dataclass(frozen=True)
class Universal(Attack):
    """Adds one given noise (1, 3, H, W) to every image: FFF's, or any other's, L-infinity.

    ``title`` is what tables call it, and must be the noise's own. Two are equal if title, budget and noise are; the
    noise is compared by ``identity``, the sha256 of its values. Raises AttackError for noise that is no such tensor
    or leaves the budget.
    """

    noise: Tensor = field(repr=False, compare=False)
    eps: float
    title: str = "FFF"
    identity: str = field(init=False)

    def __post_init__(self) -> None:
        if self.noise.ndim != 4 or self.noise.shape[:2] != (1, 3):
            raise AttackError(f"universal noise has the shape (1, 3, H, W), not {tuple(self.noise.shape)}; reshape it")
        largest = 255 * float(self.noise.abs().max())
        if not largest <= self.eps * (1 + 1e-5):  # float32's rounding of /255; a NaN is refused too
            raise AttackError(f"noise of {largest:.3f}/255 leaves the budget of {self.eps:g}/255; make it for this eps")
        kept = self.noise.detach().float().cpu().contiguous()
        values = repr(tuple(kept.shape)).encode() + kept.numpy().tobytes()
        object.__setattr__(self, "noise", kept.clone())
        object.__setattr__(self, "identity", hashlib.sha256(values).hexdigest())

    @property
    def name(self) -> str:
        """What tables call it."""
        return self.title

    def __call__(self, images: Tensor, knowledge: Knowledge, generator: torch.Generator) -> Tensor:
        """``images`` (N, 3, H, W) plus the noise, in [0,1]. Raises AttackError for images of another size."""
        del knowledge, generator
        if images.shape[-2:] != self.noise.shape[-2:]:
            made, given = ("x".join(str(side) for side in of.shape[-2:]) for of in (self.noise, images))
            raise AttackError(f"{self.title} was made for images of {made}, not {given}; make noise of that size")
        return project(images + self.noise.to(images.device), images, self.eps)
