"""A classifier behind a purifier: what is attacked, and what decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from model_store.jpeg import jpeg, rounded, softly_rounded
from model_store.noise import with_noise
from robustness.conditions import Precision


@dataclass(frozen=True)
class Mode:
    """How the purifier is run, as ``model_store.inference.InferenceMode`` has it, without pydantic."""

    noise_std: float = 0.0
    draws: int = 1
    ball: float | None = None
    jpeg: int | None = None

    @property
    def static(self) -> bool:
        """True when the answer does not depend on a seed."""
        return self.noise_std == 0.0


@dataclass(frozen=True)
class Arithmetic:
    """What each network computes in; everything between them is float32."""

    purifier: Precision = "float32"
    classifier: Precision = "float32"


FLOAT32 = Arithmetic()


@dataclass(frozen=True)
class Defended:
    """``classifier`` behind ``purifier`` in one ``mode``; both take [0,1], frozen, in evaluation mode, on one device.

    ``name`` is the defence's and ``victim`` the classifier's; ``weights`` and ``identity`` are the sha256 of each.
    The steps are those of the service: JPEG where the mode has it (``model_store.jpeg``, which is what the service
    runs), noise, the purifier, the clamp to [0,1], the classifier. All values are exactly the service's. Backward, the
    rounding of pixels counts as the identity and that of JPEG's coefficients as a cubic through whole numbers. With the
    identity there, too, exact PGD-12 at 2/255 reached a mean margin of 2.6 and not 8.4 (8 photos, JPEG 20, noise 0.06).
    Images are (N, 3, H, W), copies (M, 3, H, W).
    """

    name: str
    victim: str
    mode: Mode
    weights: str
    identity: str
    purifier: nn.Module = field(repr=False)
    classifier: nn.Module = field(repr=False)

    def prepared(self, images: Tensor) -> Tensor:
        """``images`` in [0,1] at 8 bits, and as JPEG leaves them: what no draw changes."""
        levels = rounded(images.clamp(0, 1) * 255) / 255
        if self.mode.jpeg is None:
            return levels
        return jpeg(levels, torch.full((len(images),), self.mode.jpeg), softly_rounded)

    def purified(self, prepared: Tensor, noise: Tensor, arithmetic: Arithmetic) -> Tensor:
        """Copies ``prepared`` in [0,1], each with its ``noise`` of std 1, purified."""
        noisy = prepared if self.mode.static else with_noise(prepared, noise * self.mode.noise_std, self.mode.ball)
        with _precision(noisy.device, arithmetic.purifier):
            out: Tensor = self.purifier(noisy.contiguous(memory_format=torch.channels_last))
        return out.float().clamp(0, 1)

    def logits(self, purified: Tensor, arithmetic: Arithmetic) -> Tensor:
        """Logits (M, classes) float32 of purified copies."""
        with _precision(purified.device, arithmetic.classifier):
            out: Tensor = self.classifier(purified.contiguous(memory_format=torch.channels_last))
        return out.float()

    @torch.inference_mode()
    def draws(self, images: Tensor, seeds: Sequence[int], arithmetic: Arithmetic, chunk: int) -> Tensor:
        """Logarithms (N, draws, classes) of each draw's class probabilities, image i's noise from ``seeds[i]``.

        At most ``chunk`` copies are in flight.
        """
        count, draws = len(images), self.mode.draws
        prepared = self.prepared(images)
        found = []
        for part in torch.split(torch.arange(count * draws), chunk):
            owners = (part // draws).to(images.device)
            noise = self.service_noise(images, seeds, part)
            logits = self.logits(self.purified(prepared[owners], noise, arithmetic), arithmetic)
            found.append(logits.log_softmax(dim=1))
        return torch.cat(found).view(count, draws, -1)

    def service_noise(self, images: Tensor, seeds: Sequence[int], copies: Tensor) -> Tensor:
        """The noise of ``copies`` (M,), counted image by image and draw by draw, as the service draws it from seeds.

        Of std 1, (M, 3, H, W); an image's draws follow one another in a CPU generator of its own.
        """
        shape, draws = images.shape[1:], self.mode.draws
        if self.mode.static:
            return images.new_zeros(len(copies), 1, 1, 1)
        first, last = int(copies[0]) // draws, int(copies[-1]) // draws
        found = []
        for place in range(first, last + 1):
            generator = torch.Generator().manual_seed(seeds[place])
            found += [torch.randn(shape, generator=generator) for _ in range(draws)]
        return torch.stack(found)[copies - first * draws].to(images.device)


def _precision(device: torch.device, precision: Precision) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")
