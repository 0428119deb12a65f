"""One batch: jobs of equal purifier and shape on their way through the models.

How draws combine: a classifier and a segmenter are asked about every noisy draw and their probabilities averaged, class
by class and pixel by pixel; boxes have no mean, so a detector is asked once, about the mean purified image.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model_store.official import Kind
from service.downstreams import Downstreams
from service.draws import Draws, Network, add_at_once
from service.errors import DeadlineExceededError, NonFiniteOutputError
from service.findings import Finding, is_finite, on_cpu, probabilities_of
from service.job import Answer, Job
from service.tiles import Tiling


@dataclass(eq=False)
class _Progress:
    """Running sums over one job's draws, on the device.

    ``finding``: the sum of the draws' probabilities, or what was found on the mean image.
    """

    job: Job
    draws: Draws
    finding: Finding | None = None
    undefended: Finding | None = None

    @property
    def wants_undefended(self) -> bool:
        return self.job.compare or self.job.task == "classifier"  # whose prediction shift is part of every report

    def add(self, finding: Finding) -> None:
        """Count one draw's finding."""
        self.finding = finding if self.finding is None else probabilities_of(self.finding) + probabilities_of(finding)

    def mean(self) -> Tensor:
        """The mean of the draws, (3, H, W) in [0,1]. That of a single draw is no copy."""
        return self.draws.total if self.job.draws == 1 else self.draws.total / self.job.draws


class Batch:
    """``network`` purifies, ``downstreams`` are asked about the outcome; ``budget``: pixels of one run of theirs."""

    def __init__(
        self, jobs: Sequence[Job], network: Network, downstreams: Downstreams, device: torch.device, budget: int
    ) -> None:
        self._progress = [_Progress(job, Draws(job.pixels, job.mode, job.seed, device)) for job in jobs]
        self._network = network
        self._downstreams = downstreams
        self._device = device
        self._budget = budget
        self._purify_s = 0.0
        self._downstream_s = 0.0

    def run(self, size: int, tiling: Tiling | None) -> list[Answer | Exception]:
        """One outcome a job: ``size`` images through the purifier at a time, with a ``tiling`` one tile at a time."""
        turns = [entry for entry in self._progress for _ in range(entry.job.draws)]
        for start in range(0, len(turns), size):
            chunk = [entry for entry in turns[start : start + size] if not entry.job.abandoned.is_set()]
            if chunk:
                self._purify(chunk, tiling)
        self._ask_the_rest()
        return [self._finish(entry) for entry in self._progress]

    def _purify(self, chunk: Sequence[_Progress], tiling: Tiling | None) -> None:
        """One draw for each entry of ``chunk``; an entry with several draws appears several times."""
        begun = time.perf_counter()
        if tiling is None:
            purified = add_at_once([entry.draws for entry in chunk], self._network)
        else:
            job, draws = chunk[0].job, chunk[0].draws
            apart = job.draws > 1 and self._judges_draws(job.task)
            purified = draws.add_in_tiles(tiling, self._network, job.abandoned.is_set, apart=apart)
        self._purify_s += time.perf_counter() - begun
        for task in self._downstreams.kinds:
            asking = [index for index, entry in enumerate(chunk) if entry.job.task == task and self._judges_draws(task)]
            if asking and not all(chunk[index].job.abandoned.is_set() for index in asking):
                images = purified if len(asking) == len(chunk) else purified[asking]  # a large one is not copied
                self._ask(task, [chunk[index] for index in asking], images)

    def _judges_draws(self, task: Kind | None) -> bool:
        """Whether each draw is judged by itself, so that it must be had apart from the others."""
        return task is not None and self._downstreams.of(task).averages

    def _ask_the_rest(self) -> None:
        """What has no mean over draws, about the mean images; then, where that is wanted, about the images as given."""
        for task in self._downstreams.kinds:
            # A network may do anything with NaN, even raise; such an image fails by itself later.
            entries = [
                entry
                for entry in self._progress
                if entry.job.task == task and entry.draws.finite and not entry.job.abandoned.is_set()
            ]
            if entries and not self._judges_draws(task):
                self._ask(task, entries, _together([entry.mean() for entry in entries]))
            compared = [entry for entry in entries if entry.wants_undefended]
            if compared:
                self._ask(task, compared, _together([entry.draws.image for entry in compared]), undefended=True)

    def _ask(self, task: Kind, entries: Sequence[_Progress], images: Tensor, *, undefended: bool = False) -> None:
        """Add the findings about images (N, 3, H, W), one an entry, which may appear several times."""
        begun = time.perf_counter()
        findings = self._downstreams.findings(task, images, self._budget)
        for entry, finding in zip(entries, findings, strict=True):
            if undefended:
                entry.undefended = finding
            else:
                entry.add(finding)
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self._downstream_s += time.perf_counter() - begun

    def _finish(self, entry: _Progress) -> Answer | Exception:
        job = entry.job
        if job.abandoned.is_set():
            return DeadlineExceededError("nobody waited for this image any more")
        known = [finding for finding in (entry.finding, entry.undefended) if finding is not None]
        if not (entry.draws.finite and all(map(is_finite, known))):
            return NonFiniteOutputError("a model gave NaN or infinity for this image; try another purifier or size")
        return Answer(
            purified=entry.draws.mean(job.draws),
            defended=self._settled(job, entry.finding, job.draws),
            undefended=self._settled(job, entry.undefended, 1),
            purify_s=self._purify_s,
            downstream_s=self._downstream_s,
        )

    def _settled(self, job: Job, finding: Finding | None, draws: int) -> Finding | None:
        if finding is None or job.task is None:
            return None
        height, width = job.pixels.shape[-2:]
        return on_cpu(self._downstreams.of(job.task).settled(finding, draws, int(height), int(width)))


def _together(images: Sequence[Tensor]) -> Tensor:
    """(3, H, W) each, as (N, 3, H, W); one alone, which may be large, is not copied."""
    return images[0].unsqueeze(0) if len(images) == 1 else torch.stack(list(images))
