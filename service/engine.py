"""The engine: the models on their device, and what is computed for a batch of images.

How draws combine: a classifier and a segmenter are asked about every noisy draw and their probabilities averaged, class
by class and pixel by pixel; boxes have no mean, so a detector is asked once, about the mean purified image.

Only the device thread calls ``run``. Noise comes from each image's own seed, one draw at a time, so an image's
answer depends neither on its neighbours nor on how its draws are cut into runs of ``batch_pixels``.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import torch
from torch import Tensor, nn

from model_store.devices import device_named
from model_store.errors import ModelStoreError, UnknownModelError
from model_store.inference import InferenceMode, compressed, noisy_draws, seeded
from model_store.official import Kind
from model_store.pixels import to_bytes, to_float
from model_store.store import ModelStore
from service.device import choose_batch_pixels, choose_precision
from service.downstream import Downstream
from service.downstream_loading import KINDS
from service.downstreams import Downstreams, load_downstreams
from service.errors import DeadlineExceededError, NonFiniteOutputError, OutOfDeviceMemoryError
from service.findings import Finding, is_finite, on_cpu, probabilities_of
from service.images import charge
from service.settings import Settings

LOADED_PURIFIERS = 2
WARM_UP_SIDE = 224
ONE_DRAW = MappingProxyType({"draws": 1, "jpeg": None})  # of an image that is compressed already


@dataclass(frozen=True, eq=False)
class Job:
    """One image to be purified, uint8 (3, H, W); ``task``: and handed to the downstream model of that kind.

    ``compare``: the model is also asked about the image as it came; a classifier always is.
    """

    pixels: Tensor
    purifier: str
    mode: InferenceMode
    seed: int
    task: Kind | None = None
    compare: bool = False
    abandoned: threading.Event = field(default_factory=threading.Event)

    @property
    def draws(self) -> int:
        """Draws that are really computed: without noise they would all be the same."""
        return 1 if self.mode.static else self.mode.draws

    @property
    def pixels_charged(self) -> int:
        """Pixels of one draw, as budgets count them."""
        return charge(int(self.pixels.shape[-1]), int(self.pixels.shape[-2]))

    @property
    def cost(self) -> int:
        """Pixels through the purifier, all draws together."""
        return self.pixels_charged * self.draws

    @property
    def key(self) -> tuple[str, int, int]:
        """Jobs of equal key can be run together."""
        return self.purifier, int(self.pixels.shape[-2]), int(self.pixels.shape[-1])


@dataclass(frozen=True, eq=False)
class Answer:
    """``purified``: mean of the draws, uint8 (3, H, W) on the CPU. ``defended`` and ``undefended``: what the downstream
    model says of it and of the image as it came, on the CPU, None where it was not asked.

    The seconds are those of the whole batch that the image was part of.
    """

    purified: Tensor
    defended: Finding | None
    undefended: Finding | None
    purify_s: float
    downstream_s: float


@dataclass(eq=False)
class _Progress:
    """Running sums over one job's draws, on the device. ``prepared``: the image, compressed where its mode says so.

    ``finding``: the sum of the draws' probabilities, or what was found on the mean image.
    """

    job: Job
    image: Tensor
    prepared: Tensor
    noise: torch.Generator
    total: Tensor
    finding: Finding | None = None
    undefended: Finding | None = None
    finite: bool = True

    @property
    def wants_undefended(self) -> bool:
        return self.job.compare or self.job.task == "classifier"  # whose prediction shift is part of every report

    def add(self, finding: Finding) -> None:
        """Count one draw's finding."""
        self.finding = finding if self.finding is None else probabilities_of(self.finding) + probabilities_of(finding)


@dataclass
class _Clock:
    purify_s: float = 0.0
    downstream_s: float = 0.0


