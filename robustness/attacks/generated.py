"""Perturbations that a trained generator makes in one pass: CDA, as an attack."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model_store.devices import place
from model_store.store import ModelStore
from robustness.attacks.ascent import project
from robustness.attacks.attack import Attack, Knowledge
from robustness.attacks.title import titled
from robustness.errors import AttackError

PREFIX = "cda-"


@dataclass(frozen=True)
class Generated(Attack):
    """CDA (Naseer et al., "Cross-domain transferability of adversarial perturbations", NeurIPS 2019), L-infinity.

    A generator trained beforehand against one classifier, on any domain's unlabelled images, perturbs each image in
    one pass: what it makes is brought into the eps ball and [0,1]. It asks nothing of the victim, so it is the same
    attack on all of them, and draws nothing at random. ``trained`` is the generator's name in the store, ``identity``
    the sha256 of its weights. ``smoothing`` (in pixels) above 0 passes what the generator makes through a 3x3
    Gaussian of that standard deviation before the projection, which the method's authors do for transfer.
    """

    eps: float
    trained: str
    identity: str
    module: nn.Module = field(repr=False, compare=False)
    smoothing: float = 0.0

    def __post_init__(self) -> None:
        if self.smoothing < 0:
            raise AttackError(f"a smoothing of {self.smoothing:g} pixels makes no sense; give 0 for none, or 1")

    @property
    def name(self) -> str:
        """What tables call it."""
        return titled(f"CDA {self.trained.removeprefix(PREFIX)}", self)

    @torch.no_grad()
    def __call__(self, images: Tensor, knowledge: Knowledge, generator: torch.Generator) -> Tensor:
        """Adversaries of ``images``, which must lie where the module does."""
        del knowledge, generator
        made = self.module(images.contiguous(memory_format=torch.channels_last))
        return project(smoothed(made, self.smoothing) if self.smoothing else made, images, self.eps)


def smoothed(images: Tensor, std: float) -> Tensor:
    """Images (N, C, H, W) under a 3x3 Gaussian of standard deviation ``std`` pixels; the border is repeated."""
    line = torch.exp(-torch.tensor([-1.0, 0.0, 1.0], device=images.device).square() / (2 * std**2))
    kernel = torch.outer(line, line) / line.sum() ** 2
    channels = images.shape[1]
    padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
    with torch.autocast(images.device.type, enabled=False):  # half of the precision would be most of a small budget
        return F.conv2d(padded.float(), kernel.expand(channels, 1, 3, 3), groups=channels)


def load_perturber(
    store: ModelStore, name: str, eps: float, device: torch.device, *, smoothing: float = 0.0
) -> Generated:
    """The perturber ``name`` of the store as an attack within ``eps`` /255.

    Raises UnknownModelError, AttackError for a model of another task, or what ``ModelStore.load`` raises.
    """
    task = store.card(name).task
    if task != "perturber":
        raise AttackError(f"{name} is a {task}, not a perturber; train one with `nrp train perturber`")
    loaded = store.load(name)
    return Generated(eps, name, loaded.card.sha256, place(loaded.module, device), smoothing)
