"""Anyone's classifier among this project's victims."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model_store.architectures.normalise import Normalise
from model_store.card import InputConvention
from robustness.errors import VictimError
from robustness.victims.classification import Classifier

ANY_SIZE = InputConvention()


@dataclass(frozen=True)
class ModuleVictim(Classifier):
    """Any network from images to logits, attacked and judged like the store's classifiers. Make it by ``of``."""

    @classmethod
    def of(
        cls,
        module: nn.Module,
        folders: Sequence[str],
        *,
        name: str,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        convention: InputConvention = ANY_SIZE,
    ) -> ModuleVictim:
        """``module`` (images (N, 3, H, W) to logits (N, classes)), put in evaluation mode and frozen in place.

        ``folders`` are the class folders in the order of its logits. A module that does not normalise inside gets
        ``mean`` and ``std``, one value a channel; one that does takes images in [0,1] and neither. ``convention``
        says which size it wants. The identity is a sha256 over the state dict, the printed structure and the
        normalisation. Raises VictimError for fewer than two classes, or one of ``mean`` and ``std`` alone.
        """
        if len(folders) < 2:
            raise VictimError(f"{name}: a classifier tells at least two classes apart; name them all in folders")
        identity = fingerprint(module, mean, std)
        if mean is not None and std is not None:
            module = nn.Sequential(Normalise(mean, std).to(_device(module)), module)
        elif mean is not None or std is not None:
            raise VictimError(f"{name}: normalisation needs mean and std; give both, or neither")
        frozen = module.eval().requires_grad_(False)
        return cls(name, identity, frozen, convention, tuple(folders))

    def logits(self, images: Tensor) -> Tensor:
        """Logits (N, classes). Raises VictimError where the module gives anything else."""
        found: object = super().logits(images)
        wanted = (len(images), len(self.folders))
        if not isinstance(found, Tensor) or found.shape != wanted:
            given = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise VictimError(
                f"{self.name} gives {given} where logits {wanted} are needed; wrap it or name its classes"
            )
        return found


def fingerprint(module: nn.Module, *settings: object) -> str:
    """A sha256 over a module's state dict (names, types, shapes, values), its printed structure and ``settings``."""
    hasher = hashlib.sha256(f"{module!r} {settings!r}".encode())
    for key, value in sorted(module.state_dict().items()):
        if not isinstance(value, Tensor):
            hasher.update(f"{key} {value!r}".encode())
            continue
        hasher.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
        hasher.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return hasher.hexdigest()


def _device(module: nn.Module) -> torch.device:
    for tensor in (*module.parameters(), *module.buffers()):
        return tensor.device
    return torch.device("cpu")
