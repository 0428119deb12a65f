"""The model store: a folder of checkpoints, each a folder of ``weights.safetensors`` and ``card.json``.

Nothing here unpickles. Weights are read once, hashed, and only then parsed; names and shapes must match exactly. In
the place of weights a program may stand (``model_store.program``), which the operator alone puts there.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from torch import Tensor, nn

from model_store.architectures import ARCHITECTURES, build
from model_store.card import Card
from model_store.errors import (
    IncompatibleWeightsError,
    InvalidCardError,
    ModelExistsError,
    TamperedWeightsError,
    UnknownModelError,
)
from model_store.origins import locate, read_tensors
from model_store.program import PROGRAMS, check_card, check_ours, load_program

WEIGHTS = "weights.safetensors"
CARD = "card.json"
SHIPPED = Path(__file__).parent / "weights"


@dataclass(frozen=True)
class LoadedModel:
    """A module in evaluation mode with its card."""

    card: Card
    module: nn.Module


class ModelStore:
    """Checkpoints under one folder."""

    def __init__(self, root: Path = SHIPPED) -> None:
        self.root = root

    def names(self) -> list[str]:
        """Published names, sorted. Hidden folders (unfinished publications) do not count."""
        if not self.root.is_dir():
            return []
        return sorted(p.name for p in self.root.iterdir() if not p.name.startswith(".") and (p / CARD).is_file())

    def card(self, name: str) -> Card:
        """The card of ``name``. Raises UnknownModelError or InvalidCardError."""
        if name not in self.names():
            known = ", ".join(self.names()) or "none"
            raise UnknownModelError(f"no model {name!r} in {self.root}; there are: {known}")
        try:
            card = Card.model_validate_json((self.root / name / CARD).read_bytes())
        except OSError as error:
            raise InvalidCardError(f"{self.root / name / CARD} cannot be read: {error.strerror}") from error
        except ValidationError as error:
            raise InvalidCardError(f"{self.root / name / CARD} is no valid card: {_first_fault(error)}") from error
        if card.name != name:
            raise InvalidCardError(f"{self.root / name / CARD}: card is of {card.name!r}, folder is {name!r}")
        return card

    def cards(self) -> list[Card]:
        """Every card, sorted by name."""
        return [self.card(name) for name in self.names()]

    def verify(self, name: str) -> Card:
        """Check hash, names and shapes of ``name`` (of a program: hash and format) and return its card."""
        return self.load(name).card

    def load(self, name: str) -> LoadedModel:
        """Load ``name`` strictly, in float32 and evaluation mode, its hash verified first.

        Raises UnknownModelError, InvalidCardError, TamperedWeightsError, IncompatibleWeightsError, or
        UnavailableModelError for weights that others publish and that are not installed here.
        """
        card = self.card(name)
        if card.architecture in PROGRAMS:
            return LoadedModel(card, load_program(card, self._data(card)))
        module = build(card.architecture, card.arguments)
        serves = ARCHITECTURES[card.architecture].task
        if card.task != serves:
            raise InvalidCardError(f"card of {name!r}: {card.architecture} is a {serves}, not a {card.task}")
        check_ours(card)
        _check_labels(card)
        fill(module, self._state(card, module), name)
        return LoadedModel(card, module.eval().requires_grad_(False))

    def _state(self, card: Card, module: nn.Module) -> dict[str, Tensor]:
        data = self._data(card)
        if card.origin is not None:
            return read_tensors(card, data, module)
        try:
            return safetensors.torch.load(data)
        except SafetensorError as error:
            path = self.root / card.name / WEIGHTS
            raise IncompatibleWeightsError(f"{path} is not a safetensors file: {error}") from error

    def _data(self, card: Card) -> bytes:
        """The weights or program of ``card``, whose hash it vouches for."""
        path = self.path_of(card)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise TamperedWeightsError(
                f"{path} cannot be read: {error.strerror}; restore or publish it again"
            ) from error
        digest = hashlib.sha256(data).hexdigest()
        if digest != card.sha256:
            raise TamperedWeightsError(
                f"{path} has sha256 {digest[:12]}… but its card says {card.sha256[:12]}…; "
                + ("install the pinned release again" if card.origin else "restore or publish it again")
            )
        return data

    def path_of(self, card: Card) -> Path:
        """The file whose hash ``card`` vouches for. Raises UnavailableModelError for an origin that is not there."""
        if card.origin is not None:
            return locate(card.name, card.origin)
        return self.root / card.name / file_of(card)

    def publish(self, card: Card, module: nn.Module, *, replace: bool = False) -> Card:
        """Write ``module`` under ``card.name`` and return the card with the hash filled in.

        The folder appears complete or not at all. Replacing moves the old folder aside first, so a reader may for
        an instant find neither; one that read the old card and the new weights is refused by the hash. Raises
        InvalidCardError for a card that could not be read back, ModelExistsError without ``replace``.
        """
        card = _readable(card.model_copy(update={"origin": None}))  # what is published lies in the store
        if card.architecture in PROGRAMS:
            raise InvalidCardError(f"card of {card.name!r}: a program is published as the file that it is")
        dtype = getattr(torch, card.precision)
        state = {
            name: tensor.detach().cpu().contiguous().to(dtype if tensor.is_floating_point() else tensor.dtype)
            for name, tensor in module.state_dict().items()
        }
        return self._write(card, safetensors.torch.save(state), replace=replace)

    def publish_program(self, card: Card, data: bytes, *, replace: bool = False) -> Card:
        """Write the program ``data`` under ``card.name``, as ``publish`` does, and return the card with its hash.

        Raises TamperedWeightsError where ``card`` names another hash, and what ``publish`` and ``load`` raise.
        """
        card = _readable(card.model_copy(update={"origin": None}))
        check_card(card)
        digest = hashlib.sha256(data).hexdigest()
        if card.sha256 not in {"", digest}:
            raise TamperedWeightsError(
                f"{file_of(card)} has sha256 {digest[:12]}… but the card of {card.name!r} says {card.sha256[:12]}…"
            )
        load_program(card, data)
        return self._write(card, data, replace=replace)

    def _write(self, card: Card, data: bytes, *, replace: bool) -> Card:
        target = self.root / card.name
        if target.exists() and not replace:
            raise _taken(target)
        self.root.mkdir(parents=True, exist_ok=True)
        card = card.model_copy(update={"sha256": hashlib.sha256(data).hexdigest()})
        with tempfile.TemporaryDirectory(dir=self.root, prefix=".publishing-") as scratch:
            fresh = Path(scratch) / "new"
            fresh.mkdir()
            _write_durably(fresh / file_of(card), data)
            _write_durably(fresh / CARD, card_text(card).encode())
            _swap_in(fresh, target, Path(scratch), replace=replace)
        return card

    def rewrite_card(self, card: Card) -> None:
        """Replace the card of a published model (its figures, say) in one step; the weights stay."""
        current = self.card(card.name)
        if card.sha256 != current.sha256:
            raise InvalidCardError(f"the new card of {card.name!r} is of other weights than those published")
        card = _readable(card)
        scratch = self.root / card.name / f".{CARD}.new"
        _write_durably(scratch, card_text(card).encode())
        scratch.replace(self.root / card.name / CARD)


def file_of(card: Card) -> str:
    """The name of the file beside the card whose hash the card vouches for."""
    return PROGRAMS[card.architecture].file if card.architecture in PROGRAMS else WEIGHTS


def card_text(card: Card) -> str:
    """The card as it is written to disk."""
    return card.model_dump_json(indent=2) + "\n"


def _first_fault(error: ValidationError) -> str:
    fault = error.errors()[0]
    where = ".".join(map(str, fault["loc"]))
    return f"{where}: {fault['msg']}" if where else fault["msg"]


def _readable(card: Card) -> Card:
    """The card as a reader will get it back: ``model_copy`` skips validation and JSON cannot carry NaN."""
    try:
        return Card.model_validate_json(card_text(card))
    except ValidationError as error:
        raise InvalidCardError(f"the card of {card.name!r} cannot be written: {_first_fault(error)}") from error


def fill(module: nn.Module, state: dict[str, Tensor], name: str) -> None:
    """Load ``state`` into ``module``: every name, no other, each of its shape. Raises IncompatibleWeightsError."""
    try:
        module.load_state_dict(
            {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
        )
    except RuntimeError as error:
        detail = " ".join(str(error).split())
        raise IncompatibleWeightsError(f"weights of {name!r} do not fit its architecture: {detail[:400]}") from error


def _check_labels(card: Card) -> None:
    """Raises InvalidCardError where there are more or fewer labels than the network tells classes apart."""
    classes = card.arguments.get("classes")
    if card.labels and classes is not None and len(card.labels) != classes:
        raise InvalidCardError(
            f"card of {card.name!r}: {len(card.labels)} labels for a network of {classes} classes; correct its labels"
        )


def _taken(target: Path) -> ModelExistsError:
    return ModelExistsError(f"{target} exists; choose another name or pass --replace")


def _swap_in(fresh: Path, target: Path, scratch: Path, *, replace: bool) -> None:
    """Rename ``fresh`` to ``target``; another process may publish the same name between any two lines."""
    for attempt in itertools.count():
        if replace:
            with suppress(FileNotFoundError):
                target.rename(scratch / f"old-{attempt}")
        try:
            fresh.rename(target)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            if not replace:
                raise _taken(target) from error
        else:
            return


def _write_durably(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
