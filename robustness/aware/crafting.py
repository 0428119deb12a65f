"""Crafting: adversaries of a batch of photos, brought to 8 bits and kept, so that a kill loses one batch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from model_store.pixels import to_bytes
from robustness.attacks.attack import Knowledge
from robustness.attacks.square import Square
from robustness.aware.defended import Defended
from robustness.aware.judging import decision_seed
from robustness.aware.losses import LOSSES
from robustness.aware.material import Material
from robustness.aware.objective import Noise, Objective, fresh_noise, known_noise
from robustness.aware.plan import Assault, AwarePlan
from robustness.cache import Tensors
from robustness.seeds import derive_seed

# An L2 norm over all pixels under which a gradient is no direction.
VANISHED = 1e-20


@dataclass(frozen=True)
class Adversaries:
    """What an attack made of the first N photos: ``pixels`` uint8 (N, 3, H, W), the clean ones where not attacked.

    ``blind`` (N,) bool: the gradient at the clean photo vanished, or was not finite; ``attacked`` (N,) bool.
    """

    pixels: Tensor
    blind: Tensor
    attacked: Tensor


def adversaries(
    material: Material, defended: Defended, plan: AwarePlan, attack: Assault | Square, spared: Tensor
) -> Adversaries:
    """``attack`` through ``defended`` on the photos that are not ``spared`` (N,), batch by batch, each batch kept."""
    title = f"{attack.name}, eps {attack.eps:g}/255 through {defended.name}"
    size = plan.batch if isinstance(attack, Assault) else plan.square_batch
    pixels, blind = [], []
    for places in material.batches(title, len(spared), size):
        part, alive = material.examples.pick(places), places[~spared[places]]
        found, unseen = part.pixels.clone(), torch.zeros(len(places), dtype=torch.bool)
        if len(alive):
            made_from = _made_from(defended, plan, attack) | {"images": part.digest, "attacked": alive.tolist()}
            label = f"aware {attack.name} eps{attack.eps:g} {defended.victim} {defended.name} {int(places[0])}"
            make = partial(craft, material, defended, plan, attack, alive)
            kept = material.recall(label, made_from, make)
            found[~spared[places]], unseen[~spared[places]] = kept["pixels"], kept["blind"]
        pixels.append(found)
        blind.append(unseen)
    return Adversaries(torch.cat(pixels), torch.cat(blind), ~spared)


def _made_from(defended: Defended, plan: AwarePlan, attack: Assault | Square) -> dict[str, object]:
    draws = plan.square_draws if isinstance(attack, Square) else attack.eot
    return {"attack": repr(attack), "draws": draws, "through": repr(defended), "arithmetic": repr(plan.attacked)}


def craft(material: Material, defended: Defended, plan: AwarePlan, attack: Assault | Square, places: Tensor) -> Tensors:
    """``pixels`` uint8 (M, 3, H, W) and ``blind`` (M,) of the photos at ``places``."""
    images = material.floats(material.examples.pixels[places])
    seed = derive_seed(material.seed, "aware attack", attack.name, defended.name, int(attack.eps), *places.tolist())
    if isinstance(attack, Square):
        return {
            "pixels": _searched(material, defended, plan, attack, places, seed),
            "blind": torch.zeros(len(places), dtype=torch.bool),
        }
    objective = Objective(
        defended,
        material.labels(places),
        LOSSES[attack.loss],
        attack.route,
        _noise(material, defended, attack, places, images, seed),
        plan.attacked,
        plan.chunk,
    )
    _, slope = objective.measured(images, with_slope=True)
    flat = slope.flatten(1)
    blind = ~flat.isfinite().all(dim=1) | (flat.norm(dim=1) < VANISHED)
    found = _repeated(attack, objective, images, torch.Generator().manual_seed(seed))
    return {"pixels": to_bytes(found).cpu(), "blind": blind.cpu()}


def _noise(material: Material, defended: Defended, attack: Assault, places: Tensor, images: Tensor, seed: int) -> Noise:
    """What the attacker averages over: fresh draws of his own, or those of the first decision where they are known."""
    if defended.mode.static:
        return known_noise(images.new_zeros(len(images), 1, 1, 1, 1))
    if not attack.known_noise:
        return fresh_noise(attack.eot, torch.Generator(images.device).manual_seed(derive_seed(seed, "noise")))
    seeds = [decision_seed(material, 0, int(place)) for place in places]
    drawn = defended.service_noise(images, seeds, torch.arange(len(images) * defended.mode.draws))
    return known_noise(drawn.view(len(images), defended.mode.draws, *images.shape[1:]))


def _repeated(attack: Assault, objective: Objective, images: Tensor, generator: torch.Generator) -> Tensor:
    """Of ``restarts`` runs, of each photo the point of highest loss, as fresh draws measure it for every run anew."""
    known = Knowledge(loss=objective)
    best = attack.attack(images, known, generator)
    for _ in range(attack.restarts - 1):
        other = attack.attack(images, known, generator)
        with torch.no_grad():
            higher = objective(other) > objective(best)
        best = torch.where(higher.view(-1, 1, 1, 1), other, best)
    return best


def _searched(
    material: Material, defended: Defended, plan: AwarePlan, attack: Square, places: Tensor, seed: int
) -> Tensor:
    """Square's adversaries, of the class probabilities averaged over draws that stay the same for all queries.

    With fresh draws, the search would keep the square that had the luckiest ones.
    """
    images = material.floats(material.examples.pixels[places])
    draws = 1 if defended.mode.static else plan.square_draws
    noise = torch.randn(draws, *images.shape[1:], generator=torch.Generator().manual_seed(seed)).to(images.device)

    def logits(candidates: Tensor) -> Tensor:
        prepared = defended.prepared(candidates)
        copies = prepared.repeat_interleave(draws, dim=0)
        said = []
        for part in torch.split(torch.arange(len(copies)), plan.chunk):
            purified = defended.purified(copies[part], noise[part % draws], plan.attacked)
            said.append(defended.logits(purified, plan.attacked).log_softmax(dim=1))
        return torch.cat(said).view(len(candidates), draws, -1).logsumexp(dim=1) - math.log(draws)

    with torch.inference_mode():
        found = attack(
            images, Knowledge(logits=logits, labels=material.labels(places)), torch.Generator().manual_seed(seed)
        )
    return to_bytes(found).cpu()
