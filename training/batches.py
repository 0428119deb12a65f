"""One batch of a purifier's training, drawn: which photos, what each is attacked with, and how it is corrupted.

Every worker draws the whole batch and takes its share of the shuffled whole, so that all together see what one would.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor

from training.augment import aligned_crops, resized_crops
from training.corruption import Strengths, draw_strengths, gaussian
from training.loop import batch_at
from training.parallel import Workers
from training.photos import Photos
from training.purifier_recipe import PurifierRecipe


class Part(IntEnum):
    """What an image of a batch is there for."""

    READY = 0  # nothing is left to be done: an adversary of the bank, or a photo that is only corrupted
    UNAWARE = 1  # to be attacked without regard to the purifier
    ADAPTIVE = 2  # to be attacked through the purifier
    CLEAN = 3  # to be left as it is


@dataclass(frozen=True)
class Places:
    """Where the images of one part lie in a worker's share: ``mine``; ``before`` of ``total`` are earlier workers'."""

    mine: Tensor
    before: int
    total: int


@dataclass(frozen=True)
class Drawn:
    """A worker's n images: ``seen`` and ``target`` (n, 3, crop, crop) in [0,1], and what is still to be done to them.

    ``noise`` is standard normal. ``parts`` (N,) are the whole batch's, of which this worker's begin at ``begin``.
    """

    seen: Tensor
    target: Tensor
    strengths: Strengths
    noise: Tensor
    parts: Tensor
    begin: int

    def places(self, part: Part) -> Places:
        """Where the images of ``part`` lie."""
        its = self.parts == part
        mine = its[self.begin : self.begin + len(self.seen)].nonzero().flatten()
        return Places(mine, int(its[: self.begin].sum()), int(its.sum()))


def parts_of(recipe: PurifierRecipe, number: int) -> Tensor:
    """The part of each image of step ``number``'s batch, before it is shuffled: (batch,)."""
    unaware = round(recipe.batch * recipe.adversary_share)
    begun = number >= recipe.adaptive.begins * recipe.steps
    adaptive = min(recipe.batch - unaware, round(recipe.batch * recipe.adaptive.share)) if begun else 0
    clean = min(recipe.batch - unaware - adaptive, round(recipe.batch * recipe.clean_share))
    parts = torch.full((recipe.batch,), Part.READY)
    parts[:unaware] = Part.READY if recipe.uses_bank else Part.UNAWARE
    parts[unaware : unaware + adaptive] = Part.ADAPTIVE
    parts[recipe.batch - clean :] = Part.CLEAN
    return parts


def draw_batch(
    recipe: PurifierRecipe,
    photos: Photos,
    pairs: Tensor,
    number: int,
    generator: torch.Generator,
    device: torch.device,
    workers: Workers,
) -> Drawn:
    """Step ``number``'s batch, this worker's share of it, on ``device``; ``pairs`` (M, 2, 3, S, S) are the bank's."""
    seen, target = _photos(recipe, photos, pairs, number, generator, device)
    parts = parts_of(recipe, number)
    strengths = draw_strengths(recipe, recipe.batch, generator).sparing(parts == Part.CLEAN)
    noise = gaussian(seen.shape, generator, device)
    shuffled = torch.randperm(recipe.batch, generator=generator)
    mine = workers.share(shuffled)
    there = mine.to(device)
    return Drawn(
        seen[there], target[there], strengths.of(mine), noise[there], parts[shuffled], workers.rank * len(mine)
    )


def _photos(
    recipe: PurifierRecipe,
    photos: Photos,
    pairs: Tensor,
    number: int,
    generator: torch.Generator,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """Crops as seen and as wanted, (batch, 3, crop, crop) each: the bank's pairs first, then photos, the same twice."""
    banked = round(recipe.batch * recipe.adversary_share) if recipe.uses_bank else 0
    seen, target = [], []
    if banked:
        chosen = batch_at(len(pairs), banked, number, recipe.seed)
        crops = aligned_crops(pairs[chosen], recipe.crop, generator).to(device)
        seen.append(crops[:, 1])
        target.append(crops[:, 0])
    if banked < recipe.batch:
        chosen = batch_at(len(photos), recipe.batch - banked, number, recipe.seed + 1)
        pixels = photos.pixels[chosen].to(device)
        crops = resized_crops(pixels, recipe.crop, recipe.smallest_zoom**2, generator)
        seen.append(crops)
        target.append(crops)
    return torch.cat(seen), torch.cat(target)
