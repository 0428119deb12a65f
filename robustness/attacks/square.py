"""Square, the black-box attack: it asks for logits and never for a gradient."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass

import torch
from torch import Tensor

from robustness.attacks.ascent import project
from robustness.attacks.attack import Attack, Knowledge, Network, required
from robustness.attacks.title import titled
from robustness.errors import AttackError

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # of 10 000 queries, the paper's schedule


def margins(logits: Tensor, labels: Tensor) -> Tensor:
    """By how much (N,) the true logit exceeds the largest other; below zero the image is misclassified.

    Raises AttackError where there is no other.
    """
    if logits.shape[1] < 2:
        raise AttackError("a margin needs at least two classes; attack a classifier that can be wrong")
    place = labels.unsqueeze(1)
    others = logits.scatter(1, place, -torch.inf).amax(1)
    return logits.gather(1, place).squeeze(1) - others


def square_share(query: int, queries: int, initial: float) -> float:
    """The share of the image that the square of a query covers: halved nine times as the queries run out."""
    return float(initial / 2 ** bisect_left(HALVINGS, int(query / queries * 10_000)))


@dataclass(frozen=True)
class Square(Attack):
    """Square attack (Andriushchenko et al., ECCV 2020), L-infinity, margin loss: random search by squares.

    It starts from vertical stripes of the whole budget. Each query then sets one square at a random place to a random
    corner of the ball, one sign a channel, and keeps it where the margin falls. ``initial`` is the share of the image
    that the first squares cover; the paper's schedule, stretched over ``queries``, shrinks them. Images that are
    wrong already are left as they are, and broken ones are asked for no more; what is drawn for an image does not
    depend on that, nor on the draws of a randomised victim. An image that holds to the end is returned at its least
    margin. ``stubborn`` goes on with every image to the last query, for randomised victims, of whom one wrong answer
    proves little. Images (N, 3, H, W) in [0,1] to the same; ``eps`` in /255; ``queries`` an image, the clean one not
    counted.
    Raises AttackError for settings out of range.
    """

    eps: float
    queries: int = 5000
    initial: float = 0.8
    stubborn: bool = False

    def __post_init__(self) -> None:
        if self.queries < 1 or not 0 < self.initial <= 1:
            raise AttackError("Square needs at least one query and an initial share in (0,1]; mend these settings")

    @property
    def name(self) -> str:
        """What tables call it."""
        return titled("Square", self, "stubborn")

    def __call__(self, images: Tensor, knowledge: Knowledge, generator: torch.Generator) -> Tensor:
        """Adversaries of ``images``."""
        logits = required(knowledge.logits, "logits", self.name)
        labels = required(knowledge.labels, "labels", self.name)
        seed = int(torch.randint(2**31, (), generator=generator))
        with torch.no_grad():
            return self._search(images, logits, labels, torch.Generator().manual_seed(seed))

    def _search(self, images: Tensor, logits: Network, labels: Tensor, generator: torch.Generator) -> Tensor:
        best, lowest = self._stripes(images, logits, labels, generator)
        for query in range(self.queries - 1):
            inside, signs = self._square(images, query, generator)
            alive = self._alive(lowest)
            if len(alive) == 0:
                break
            corner = images[alive] + signs[alive] * (self.eps / 255)
            candidates = project(torch.where(inside[alive], corner, best[alive]), images[alive], self.eps)
            reached = margins(logits(candidates).float(), labels[alive])
            better = reached < lowest[alive]
            best[alive[better]] = candidates[better]
            lowest[alive[better]] = reached[better]
        return best

    def _stripes(
        self, images: Tensor, logits: Network, labels: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """The striped images and their margins (N,); those that are wrong already stay clean."""
        count, channels, _, width = images.shape
        signs = _signs((count, channels, 1, width), generator).to(images.device)
        lowest = margins(logits(images).float(), labels)
        striped = project(images + signs * (self.eps / 255), images, self.eps)
        alive = self._alive(lowest)
        best = images.clone()
        if len(alive) > 0:
            best[alive] = striped[alive]
            lowest[alive] = margins(logits(striped[alive]).float(), labels[alive])
        return best, lowest

    def _alive(self, margin: Tensor) -> Tensor:
        """The places of the images to go on with."""
        return torch.arange(len(margin), device=margin.device)[(margin >= 0) | self.stubborn]

    def _square(self, images: Tensor, query: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Where a query's square lies, bool (N, 1, H, W), and the corner it takes, (N, C, 1, 1) of -1 and 1."""
        count, channels, height, width = images.shape
        share = square_share(query, self.queries, self.initial)
        side = max(1, min(round(math.sqrt(share * height * width)), height, width))
        signs = _signs((count, channels, 1, 1), generator)
        rows = _span(torch.randint(height - side + 1, (count, 1), generator=generator), side, height)
        columns = _span(torch.randint(width - side + 1, (count, 1), generator=generator), side, width)
        inside = rows.view(count, 1, height, 1) & columns.view(count, 1, 1, width)
        return inside.to(images.device), signs.to(images.device)


def _signs(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.where(torch.rand(shape, generator=generator) < 0.5, -1.0, 1.0)


def _span(first: Tensor, side: int, length: int) -> Tensor:
    """Which of ``length`` places lie in the ``side`` from ``first`` (N, 1) on: bool (N, length)."""
    places = torch.arange(length)
    return (places >= first) & (places < first + side)
