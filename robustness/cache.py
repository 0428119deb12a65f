"""The cache: results of a run that was killed, found again by exactly what they were made from.

The fingerprint (settings, weight hashes, data hash, package versions) is part of an entry's file name and written
inside it, so an entry of other settings is never found, and one that was renamed is refused. Files appear complete or
not at all.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from robustness.errors import CacheError
from robustness.versions import versions

# Raise this when the code of an attack, a defence or the judging changes what it computes.
METHOD = 2

# File systems end a name at 255 bytes; the hash, not the label, is what tells entries apart.
LONGEST_LABEL = 160

Tensors = dict[str, Tensor]
Fingerprint = Mapping[str, object]


@dataclass(frozen=True)
class Cache:
    """Tensors under one folder."""

    root: Path

    def recall(self, label: str, fingerprint: Fingerprint, make: Callable[[], Tensors]) -> Tensors:
        """What ``make`` gives, read back if it was made before from an equal ``fingerprint``.

        Raises CacheError for an entry that is damaged, carries another fingerprint than its name, or cannot be kept.
        """
        path, text = self._entry(label, fingerprint)
        if path.is_file():
            return _read(path, text)
        tensors = make()
        _write(path, tensors, text)
        return tensors

    def forget(self, label: str, fingerprint: Fingerprint) -> None:
        """Delete an entry, if it is there."""
        self._entry(label, fingerprint)[0].unlink(missing_ok=True)

    def _entry(self, label: str, fingerprint: Fingerprint) -> tuple[Path, str]:
        text = json.dumps({"method": METHOD, "versions": versions(), **fingerprint}, sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        return self.root / f"{label.replace(' ', '-')[:LONGEST_LABEL]}-{digest}.safetensors", text


def _read(path: Path, fingerprint: str) -> Tensors:
    try:
        with safe_open(path, framework="pt") as file:
            found = (file.metadata() or {}).get("fingerprint")
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError) as error:
        raise CacheError(f"{path} cannot be read back ({error}); delete it and run again") from error
    if found != fingerprint:
        raise CacheError(f"{path} was made with other settings, weights or photos; delete it and run again")
    return tensors


def _write(path: Path, tensors: Tensors, fingerprint: str) -> None:
    scratch = path.with_name(f".{path.name}.new")
    contiguous = {key: tensor.contiguous() for key, tensor in tensors.items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_bytes(safetensors.torch.save(contiguous, metadata={"fingerprint": fingerprint}))
        scratch.replace(path)
    except OSError as error:
        raise CacheError(f"{path} cannot be written ({error.strerror}); give another --cache") from error
