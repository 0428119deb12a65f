"""Folding: a frozen network's batch norms go into the convolutions before them, which then give the same sooner.

In evaluation a batch norm scales and shifts each channel by constants, as the convolution before it can do itself. A
pair is folded only where a symbolic trace shows that the norm, and nothing else, takes what the convolution gives.
"""

from __future__ import annotations

import copy
import importlib
from collections import Counter, OrderedDict
from collections.abc import Collection, Iterator
from typing import Any, cast

from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

CONSTANT = "_tensor_constant"  # what torch.fx calls a tensor that was computed while it traced


def fold_batch_norms(module: nn.Module, keep: Collection[str] = ()) -> nn.Module:
    """A copy of ``module`` whose convolutions do their batch norms' work; ``module`` itself where there is none to do.

    Layers keep their names: where a norm was, its activation is left, or the identity. Every layer still gives what it
    gave, up to rounding, but convolutions, which give what their norms gave, and layers that end in such a one: name
    those of them that will be read in ``keep``, and they are left as they are. So are a network that cannot be copied
    or traced, layers in training mode, and convolutions and norms of classes not known here.

    torch.fx changes ``nn.Module`` while it traces: call this where no other thread runs a network.
    """
    try:
        folded = copy.deepcopy(module)
        graph = _Tracer().trace(folded)
    except Exception:  # noqa: BLE001 - whatever a copy, or a forward pass on symbols, raises; it can only not be folded
        return module
    pairs = [pair for pair in _pairs(folded, graph) if not any(_separates(layer, *pair) for layer in keep)]
    for conv, norm in pairs:
        _fold(folded, conv, norm)
    return folded if pairs else module


class _Tracer(fx.Tracer):
    """Convolutions and norms are not looked into, whoever wrote them."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, nn.Conv2d | nn.BatchNorm2d) or super().is_leaf_module(m, module_qualified_name)


def _pairs(module: nn.Module, graph: fx.Graph) -> Iterator[tuple[str, str]]:
    """The names of each convolution and of the norm that alone takes what it gives; both run once, by one name."""
    reads = [str(node.target) for node in graph.nodes if node.op == "get_attr"]
    if any(name.startswith(CONSTANT) for name in reads):
        return  # of which nothing tells whose weights it was computed from
    runs = Counter(str(node.target) for node in graph.nodes if node.op == "call_module")
    names = Counter(id(part) for _, part in module.named_modules(remove_duplicate=False))
    for node in graph.nodes:
        before = node.args[0] if node.op == "call_module" and node.args else None
        if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) != 1:
            continue
        pair = str(before.target), str(node.target)
        conv, norm = map(module.get_submodule, pair)
        once = all(runs[name] == 1 for name in pair) and names[id(conv)] == names[id(norm)] == 1
        read = any(weight.rpartition(".")[0] in pair for weight in reads)
        if once and not read and _is_convolution(conv) and _is_frozen_norm(norm):
            yield pair


def _separates(layer: str, conv: str, norm: str) -> bool:
    """Whether ``layer`` is the convolution, or holds it and not its norm."""
    return f"{conv}.".startswith(f"{layer}.") and not norm.startswith(f"{layer}.")


def _hooked(part: nn.Module) -> bool:
    """A hook may change what passes, as weight normalisation does."""
    return bool(part._forward_hooks or part._forward_pre_hooks)


def _is_convolution(part: nn.Module) -> bool:
    """Exact classes: another may do more with its weights than convolve, as one that standardises them does."""
    known = type(part) is nn.Conv2d or (isinstance(part, nn.Conv2d) and type(part) is _of_timm("Conv2dSame"))
    return known and not _hooked(part)


def _is_frozen_norm(part: nn.Module) -> bool:
    known = type(part) is nn.BatchNorm2d or (
        isinstance(part, nn.BatchNorm2d) and type(part) is _of_timm("BatchNormAct2d")
    )
    return known and not part.training and part.running_mean is not None and not _hooked(part)


def _of_timm(name: str) -> Any:
    """Importing it takes a second: only networks with such parts wait for it."""
    try:
        return getattr(importlib.import_module("timm.layers"), name)
    except ImportError:
        return None


def _fold(module: nn.Module, conv: str, norm: str) -> None:
    """In float64, so that the product is rounded once. Behind timm's norms stay what they drop and activate with."""
    first = cast(nn.Conv2d, copy.deepcopy(module.get_submodule(conv)))  # its weights may be another's too
    second = cast(nn.BatchNorm2d, module.get_submodule(norm))
    behind = OrderedDict(second.named_children())
    dtype = first.weight.dtype
    module.set_submodule(conv, fuse_conv_bn_eval(first.double(), second.double()).to(dtype))
    module.set_submodule(norm, nn.Sequential(behind).eval() if behind else nn.Identity())
