"""The engine: the models on their device, and batches run on them within the memory that there is.

Only the device's threads, one a lane, call ``run``. Noise comes from each image's own seed, one draw at a time, so an
image's answer depends neither on its neighbours nor on how its draws are cut into runs of ``batch_pixels``. An image of
more than ``tile_pixels`` goes through its purifier in tiles, as does one that does not fit whole.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from math import inf

import structlog
import torch
from torch import Tensor, nn

from model_store.card import Card
from model_store.devices import device_named
from model_store.errors import ModelStoreError, UnknownModelError
from model_store.inference import InferenceMode
from model_store.official import Kind
from model_store.store import LoadedModel, ModelStore
from service.batch import Batch
from service.budget import PixelBudget, is_out_of_memory
from service.copies import Copies
from service.device import choose_batch_pixels, choose_precision, choose_purifier
from service.downstream import AnyDownstream
from service.downstream_loading import KINDS
from service.downstreams import Downstreams, load_downstreams
from service.errors import DeadlineExceededError, NonFiniteOutputError, OutOfDeviceMemoryError
from service.findings import probabilities_of
from service.job import Answer, Job
from service.lanes import Crowd, choose_lanes
from service.remote.model import remote_models
from service.runtime import in_runtime
from service.settings import Settings
from service.tiles import Tiling

LOADED_PURIFIERS = 2
WARM_UP_SIDE = 224

log = structlog.get_logger()


class Engine:
    """The purifiers of a store and the downstream models, verified, on one device."""

    def __init__(self, settings: Settings, *, tasks: Collection[Kind] = KINDS) -> None:
        """Load and verify the default purifier, and the downstream models of ``tasks`` that the settings name.

        Remote models are none of its business but for their names. Raises the model store's errors, SettingsError or
        UnavailableDeviceError.
        """
        self.remotes = remote_models(settings, tasks)
        self.device = device_named(settings.device)
        self.precision = choose_precision(settings.precision, self.device)
        if settings.threads:
            torch.set_num_threads(settings.threads)
        threads = torch.get_num_threads()
        self.lanes = choose_lanes(settings.lanes, self.device, threads)
        self.budget = PixelBudget(choose_batch_pixels(settings.batch_pixels, self.device, self.lanes))
        self.tile_pixels = settings.tile_pixels
        self._crowd = Crowd(self.lanes, threads)
        self._runtime = settings.runtime
        self._store = ModelStore(settings.model_store)
        self.default_purifier = choose_purifier(settings.purifier, self.device)
        self.cards = {card.name: card for card in self._store.cards()}
        self.purifiers = {name: card for name, card in self.cards.items() if card.task == "purifier"}
        if self.default_purifier not in self.purifiers:
            card = self._store.card(self.default_purifier)
            raise UnknownModelError(f"{card.name!r} is a {card.task}, not a purifier; choose another NRP_PURIFIER")
        self._loaded: OrderedDict[str, nn.Module] = OrderedDict()
        self._retiring: list[str] = []
        self._loading = threading.RLock()
        self._purifier(self.default_purifier)
        models = load_downstreams(settings, self._store, tasks)
        self.downstreams = Downstreams(models, self.device, self.precision)

    @property
    def batch_pixels(self) -> int:
        """Pixels of one model run as long as memory lasts."""
        return self.budget.full

    @property
    def loaded(self) -> frozenset[str]:
        """Names of the models in memory."""
        return frozenset(self._loaded) | {model.name for model in self.downstreams.models}

    @property
    def models(self) -> tuple[AnyDownstream, ...]:
        """The downstream models, one a task at the most, here or remote."""
        return (*self.downstreams.models, *self.remotes.values())

    def downstream(self, task: Kind) -> AnyDownstream:
        """The downstream model of that task. Raises NoDownstreamError where the settings leave it out."""
        return self.remotes[task] if task in self.remotes else self.downstreams.of(task)

    def memory_bytes(self) -> int:
        """Bytes allocated on the accelerator; 0 on a CPU."""
        return torch.cuda.memory_allocated(self.device) if self.device.type == "cuda" else 0

    def warm_up(self) -> None:
        """Run the default models once, so that the first request does not pay for kernel selection."""
        for task in self.downstreams.kinds or (None,):
            self._try_out(self._purifier(self.default_purifier), task)

    def install(self, loaded: LoadedModel) -> None:
        """Warm a verified purifier up, and run it from now on in place of any that is loaded under its name.

        On a device thread. What the warm-up raises leaves everything as it was. It becomes the default by ``offer``.
        """
        module = self._placed(loaded)
        self._try_out(module)
        with self._loading:
            self._loaded[loaded.card.name] = module

    def offer(self, purifiers: Mapping[str, Card], default: str) -> None:
        """Offer these purifiers from now on. In the event loop, where no request sees half of the change.

        The default until now stays loaded for those who were promised it, until ``forget``.
        """
        if default != self.default_purifier:
            self._retiring.append(self.default_purifier)
        others = {name: card for name, card in self.cards.items() if card.task != "purifier"}
        self.purifiers = dict(purifiers)
        self.cards = dict(sorted({**purifiers, **others}.items()))
        self.default_purifier = default

    def forget(self, names: frozenset[str]) -> None:
        """Free these purifiers, but not the default nor one that was it again since. On a device thread."""
        with self._loading:
            for name in names:
                if name in self._retiring:
                    self._retiring.remove(name)
                if name not in {self.default_purifier, *self._retiring}:
                    self._loaded.pop(name, None)
        self._release_memory()

    def _try_out(self, module: nn.Module, task: Kind | None = None) -> None:
        """One image, then two: alone and in company they may take different ways."""
        pixels = torch.zeros(3, WARM_UP_SIDE, WARM_UP_SIDE, dtype=torch.uint8)
        job = Job(pixels, "", InferenceMode(noise_std=0.1), 0, task)
        with self._crowd.entered(inf if task else 0):
            for outcome in (*self._run_on(module, [job]), *self._run_on(module, [job, job])):
                if isinstance(outcome, Exception):
                    raise outcome

    def run(self, jobs: Sequence[Job]) -> list[Answer | Exception]:
        """One outcome a job; the jobs share purifier and shape.

        Raises OutOfDeviceMemoryError when several do not fit together; one alone is tried with fewer draws at a time,
        then in tiles, each time smaller ones.
        """
        try:
            module = self._purifier(jobs[0].purifier)
        except ModelStoreError as error:
            return [error] * len(jobs)
        # How long a downstream model takes is not known.
        known = getattr(module, "operations_per_pixel", inf) if all(job.task is None for job in jobs) else inf
        with self._crowd.entered(known * sum(job.cost for job in jobs)):
            return self._run_on(module, jobs)

    def _run_on(self, module: nn.Module, jobs: Sequence[Job]) -> list[Answer | Exception]:
        pixels = jobs[0].pixels_charged
        tiling = self._tiling(module, jobs[0]) if pixels > self.tile_pixels else None
        size = 1 if tiling else max(1, self.budget.now // pixels)
        while True:
            try:
                with torch.inference_mode():
                    answers = self._run(module, jobs, size, tiling)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                self._give_way(min(size, sum(job.draws for job in jobs)) * pixels if tiling is None else tiling.largest)
                if len(jobs) > 1:
                    raise OutOfDeviceMemoryError(
                        "the device has too little memory for these images together"
                    ) from error
                if size == 1:
                    tiling = self._smaller(module, jobs[0], tiling, error)
                size = min(size, jobs[0].draws) // 2 or 1
            else:
                self.budget.creep_up()
                return answers

    def hold(self, name: str) -> nn.Module:
        """The purifier of that name, for who needs the same weights from beginning to end, whatever is put in service
        meanwhile. On the device thread. Raises the model store's errors."""
        return self._purifier(name)

    def label_counts(self, purifier: nn.Module, copies: Copies) -> Tensor:
        """How often the classifier gives each label to noisy ``copies`` of an image, purified: (classes,) int64.

        On the device thread; as many copies at a time as fit. Raises OutOfDeviceMemoryError where one whole copy does
        not, NonFiniteOutputError, and DeadlineExceededError once they are abandoned.
        """
        size = max(1, min(copies.count, self.budget.now // copies.weight))
        classify = partial(self._labels, purifier, copies)
        while True:
            try:
                with self._crowd.entered(inf), torch.inference_mode():
                    counts = copies.counts(classify, self.device, size)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                self._give_way(size * copies.weight)
                if size == 1:
                    raise OutOfDeviceMemoryError(
                        "the device has too little memory for a noisy copy of this image now"
                    ) from error
                size //= 2
            else:
                self.budget.creep_up()
                return counts

    def _labels(self, purifier: nn.Module, copies: Copies, noisy: Tensor) -> Tensor:
        """The label of each of the noisy images (N, 3, H, W)."""
        if copies.abandoned.is_set():
            raise DeadlineExceededError("nobody waited for this certificate any more")
        purified = self._forward(purifier, noisy)
        _check_finite(purified)
        findings = self.downstreams.findings("classifier", purified.clamp(0, 1), self.budget.now)
        probabilities = torch.stack([probabilities_of(finding) for finding in findings])
        _check_finite(probabilities)
        return probabilities.argmax(dim=1)

    def _run(
        self, module: nn.Module, jobs: Sequence[Job], size: int, tiling: Tiling | None
    ) -> list[Answer | Exception]:
        """The jobs, in batches whose running sums of downstream answers fit into the budget."""
        height, width = int(jobs[0].pixels.shape[-2]), int(jobs[0].pixels.shape[-1])
        held = max(
            (self.downstreams.of(task).held(height, width) for task in {job.task for job in jobs} if task), default=0
        )
        together = max(1, self.budget.now // held) if held else len(jobs)
        outcomes: list[Answer | Exception] = []
        for start in range(0, len(jobs), together):
            part = jobs[start : start + together]
            batch = Batch(part, partial(self._forward, module), self.downstreams, self.device, self.budget.now)
            outcomes += batch.run(size, tiling)
        return outcomes

    def _tiling(self, module: nn.Module, job: Job) -> Tiling:
        return Tiling.of(int(job.pixels.shape[-2]), int(job.pixels.shape[-1]), module, self.budget.now)

    def _smaller(self, module: nn.Module, job: Job, tiling: Tiling | None, error: RuntimeError) -> Tiling:
        """Tiles for the next try. Raises OutOfDeviceMemoryError where there are no smaller ones."""
        smaller = self._tiling(module, job)
        if smaller.largest >= (job.pixels[0].numel() if tiling is None else tiling.largest):
            raise OutOfDeviceMemoryError("the device has too little memory for this image now") from error
        return smaller

    def _give_way(self, tried: int) -> None:
        """After an out-of-memory in a run of ``tried`` pixels."""
        self._release_memory()
        self.budget.lower(tried)
        log.warning("out_of_memory", tried_pixels=tried, next_pixels=self.budget.now)

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
        with self._loading:
            if name not in self._loaded:
                self._loaded[name] = self._placed(self._store.load(name))
                for other in list(self._loaded):
                    kept = {name, self.default_purifier, *self._retiring}
                    if len(self._loaded) > LOADED_PURIFIERS and other not in kept:
                        del self._loaded[other]
            self._loaded.move_to_end(name)
            return self._loaded[name]

    def _placed(self, loaded: LoadedModel) -> nn.Module:
        return in_runtime(loaded, self._runtime, self.device, self.precision, self._crowd)

    def _release_memory(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def _check_finite(output: Tensor) -> None:
    if not output.isfinite().all():
        raise NonFiniteOutputError("a model gave NaN or infinity for this image; try another purifier or size")
