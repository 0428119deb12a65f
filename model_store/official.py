"""Official models: torchvision's and timm's networks with the weights published for them, downloaded on first use.

torchvision's files are pickles. Each is read with ``weights_only=True`` first, so that what is unpickled later is known
to hold nothing but tensors. timm's are safetensors, see ``timm_models``.
"""

from __future__ import annotations

import http.client
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType, ModuleType
from typing import Any, Literal

import torchvision
from torch import Tensor, nn
from torchvision.models import WeightsEnum, get_model, get_model_weights, list_models

from model_store.architectures.normalise import Normalise
from model_store.card import InputConvention
from model_store.errors import UnavailableModelError
from model_store.timm_models import load_timm

Kind = Literal["classifier", "segmenter", "detector"]

TORCHVISION = "torchvision:"
TIMM = "timm:"
_ROOMS: Mapping[Kind, ModuleType] = MappingProxyType(
    {
        "classifier": torchvision.models,
        "segmenter": torchvision.models.segmentation,
        "detector": torchvision.models.detection,
    }
)
_EXAMPLES: Mapping[Kind, str] = MappingProxyType(
    {"classifier": "resnet50", "segmenter": "fcn_resnet50", "detector": "retinanet_resnet50_fpn"}
)
_DOWNLOAD_FAILURES = (OSError, RuntimeError, http.client.HTTPException, pickle.UnpicklingError, EOFError)


@dataclass(frozen=True)
class OfficialModel:
    """``module`` as torchvision or timm builds it, frozen, in evaluation mode, on the CPU.

    ``name`` is ``torchvision:NAME`` or ``timm:NAME``; ``labels`` are in the order of its outputs; ``identity`` is the
    name of the weights with the first digits of their sha256. ``transforms`` are the weights' own: of images
    (N, 3, H, W) in [0,1] they make what ``module`` takes.
    """

    name: str
    kind: Kind
    labels: tuple[str, ...]
    identity: str
    transforms: nn.Module
    module: nn.Module

    @property
    def convention(self) -> InputConvention:
        """How the transforms bring a photo to size, in the form of a card: detectors take any size as it is.

        ``model_store.pixels.fit`` follows it bilinearly; some transforms ask for bicubic resampling instead.
        """
        short_side, crop = (_first(self.transforms, size) for size in ("resize_size", "crop_size"))
        return InputConvention(short_side=short_side, crop=crop, stretch=getattr(self.transforms, "stretch", False))

    def on_pixels(self) -> nn.Module:
        """The module behind the transforms' normalisation: it takes images in [0,1] that have their final size.

        An attack then acts on pixels, not on what a resize leaves of them. Detectors normalise (and resize) inside.
        """
        mean, std = getattr(self.transforms, "mean", None), getattr(self.transforms, "std", None)
        if mean is None or std is None:
            return self.module
        return nn.Sequential(Normalise(mean, std), self.module).eval()


def is_official(name: str) -> bool:
    """Whether ``name`` is that of an official model, not of one in a store."""
    return name.startswith((TORCHVISION, TIMM))


def official_kind(name: str, otherwise: str) -> Kind:
    """What ``torchvision:NAME`` or ``timm:NAME`` is for. Raises UnavailableModelError, which ends in ``otherwise``."""
    if name.startswith(TIMM):
        return "classifier"
    architecture = name.removeprefix(TORCHVISION)
    for kind, room in _ROOMS.items():
        if architecture in list_models(module=room):
            return kind
    known = ", ".join(TORCHVISION + example for example in _EXAMPLES.values())
    raise UnavailableModelError(f"torchvision has no model {architecture!r}; name one such as {known}, {otherwise}")


def load_official(kind: Kind, name: str, otherwise: str) -> OfficialModel:
    """The official model ``torchvision:NAME`` or ``timm:NAME``, which must be of ``kind``.

    ``otherwise`` ends the text of an error with what the reader can do instead, as in "or unset NRP_CLASSIFIER".
    Raises UnavailableModelError for a name that is not known as that kind, and where the weights cannot be downloaded.
    """
    if name.startswith(TIMM):
        return _load_timm(kind, name, otherwise)
    architecture = name.removeprefix(TORCHVISION)
    if architecture not in list_models(module=_ROOMS[kind]):
        raise UnavailableModelError(
            f"torchvision has no {kind} {architecture!r}; name one such as {TORCHVISION}{_EXAMPLES[kind]}, {otherwise}"
        )
    weights = get_model_weights(architecture).DEFAULT
    read_official(weights, name, otherwise)
    try:
        # Building through torchvision keeps each architecture's own switches right. It unpickles the file read above.
        module = get_model(architecture, weights=weights, progress=False)
    except _DOWNLOAD_FAILURES as error:
        raise _unavailable(weights, name, otherwise, error) from error
    labels = tuple(str(label) for label in weights.meta["categories"])
    return OfficialModel(
        name, kind, labels, file_name(weights), weights.transforms(), module.eval().requires_grad_(False)
    )


def _load_timm(kind: Kind, name: str, otherwise: str) -> OfficialModel:
    if kind != "classifier":
        raise UnavailableModelError(
            f"timm has classifiers alone; name a {kind} such as {TORCHVISION}{_EXAMPLES[kind]}, {otherwise}"
        )
    found = load_timm(name.removeprefix(TIMM), otherwise)
    return OfficialModel(name, kind, found.labels, found.identity, found.transforms, found.module)


def read_official(weights: WeightsEnum, name: str, otherwise: str) -> dict[str, Tensor]:
    """The official weights alone, by parameter; nothing is unpickled. Raises UnavailableModelError."""
    try:
        state: dict[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except _DOWNLOAD_FAILURES as error:
        raise _unavailable(weights, name, otherwise, error) from error
    return state


def file_name(weights: WeightsEnum) -> str:
    """What the weights' file is called, with the first digits of its sha256."""
    return str(weights.url).rsplit("/", 1)[-1]


def _unavailable(weights: WeightsEnum, name: str, otherwise: str, error: BaseException) -> UnavailableModelError:
    reason = " ".join(str(error).split())[:200]
    return UnavailableModelError(
        f"the official weights of {name} cannot be had here ({reason}); put {file_name(weights)} into "
        f"$TORCH_HOME/hub/checkpoints, {otherwise}"
    )


def _first(transforms: nn.Module, name: str) -> int | None:
    """The one side that the transforms keep in a list, None where they have no such setting."""
    sides: Any = getattr(transforms, name, None)
    return int(sides[0]) if sides else None
