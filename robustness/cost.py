"""Cost: how long defences take over one image, timed in turn so that a busy moment hits all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from robustness.conditions import Conditions
from robustness.defences import Defence
from robustness.errors import EvaluationError
from robustness.progress import Progress

# Rounds that do not count: memory is allocated and kernels are chosen in them.
WARMING = 2


@torch.inference_mode()
def time_defences(
    defences: Sequence[Defence], side: int, repeats: int, threads: int, conditions: Conditions, progress: Progress
) -> dict[str, list[float]]:
    """Milliseconds of each of ``repeats`` runs over one image of ``side`` x ``side``, by the defence's name.

    Every round runs each defence once, all draws of its mode. Raises EvaluationError for an empty measurement.
    """
    if min(side, repeats, threads) < 1 or not defences:
        raise EvaluationError("cost is measured of at least one defence, on one pixel, in one run, by one thread")
    pixels = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(conditions.seed))
    image = pixels.to(conditions.device).contiguous(memory_format=torch.channels_last)
    found: dict[str, list[float]] = {defence.name: [] for defence in defences}
    progress.begin(f"{len(defences)} defences in turn")
    rounds = WARMING + repeats
    with limited(threads), conditions.autocast(), progress.bar(rounds * len(defences), "run") as bar:
        for turn in range(rounds):
            for defence in defences:
                seconds = time_draws(defence, image)
                if turn >= WARMING:
                    found[defence.name].append(1000 * seconds)
                bar.update(1)
    return found


def middle_half(runs: Sequence[float]) -> tuple[float, float]:
    """The first and the third quartile, to a tenth of a microsecond."""
    if len(runs) < 2:
        return runs[0], runs[0]
    low, _, high = statistics.quantiles(runs, n=4, method="inclusive")
    return round(low, 4), round(high, 4)


def time_draws(defence: Defence, images: Tensor) -> float:
    """Seconds that all draws of ``images`` (N, 3, H, W) take, to the end of the device's work."""
    began = time.perf_counter()
    defence.draws(images, range(len(images)))
    if images.is_cuda:
        torch.cuda.synchronize(images.device)
    return time.perf_counter() - began


@contextmanager
def limited(threads: int) -> Iterator[None]:
    """As many CPU threads as asked for, and as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
