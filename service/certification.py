"""One image's certificate in the making, chunk by chunk, so that others get at the device in between."""

from __future__ import annotations

import threading
import time

import torch
from torch import Tensor, nn

from model_store.certification import Certificate, certificate
from model_store.inference import seeded
from service.certify_order import CertifyOrder, copy_weight
from service.copies import Copies
from service.engine import Engine


class Certification:
    """Cohen et al.'s CERTIFY in pieces of one model run each.

    All noise comes from the order's seed, copy after copy, so neither how it is cut into chunks nor who runs in between
    changes the certificate. The purifier is had once: half of the answers from other weights would certify neither.
    """

    def __init__(self, pixels: Tensor, order: CertifyOrder) -> None:
        """``pixels``: uint8 (3, H, W)."""
        self.abandoned = threading.Event()
        self.done = 0
        self.of = order.smoothing.n0 + order.smoothing.n
        self.height, self.width = int(pixels.shape[-2]), int(pixels.shape[-1])
        self.device_s = 0.0
        self._pixels = pixels
        self._order = order
        self._weight = copy_weight(order, self.width, self.height)
        self._noise = seeded(order.seed)
        self._purifier: nn.Module | None = None
        self._chosen, self._counts = (torch.zeros(len(order.model.labels), dtype=torch.int64) for _ in range(2))

    @property
    def finished(self) -> bool:
        """Whether every copy has been asked about."""
        return self.done == self.of

    def advance(self, engine: Engine) -> None:
        """Ask about the next chunk of copies. On the device thread; raises what ``Engine.label_counts`` does."""
        begun = time.perf_counter()
        if self._purifier is None:
            self._purifier = engine.hold(self._order.card.name)
        n0 = self._order.smoothing.n0
        choosing = self.done < n0
        left = (n0 if choosing else self.of) - self.done
        count = max(1, min(left, engine.budget.now // self._weight))
        counts = engine.label_counts(self._purifier, self._copies(count))
        (self._chosen if choosing else self._counts).add_(counts)
        self.done += count
        self.device_s += time.perf_counter() - begun

    def certificate(self) -> Certificate:
        """What the copies amount to, once all are done."""
        return certificate(self._chosen, self._counts, self._order.smoothing.sigma, self._order.smoothing.alpha)

    def votes(self) -> int:
        """How many of the ``n`` copies got the label that the ``n0`` copies chose."""
        return int(self._counts[int(self._chosen.argmax())])

    def _copies(self, count: int) -> Copies:
        return Copies(
            self._pixels, self._order.smoothing, count, self._noise, self._weight, len(self._chosen), self.abandoned
        )
