"""A remote downstream model, as the rest of the service knows it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from model_store.official import Kind
from service.errors import SettingsError
from service.remote.address import RemoteAddress, is_remote, parse_address
from service.remote.labels import Labels, read_labels
from service.settings import Settings


@dataclass(frozen=True, eq=False)
class RemoteModel:
    """A model of ``kind`` at ``address``. What it looks like from outside is that of a local one."""

    kind: Kind
    address: RemoteAddress
    known: Labels

    remote = True
    scales = True  # by itself, elsewhere
    sha256 = ""  # nobody vouches for its weights here

    @property
    def name(self) -> str:
        return self.address.name

    @property
    def labels(self) -> tuple[str, ...]:
        """Those known so far; none before the server told or answered."""
        return self.known.names


def remote_models(settings: Settings, tasks: Collection[Kind]) -> dict[Kind, RemoteModel]:
    """The remote models of ``tasks`` that the settings name; no server is asked. Raises SettingsError."""
    chosen: dict[Kind, tuple[str, Path | None]] = {
        "classifier": (settings.classifier, settings.classifier_labels),
        "segmenter": (settings.segmenter, settings.segmenter_labels),
        "detector": (settings.detector, settings.detector_labels),
    }
    for kind, (name, labels) in chosen.items():
        if labels is not None and not is_remote(name):
            raise SettingsError(f"invalid setting: NRP_{kind.upper()}_LABELS: it is for a remote {kind}; unset it")
    return {
        kind: _model(kind, name, labels) for kind, (name, labels) in chosen.items() if kind in tasks and is_remote(name)
    }


def _model(kind: Kind, name: str, labels: Path | None) -> RemoteModel:
    variable = f"NRP_{kind.upper()}"
    try:
        address = parse_address(kind, name)
        variable += "_LABELS"
        known = Labels(() if labels is None else read_labels(labels))
    except ValueError as error:
        raise SettingsError(f"invalid setting: {variable}: {error}") from error
    return RemoteModel(kind, address, known)
