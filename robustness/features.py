"""Features: the output of any named layer of any network, for attacks that work in a feature space (SSP, FFF).

A forward hook reads the layer, and the network is left as soon as the last wanted layer has run, so later layers cost
nothing. Hooks exist only while a call lasts and heed only the thread that made it: calls may overlap.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from torch import Tensor, nn

from robustness.errors import VictimError


def layers_of(module: nn.Module) -> tuple[str, ...]:
    """The names of every submodule, in the order they were registered: what a ``FeatureTap`` may be given."""
    return tuple(name for name, _ in module.named_modules() if name)


@dataclass(frozen=True)
class FeatureTap:
    """The output of the submodule ``layer`` of ``module``, differentiable with respect to the images.

    A layer that runs several times in one pass gives its first output. Raises VictimError for a layer that the module
    has not, with the names it has; when called, for one that never runs or whose output is no tensor.
    """

    module: nn.Module = field(repr=False)
    layer: str

    def __post_init__(self) -> None:
        _found(self.module, self.layer)

    def __call__(self, images: Tensor) -> Tensor:
        """Features, (N, C, H, W) of a convolutional layer, of images (N, 3, H, W) in [0,1]."""
        return read_layers(self.module, (self.layer,), images)[0]


def activations(module: nn.Module, layers: Sequence[str]) -> Callable[[Tensor], list[Tensor]]:
    """A function from images to the outputs of ``layers``, in that order, all from one pass. Raises as FeatureTap."""
    wanted = tuple(layers)
    if not wanted:
        raise VictimError("activations need at least one layer; layers_of(module) lists what there is")
    for layer in wanted:
        _found(module, layer)

    def read(images: Tensor) -> list[Tensor]:
        return read_layers(module, wanted, images)

    return read


def read_layers(module: nn.Module, layers: Sequence[str], images: Tensor) -> list[Tensor]:
    """One pass over ``images`` as far as the last of ``layers`` to run; their outputs in the order asked for."""
    seen: dict[str, Tensor] = {}
    with ExitStack() as hooks:
        enough = _Enough()
        for layer in dict.fromkeys(layers):
            hooks.enter_context(_listening(module, layer, seen, len(set(layers)), enough))
        try:
            module(images)
        except _Enough as reached:
            if reached is not enough:
                raise
    missing = [layer for layer in layers if layer not in seen]
    if missing:
        raise VictimError(f"layer {missing[0]!r} has no part in the forward pass of {_kind(module)}; choose another")
    return [seen[layer] for layer in layers]


class _Enough(Exception):  # noqa: N818 - the way out of a pass, not an error
    """Every wanted layer has run."""


@contextmanager
def _listening(module: nn.Module, layer: str, seen: dict[str, Tensor], wanted: int, enough: _Enough) -> Iterator[None]:
    caller = threading.get_ident()

    def hear(_: nn.Module, __: object, output: object) -> None:
        if threading.get_ident() != caller or layer in seen:
            return
        if not isinstance(output, Tensor):
            raise VictimError(f"layer {layer!r} of {_kind(module)} gives no tensor; choose one inside it")
        # A copy where the pass goes on: the next layer may overwrite its input, as a ReLU in place does.
        seen[layer] = output if len(seen) + 1 == wanted else output.clone()
        if len(seen) == wanted:
            raise enough

    handle = _found(module, layer).register_forward_hook(hear)
    try:
        yield
    finally:
        handle.remove()


def _found(module: nn.Module, layer: str) -> nn.Module:
    known = layers_of(module)
    if layer not in known:
        raise VictimError(f"{_kind(module)} has no layer {layer!r}; it has {', '.join(known) or 'none'}")
    return module.get_submodule(layer)


def _kind(module: nn.Module) -> str:
    return type(module).__name__
