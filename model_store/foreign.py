"""Foreign checkpoints: the ``.pth`` files of the NRP authors, read without unpickling code and published as ours.

The files are plain state dicts. Which network one holds, and how many blocks, features and growth channels, is read
from its own names and shapes: accounts of the published block counts differ, the file does not.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import Tensor

from model_store.architectures import build
from model_store.card import Card, Inference
from model_store.errors import IncompatibleWeightsError, InvalidCardError
from model_store.inference import STANDARD_MODES
from model_store.store import ModelStore, fill

WRAPPERS = ("state_dict", "params")
TRUNKS = (("RRDB_trunk", "nrp"), ("recon_trunk", "nrp_resg"))
IMPORTABLE = tuple(architecture for _, architecture in TRUNKS)
# What torch.load raises on files that are cut short, of another format, or that hold more than tensors.
UNREADABLE = (
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    IndexError,
)


@dataclass(frozen=True)
class Inferred:
    """The architecture a state dict belongs to, and the arguments that give its shapes."""

    architecture: str
    arguments: dict[str, int]


def import_state(
    path: Path,
    store: ModelStore,
    name: str,
    architecture: str | None = None,
    *,
    licence: str = "",
    replace: bool = False,
) -> Card:
    """Publish the foreign state dict in ``path`` as ``name``, in float32, and return its card.

    ``architecture`` only confirms what the file says of itself. Raises IncompatibleWeightsError for a file that
    cannot be read safely, is no state dict or fits no architecture here, and what ``ModelStore.publish`` raises.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise IncompatibleWeightsError(f"{path} cannot be read: {error.strerror}; check the path") from error
    state = read_state(data, path.name)
    inferred = infer(state, path.name)
    if architecture not in (None, inferred.architecture):
        raise IncompatibleWeightsError(f"{path.name} holds {inferred.architecture}, not {architecture}")
    module = build(inferred.architecture, inferred.arguments)
    fill(module, state, path.name)
    source = {"imported_from": path.name, "sha256": hashlib.sha256(data).hexdigest()}
    return store.publish(_card(name, inferred, source, licence), module, replace=replace)


def read_state(data: bytes, origin: str) -> dict[str, Tensor]:
    """The tensors by name in a ``torch.save`` file's bytes, unwrapped and without a ``module.`` prefix.

    Only tensors and plain containers are read; a pickle that would call anything else is refused unexecuted.
    """
    try:
        content = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    except UNREADABLE as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise IncompatibleWeightsError(
            f"{origin} is not a plain state dict and was not unpickled; save its state_dict() alone: {reason[:160]}"
        ) from error
    for wrapper in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not content:
        raise IncompatibleWeightsError(f"{origin} holds {_describe(content)}, not a state dict; save its state_dict()")
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise IncompatibleWeightsError(f"{origin}: entry {key!r} is {_describe(value)}, not a named tensor")
    return {key.removeprefix("module."): value for key, value in content.items()}


def infer(state: Mapping[str, Tensor], origin: str) -> Inferred:
    """Tell the architecture, block count, features and growth of a state dict from its names and shapes.

    Raises IncompatibleWeightsError for names of no architecture that can be imported, or blocks with gaps.
    """
    for trunk, architecture in TRUNKS:
        numbers = {int(found[1]) for key in state if (found := re.match(rf"{trunk}\.([0-9]{{1,6}})\.", key))}
        if not numbers:
            continue
        if missing := set(range(len(numbers))) - numbers:
            raise IncompatibleWeightsError(f"{origin}: {trunk} lacks block {min(missing)} of {max(numbers) + 1}")
        arguments = {"blocks": len(numbers), "features": _outputs(state, "conv_first.weight", origin)}
        if architecture == "nrp":
            arguments["growth"] = _outputs(state, f"{trunk}.0.RDB1.conv1.weight", origin)
        return Inferred(architecture, arguments)
    known = " or ".join(f"{trunk}.* ({architecture})" for trunk, architecture in TRUNKS)
    first = ", ".join(list(state)[:3])
    raise IncompatibleWeightsError(f"{origin} has neither {known} but {first}, ...; it cannot be imported")


def _card(name: str, inferred: Inferred, source: dict[str, str], licence: str) -> Card:
    blocks, origin = inferred.arguments["blocks"], source["imported_from"]
    try:
        return Card(
            name=name,
            summary=f"{inferred.architecture} with {blocks} blocks, imported from {origin}",
            task="purifier",
            architecture=inferred.architecture,
            arguments=inferred.arguments,
            inference=Inference(default="static", modes=dict(STANDARD_MODES)),
            licence=licence or "not stated in the imported file; ask its authors",
            recipe=source,
            limits=("Imported, not trained by this project: training data unknown, no figure was measured.",),
        )
    except ValidationError as error:
        raise InvalidCardError(
            f"{name!r} cannot name a model; use lower-case letters, digits, '.', '_' and '-', at most 63"
        ) from error


def _outputs(state: Mapping[str, Tensor], key: str, origin: str) -> int:
    if key not in state or state[key].ndim != 4:
        raise IncompatibleWeightsError(f"{origin} lacks the convolution {key}; it cannot be imported")
    return len(state[key])


def _describe(value: object) -> str:
    return "nothing" if isinstance(value, Mapping) and not value else f"a {type(value).__name__}"
