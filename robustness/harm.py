"""Harm and cost: what a purifier does to clean images, and how long it takes over one."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import torch
from skimage.metrics import mean_squared_error, structural_similarity
from torch import Tensor

from model_store.pixels import to_8bit
from robustness.conditions import Conditions, Precision
from robustness.cost import time_draws
from robustness.defences import Purification
from robustness.errors import EvaluationError, VictimError
from robustness.examples import Examples
from robustness.results.defence_card import Cost, Harm
from robustness.seeds import derive_seed
from robustness.victims.victim import Victim

# The window over which scikit-image compares structure (Wang et al., 2004, in its uniform variant).
SSIM_WINDOW = 7


@torch.inference_mode()
def measure_harm(
    purification: Purification, examples: Examples, victims: Sequence[Victim], conditions: Conditions
) -> tuple[Harm, ...]:
    """What ``purification`` does to clean ``examples``, one entry a victim, which must be a classifier.

    PSNR and SSIM compare the image with the one that the service would return: the mean over draws, rounded to 8 bits.
    PSNR is that of the mean squared error over all images, so one untouched image does not make it infinite. Victims
    answer from the draws themselves, as they do where accuracy is measured. Raises EvaluationError, VictimError.
    """
    if not len(examples) or min(examples.pixels.shape[-2:]) < SSIM_WINDOW:
        raise EvaluationError(f"harm is measured on at least one image of at least {SSIM_WINDOW} pixels a side")
    errors: list[float] = []
    likeness: list[float] = []
    alike = dict.fromkeys((victim.name for victim in victims), 0)
    chunk = max(1, conditions.batch // purification.draw_count)
    for start in range(0, len(examples), chunk):
        images = conditions.floats(examples.pixels[start : start + chunk])
        seeds = [derive_seed(conditions.seed, "defence", start + place) for place in range(len(images))]
        with conditions.autocast():
            versions = purification.draws(images, seeds)
            for victim in victims:
                same = _choice(victim, images.unsqueeze(1)) == _choice(victim, versions)
                alike[victim.name] += int(same.sum())
        purified = to_8bit(versions.float().mean(dim=1))
        for before, after in zip(images.cpu().numpy(), purified.cpu().numpy(), strict=True):
            errors.append(float(mean_squared_error(before, after)))
            ssim = structural_similarity(before, after, data_range=1.0, channel_axis=0)  # type: ignore[no-untyped-call]
            likeness.append(float(ssim))
    error, count = statistics.fmean(errors), len(examples)
    psnr = math.inf if error == 0 else -10 * math.log10(error)
    kept = statistics.fmean(likeness)
    return tuple(
        Harm(purification.name, victim.name, psnr, kept, 100 * alike[victim.name] / count, count) for victim in victims
    )


def _choice(victim: Victim, versions: Tensor) -> Tensor:
    answers = victim.answer(versions)
    if "log_probabilities" not in answers:
        raise VictimError(f"{victim.name} is no classifier; harm is measured with classifiers, name some")
    return answers["log_probabilities"].argmax(dim=1)


@torch.inference_mode()
def measure_cost(
    purification: Purification, size: int, repeats: int, *, batch: int = 1, precision: Precision = "float32"
) -> Cost:
    """The median time an image of ``size`` x ``size`` takes over ``repeats`` runs, after two that do not count.

    It runs where the purifier is, in ``precision``, with all draws of its mode. Raises EvaluationError unless size,
    repeats and batch are at least 1.
    """
    if min(size, repeats, batch) < 1:
        raise EvaluationError(
            "cost is measured on images of at least one pixel, in at least one run; raise the numbers"
        )
    parameter = next(purification.module.parameters(), None)
    device = torch.device("cpu") if parameter is None else parameter.device
    images = torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(0)).to(device)
    images = images.contiguous(memory_format=torch.channels_last)
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        seconds = [time_draws(purification, images) for _ in range(2 + repeats)][2:]
    where = f"cuda ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else device.type
    milliseconds = 1000 * statistics.median(seconds) / batch
    return Cost(purification.name, milliseconds, size, batch, where, torch.get_num_threads(), precision)