class Engine:
    """The purifiers of a store and the downstream models, verified, on one device."""

    def __init__(self, settings: Settings, *, tasks: Collection[Kind] = KINDS) -> None:
        """Load and verify the default purifier, and the downstream models of ``tasks`` that the settings name.

        Raises the model store's errors or UnavailableDeviceError.
        """
        self.device = device_named(settings.device)
        self.precision = choose_precision(settings.precision, self.device)
        self.batch_pixels = choose_batch_pixels(settings.batch_pixels, self.device)
        if settings.threads:
            torch.set_num_threads(settings.threads)
        self._store = ModelStore(settings.model_store)
        self.default_purifier = settings.purifier
        self.cards = {card.name: card for card in self._store.cards()}
        self.purifiers = {name: card for name, card in self.cards.items() if card.task == "purifier"}
        if settings.purifier not in self.purifiers:
            card = self._store.card(settings.purifier)
            raise UnknownModelError(f"{card.name!r} is a {card.task}, not a purifier; choose another NRP_PURIFIER")
        self._loaded: OrderedDict[str, nn.Module] = OrderedDict()
        self._purifier(settings.purifier)
        models = load_downstreams(settings, self._store, tasks)
        self.downstreams = Downstreams(models, self.device, self.precision)

    @property
    def loaded(self) -> frozenset[str]:
        """Names of the models in memory."""
        return frozenset(self._loaded) | {model.name for model in self.downstreams.models}

    def downstream(self, task: Kind) -> Downstream:
        """The downstream model of that task. Raises NoDownstreamError where the settings leave it out."""
        return self.downstreams.of(task)

    def memory_bytes(self) -> int:
        """Bytes allocated on the accelerator; 0 on a CPU."""
        return torch.cuda.memory_allocated(self.device) if self.device.type == "cuda" else 0

    def warm_up(self) -> None:
        """Run the default models once, so that the first request does not pay for kernel selection."""
        pixels = torch.zeros(3, WARM_UP_SIDE, WARM_UP_SIDE, dtype=torch.uint8)
        mode = InferenceMode(noise_std=0.1)
        for task in self.downstreams.kinds or (None,):
            outcome = self.run([Job(pixels, self.default_purifier, mode, 0, task)])[0]
            if isinstance(outcome, Exception):
                raise outcome

    def run(self, jobs: Sequence[Job]) -> list[Answer | Exception]:
        """One outcome a job; the jobs share purifier and shape.

        Raises OutOfDeviceMemoryError when several do not fit together; one alone is tried with fewer draws at a time.
        """
        try:
            module = self._purifier(jobs[0].purifier)
        except ModelStoreError as error:
            return [error] * len(jobs)
        size = max(1, self.batch_pixels // jobs[0].pixels_charged)
        while True:
            try:
                with torch.inference_mode():
                    parts = self._parts(jobs)
                    return [outcome for part in parts for outcome in self._run(module, part, size)]
            except RuntimeError as error:
                if not _is_out_of_memory(error):
                    raise
                self._release_memory()
                if len(jobs) > 1 or size == 1:
                    raise OutOfDeviceMemoryError("the device has too little memory for this image now") from error
                size = min(size, jobs[0].draws) // 2 or 1

    def _parts(self, jobs: Sequence[Job]) -> list[Sequence[Job]]:
        """The jobs, in parts whose running sums of downstream answers fit into the budget."""
        height, width = int(jobs[0].pixels.shape[-2]), int(jobs[0].pixels.shape[-1])
        held = [self.downstreams.of(task).held(height, width) for task in {job.task for job in jobs} if task]
        most = max(held, default=0)
        size = max(1, self.batch_pixels // most) if most else len(jobs)
        return [jobs[start : start + size] for start in range(0, len(jobs), size)]

    def _run(self, module: nn.Module, jobs: Sequence[Job], size: int) -> list[Answer | Exception]:
        """``size`` images through the purifier at a time."""
        clock = _Clock()
        progress = [self._begin(job) for job in jobs]
        turns = [entry for entry in progress for _ in range(entry.job.draws)]
        for start in range(0, len(turns), size):
            chunk = [entry for entry in turns[start : start + size] if not entry.job.abandoned.is_set()]
            if chunk:
                self._purify(module, chunk, clock)
        self._ask_the_rest(progress, clock)
        return [self._finish(entry, clock) for entry in progress]

    def _begin(self, job: Job) -> _Progress:
        image = to_float(job.pixels.to(self.device))
        return _Progress(job, image, compressed(image, job.mode), seeded(job.seed), torch.zeros_like(image))

    def _purify(self, module: nn.Module, chunk: Sequence[_Progress], clock: _Clock) -> None:
        """One draw for each entry of ``chunk``; an entry with several draws appears several times."""
        begun = time.perf_counter()
        noisy = torch.cat([noisy_draws(e.prepared, e.job.mode.model_copy(update=ONE_DRAW), e.noise) for e in chunk])
        purified = self._forward(module, noisy)
        finite = purified.isfinite().flatten(1).all(dim=1).tolist()
        purified = purified.clamp(0, 1)
        for entry, image, good in zip(chunk, purified, finite, strict=True):
            entry.total += image
            entry.finite = entry.finite and good
        clock.purify_s += time.perf_counter() - begun
        for task in self.downstreams.kinds:
            asking = [index for index, entry in enumerate(chunk) if entry.job.task == task]
            if asking and self.downstreams.of(task).averages:
                self._ask(task, [chunk[index] for index in asking], purified[asking], clock)

    def _ask_the_rest(self, progress: Sequence[_Progress], clock: _Clock) -> None:
        """What has no mean over draws, about the mean images; then, where that is wanted, about the images as given."""
        for task in self.downstreams.kinds:
            # A network may do anything with NaN, even raise; such an image fails by itself later.
            entries = [e for e in progress if e.job.task == task and e.finite and not e.job.abandoned.is_set()]
            if entries and not self.downstreams.of(task).averages:
                self._ask(task, entries, torch.stack([e.total / e.job.draws for e in entries]), clock)
            compared = [entry for entry in entries if entry.wants_undefended]
            if compared:
                self._ask(task, compared, torch.stack([e.image for e in compared]), clock, undefended=True)

    def _ask(
        self, task: Kind, entries: Sequence[_Progress], images: Tensor, clock: _Clock, *, undefended: bool = False
    ) -> None:
        """Add the findings about images (N, 3, H, W), one an entry, which may appear several times."""
        begun = time.perf_counter()
        findings = self.downstreams.findings(task, images, self.batch_pixels)
        for entry, finding in zip(entries, findings, strict=True):
            if undefended:
                entry.undefended = finding
            else:
                entry.add(finding)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        clock.downstream_s += time.perf_counter() - begun

    def _finish(self, entry: _Progress, clock: _Clock) -> Answer | Exception:
        job, draws = entry.job, entry.job.draws
        if job.abandoned.is_set():
            return DeadlineExceededError("nobody waited for this image any more")
        known = [finding for finding in (entry.finding, entry.undefended) if finding is not None]
        if not (entry.finite and all(map(is_finite, known))):
            return NonFiniteOutputError("a model gave NaN or infinity for this image; try another purifier or size")
        return Answer(
            purified=to_bytes(entry.total / draws).cpu(),
            defended=self._settled(job, entry.finding, draws),
            undefended=self._settled(job, entry.undefended, 1),
            purify_s=clock.purify_s,
            downstream_s=clock.downstream_s,
        )

    def _settled(self, job: Job, finding: Finding | None, draws: int) -> Finding | None:
        if finding is None or job.task is None:
            return None
        height, width = job.pixels.shape[-2:]
        return on_cpu(self.downstreams.of(job.task).settled(finding, draws, int(height), int(width)))

    def _forward(self, module: nn.Module, images: Tensor) -> Tensor:
        """Run a module in the chosen precision; float32 out.

        Autocast rather than casting the images: only convolutions and products lose bits, so a purifier's skip
        connection still carries all 256 levels.
        """
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision is torch.bfloat16):
            out: Tensor = module(images)
        return out.float()

    def _purifier(self, name: str) -> nn.Module:
        """The purifier of that name, loaded now if need be; of those beside the default the latest stay loaded."""
        if name not in self._loaded:
            self._loaded[name] = self._place(self._store.load(name).module)
            for other in list(self._loaded):
                if len(self._loaded) > LOADED_PURIFIERS and other not in {name, self.default_purifier}:
                    del self._loaded[other]
        self._loaded.move_to_end(name)
        return self._loaded[name]

    def _place(self, module: nn.Module) -> nn.Module:
        """Onto the device, in the memory format that its convolutions are fastest in."""
        return module.to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    def _release_memory(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def _is_out_of_memory(error: RuntimeError) -> bool:
    # The CPU allocator has no class of its own.
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
