"""The engine: the models on their device, and what is computed for a batch of images.

Only the device thread calls ``run``. Noise comes from each image's own seed, one draw at a time, so an image's
answer depends neither on its neighbours nor on how its draws are cut into runs of ``batch_pixels``.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import torch
from torch import Tensor, nn

from model_store.card import Card
from model_store.devices import device_named
from model_store.errors import ModelStoreError, UnknownModelError
from model_store.inference import InferenceMode, compressed, noisy_draws, seeded
from model_store.pixels import to_bytes, to_float
from model_store.store import LoadedModel, ModelStore
from service.device import choose_batch_pixels, choose_precision
from service.downstream import Classifier, load_classifier
from service.errors import DeadlineExceededError, NonFiniteOutputError, OutOfDeviceMemoryError
from service.images import charge
from service.settings import Settings

LOADED_PURIFIERS = 2
WARM_UP_SIDE = 224
ONE_DRAW = MappingProxyType({"draws": 1, "jpeg": None})  # of an image that is compressed already


@dataclass(frozen=True, eq=False)
class Job:
    """One image to be purified, uint8 (3, H, W); ``classify``: and classified, before and after."""

    pixels: Tensor
    purifier: str
    mode: InferenceMode
    seed: int
    classify: bool = False
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
    """``purified``: mean of the draws, uint8 (3, H, W) on the CPU. Probabilities (classes,) float32 or None.

    The seconds are those of the whole batch that the image was part of.
    """

    purified: Tensor
    probabilities: Tensor | None
    undefended: Tensor | None
    purify_s: float
    downstream_s: float


@dataclass(eq=False)
class _Progress:
    """Running sums over one job's draws, on the device. ``prepared``: the image, compressed where its mode says so."""

    job: Job
    image: Tensor
    prepared: Tensor
    noise: torch.Generator
    total: Tensor
    probabilities: Tensor | None = None
    finite: bool = True


@dataclass
class _Clock:
    purify_s: float = 0.0
    downstream_s: float = 0.0


class Engine:
    """The purifiers of a store and one classifier, verified, on one device."""

    def __init__(self, settings: Settings, *, classify: bool = True) -> None:
        """Load and verify the default models, the classifier only where ``classify``.

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
        self._retiring: list[str] = []
        self._purifier(settings.purifier)
        self._classifier = load_classifier(settings.classifier, self._store) if classify else None
        if self._classifier is not None:
            self._place(self._classifier.module)

    @property
    def loaded(self) -> frozenset[str]:
        """Names of the models in memory."""
        return frozenset(self._loaded) | ({self._classifier.name} if self._classifier else frozenset())

    @property
    def classifier(self) -> Classifier:
        """The downstream classifier of an engine that was built with one."""
        if self._classifier is None:
            raise AssertionError("this engine was built without a classifier")
        return self._classifier

    def memory_bytes(self) -> int:
        """Bytes allocated on the accelerator; 0 on a CPU."""
        return torch.cuda.memory_allocated(self.device) if self.device.type == "cuda" else 0

    def warm_up(self) -> None:
        """Run the default models once, so that the first request does not pay for kernel selection."""
        self._try_out(self.default_purifier)

    def install(self, loaded: LoadedModel) -> None:
        """Warm a verified purifier up, and run it from now on in place of any that is loaded under its name.

        On the device thread. What the warm-up raises leaves everything as it was. It becomes the default by ``offer``.
        """
        name = loaded.card.name
        before = self._loaded.get(name)
        self._loaded[name] = self._place(loaded.module)
        try:
            self._try_out(name)
        except BaseException:
            del self._loaded[name]
            if before is not None:
                self._loaded[name] = before
            raise

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
        """Free these purifiers, but not the default nor one that was it again since. On the device thread."""
        for name in names:
            if name in self._retiring:
                self._retiring.remove(name)
            if name not in {self.default_purifier, *self._retiring}:
                self._loaded.pop(name, None)
        self._release_memory()

    def _try_out(self, purifier: str) -> None:
        pixels = torch.zeros(3, WARM_UP_SIDE, WARM_UP_SIDE, dtype=torch.uint8)
        outcome = self.run([Job(pixels, purifier, InferenceMode(noise_std=0.1), 0, classify=True)])[0]
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
                    return self._run(module, jobs, size)
            except RuntimeError as error:
                if not _is_out_of_memory(error):
                    raise
                self._release_memory()
                if len(jobs) > 1 or size == 1:
                    raise OutOfDeviceMemoryError("the device has too little memory for this image now") from error
                size = min(size, jobs[0].draws) // 2 or 1

    def _run(self, module: nn.Module, jobs: Sequence[Job], size: int) -> list[Answer | Exception]:
        """``size`` images through the purifier at a time."""
        clock = _Clock()
        progress = [self._begin(job) for job in jobs]
        turns = [entry for entry in progress for _ in range(entry.job.draws)]
        for start in range(0, len(turns), size):
            chunk = [entry for entry in turns[start : start + size] if not entry.job.abandoned.is_set()]
            if chunk:
                self._purify(module, chunk, clock)
        undefended = self._undefended(progress, clock)
        return [self._finish(entry, undefended.get(entry.job), clock) for entry in progress]

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
        wanted = [index for index, entry in enumerate(chunk) if entry.job.classify]
        if wanted:
            images = purified if len(wanted) == len(chunk) else purified[wanted]
            for index, probabilities in zip(wanted, self._classify(images, clock), strict=True):
                entry = chunk[index]
                entry.probabilities = probabilities + (0 if entry.probabilities is None else entry.probabilities)

    def _undefended(self, progress: Sequence[_Progress], clock: _Clock) -> dict[Job, Tensor]:
        """Probabilities of the images as they came."""
        wanted = [entry for entry in progress if entry.job.classify and not entry.job.abandoned.is_set()]
        if not wanted:
            return {}
        probabilities = self._classify(torch.stack([entry.image for entry in wanted]), clock)
        return {entry.job: row for entry, row in zip(wanted, probabilities, strict=True)}

    def _finish(self, entry: _Progress, undefended: Tensor | None, clock: _Clock) -> Answer | Exception:
        job, draws = entry.job, entry.job.draws
        if job.abandoned.is_set():
            return DeadlineExceededError("nobody waited for this image any more")
        defended = None if entry.probabilities is None else (entry.probabilities / draws).cpu()
        known = [p for p in (defended, undefended) if p is not None]
        if not (entry.finite and all(bool(p.isfinite().all()) for p in known)):
            return NonFiniteOutputError("a model gave NaN or infinity for this image; try another purifier or size")
        return Answer(
            purified=to_bytes(entry.total / draws).cpu(),
            probabilities=defended,
            undefended=None if undefended is None else undefended.cpu(),
            purify_s=clock.purify_s,
            downstream_s=clock.downstream_s,
        )

    def _classify(self, images: Tensor, clock: _Clock) -> Tensor:
        """Probabilities (N, classes) on the device of images (N, 3, H, W) in [0,1]."""
        begun = time.perf_counter()
        logits = self._forward(self.classifier.module, self.classifier.inputs(images))
        probabilities = logits.softmax(dim=1)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        clock.downstream_s += time.perf_counter() - begun
        return probabilities

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
                kept = {name, self.default_purifier, *self._retiring}
                if len(self._loaded) > LOADED_PURIFIERS and other not in kept:
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
