"""The downstream models of one engine: loaded, placed, and asked in runs that fit into the memory."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from model_store.devices import place
from model_store.official import Kind
from model_store.program import Program
from model_store.store import ModelStore
from service.downstream import Downstream
from service.downstream_loading import VARIABLES, load_downstream
from service.errors import NoDownstreamError
from service.findings import Finding
from service.remote.address import is_remote
from service.settings import Settings

LEFT_OUT = "none"
AUTO = "auto"
SHIPPED_SCENE_MODELS: Mapping[Kind, str] = MappingProxyType(
    {"segmenter": "camvid-segnet", "detector": "bccd-retinanet"}
)


class Downstreams:
    """At most one model a task, on ``device``. Only the device thread calls ``findings``."""

    def __init__(self, models: Mapping[Kind, Downstream], device: torch.device, precision: torch.dtype) -> None:
        self._models = dict(models)
        self._device = device
        self._precision = precision
        for model in models.values():
            _place(model, device)

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The tasks that there is a model for."""
        return tuple(self._models)

    @property
    def models(self) -> tuple[Downstream, ...]:
        """The models, one a kind."""
        return tuple(self._models.values())

    def of(self, kind: Kind) -> Downstream:
        """The model of that task. Raises NoDownstreamError."""
        if kind not in self._models:
            raise NoDownstreamError(
                f"this service has no {kind}; its operator can name one in {VARIABLES[kind]} and start it again"
            )
        return self._models[kind]

    def findings(self, kind: Kind, images: Tensor, budget: int) -> Iterator[Finding]:
        """One finding each of images (N, 3, H, W) in [0,1] on the device, as many run at a time as ``budget`` pixels.

        Yielded as they come, so that a caller that adds them up never holds them all.
        """
        model = self.of(kind)
        height, width = int(images.shape[-2]), int(images.shape[-1])
        for part in torch.split(images, max(1, budget // model.extent(height, width))):
            inputs = model.inputs(part).contiguous(memory_format=torch.channels_last)
            fast = self._precision is torch.bfloat16 and not model.exact
            with torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=fast):
                output = model.module(inputs)
            yield from model.findings(output, height, width)


def load_downstreams(settings: Settings, store: ModelStore, tasks: Collection[Kind]) -> dict[Kind, Downstream]:
    """The models of ``tasks`` that the settings name, on the CPU. Raises what ``load_downstream`` raises."""
    set_names: dict[Kind, str] = {
        "classifier": settings.classifier,
        "segmenter": settings.segmenter,
        "detector": settings.detector,
    }
    names = {kind: _chosen(name, kind, store) for kind, name in set_names.items() if kind in tasks}
    return {kind: load_downstream(kind, name, store) for kind, name in names.items() if name != LEFT_OUT}


def _chosen(name: str, kind: Kind, store: ModelStore) -> str:
    """The name set, or the shipped model's where the store has that: other stores served before there was the task.

    A remote model is not loaded.
    """
    if is_remote(name):
        return LEFT_OUT
    if name != AUTO or kind not in SHIPPED_SCENE_MODELS:
        return name
    shipped = SHIPPED_SCENE_MODELS[kind]
    return shipped if shipped in store.names() else LEFT_OUT


def _place(model: Downstream, device: torch.device) -> None:
    """A program keeps the memory format that it was made in."""
    if isinstance(model.module, Program):
        model.module.to(device)
    else:
        place(model.module, device)
