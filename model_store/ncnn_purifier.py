"""Purifiers run by ncnn on the CPU: the same weights and the same answers as PyTorch's, by Winograd convolutions.

Where a processor computes in bfloat16, PyTorch is the faster of the two; for float32 this is.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import ncnn
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from model_store.architectures.lite import NrpLite
from model_store.architectures.published import (
    DENSE_LEAK,
    FELT,
    FIRST_LEAK,
    NRP,
    RESIDUAL_SCALE,
    RRDB,
    DenseBlock,
    NRPResG,
    PlainResidual,
)
from model_store.errors import IncompatibleWeightsError
from model_store.ncnn_graph import INPUT, OUTPUT, Graph

Block = TypeVar("Block", bound=nn.Module)

# How far an answer may be from PyTorch's, in [0,1]: within half a level it is the same or the next one after rounding,
# and a fifth leaves room for what other images than the probe do.
TOLERANCE = 0.2 / 255
PROBE_SIDES = (40, 56)
NO_MEMORY = -100
# Freed blobs are kept for the next image, except those of one so large that keeping them would be felt.
KEPT_PIXELS = 1 << 17


class NcnnPurifier(nn.Module):
    """``module`` on the CPU, float32: images (N, 3, H, W) in [0,1] to the same shape, unclamped.

    Several images run side by side on ``threads`` threads, but in turn on the caller's own where the caller is not
    ``alone`` and others have the cores. A single image has as many threads as PyTorch has for the caller: one, or
    ``threads``, for which there is a second copy of the weights, made when it is first needed. There may be several
    callers.

    ``operations_per_pixel``: of the network as PyTorch counts them, a multiplication and an addition as two.
    """

    def __init__(
        self,
        module: nn.Module,
        threads: int,
        begin: Callable[[], None] = lambda: None,
        alone: Callable[[], bool] = lambda: True,
    ) -> None:
        """Write ``module`` down for ncnn and check it against PyTorch on a probe. ``begin`` is called in each thread.

        Raises IncompatibleWeightsError where there is no way to write it down or the answers differ.
        """
        super().__init__()
        if not can_run(module):
            raise IncompatibleWeightsError(f"ncnn cannot run a {type(module).__name__}; use NRP_RUNTIME=torch")
        self.reach: int = int(getattr(module, "reach", FELT))
        self.multiple: int = int(getattr(module, "multiple", 1))
        self._threads = threads
        self._alone = alone
        self._module = module.cpu()
        self._nets: dict[int, _Net] = {}
        self._making = threading.Lock()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="ncnn", initializer=begin)
        self._check()

    def forward(self, images: Tensor) -> Tensor:
        if len(images) > 1:
            return self._framed(images, self._side_by_side if self._threads > 1 and self._alone() else self._in_turn)
        return self._framed(images, self._in_turn if torch.get_num_threads() == 1 else self._on_all_threads)

    def _framed(self, images: Tensor, run: Callable[[Tensor], Tensor]) -> Tensor:
        return self._module.around(images, run) if isinstance(self._module, NrpLite) else run(images)

    def _in_turn(self, inputs: Tensor) -> Tensor:
        """Each image of ``inputs`` (N, C, H, W) through the network, by this thread."""
        net = self._net(1)
        return torch.stack([net.run(image) for image in inputs.detach().contiguous()])

    def _side_by_side(self, inputs: Tensor) -> Tensor:
        net = self._net(1)
        answers: list[Future[Tensor]] = [self._pool.submit(net.run, image) for image in inputs.detach().contiguous()]
        return torch.stack([answer.result() for answer in answers])

    def _on_all_threads(self, inputs: Tensor) -> Tensor:
        return self._net(self._threads).run(inputs.detach().contiguous()[0]).unsqueeze(0)

    def _net(self, threads: int) -> _Net:
        with self._making:
            if threads not in self._nets:
                self._nets[threads] = _Net(_WRITERS[type(self._module)](self._module), threads)
            return self._nets[threads]

    def _check(self) -> None:
        images = torch.rand(1, 3, *PROBE_SIDES, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            with FlopCounterMode(display=False) as counter:
                expected = self._module(images)
            off = float((self._framed(images, self._in_turn) - expected).abs().max())
        self.operations_per_pixel = counter.get_total_flops() / images[0, 0].numel()
        if not off <= TOLERANCE:
            raise IncompatibleWeightsError(
                f"ncnn's answers are {255 * off:.2g}/255 from PyTorch's with these weights; use NRP_RUNTIME=torch"
            )


def can_run(module: nn.Module) -> bool:
    """Whether there is a way to write ``module`` down for ncnn."""
    return type(module) in _WRITERS


class _Net:
    """A graph loaded into ncnn for so many threads. Several callers may run it at the same time."""

    def __init__(self, graph: Graph, threads: int) -> None:
        self._net = ncnn.Net()
        self._allocators = (ncnn.PoolAllocator(), ncnn.PoolAllocator())
        options = self._net.opt
        options.num_threads = threads
        options.blob_allocator, options.workspace_allocator = self._allocators
        for name in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_packed", "bf16_storage"):
            setattr(options, f"use_{name}", False)
        with tempfile.TemporaryDirectory() as folder:
            weights = Path(folder) / "weights.bin"
            weights.write_bytes(graph.weights())
            if self._net.load_param_mem(graph.text()) or self._net.load_model(str(weights)):
                raise IncompatibleWeightsError("ncnn could not read the network it was given; use NRP_RUNTIME=torch")

    def run(self, image: Tensor) -> Tensor:
        """(C, H, W) float32, contiguous, to the network's output. Raises RuntimeError out of memory."""
        extractor = self._net.create_extractor()
        if image[0].numel() > KEPT_PIXELS:
            extractor.set_blob_allocator(None)
            extractor.set_workspace_allocator(None)
        extractor.input(INPUT, ncnn.Mat(image.numpy()))
        status, output = extractor.extract(OUTPUT)
        if status:
            cause = "can't allocate memory" if status == NO_MEMORY else "a layer failed"
            raise RuntimeError(f"ncnn: {cause} (status {status})")
        return torch.from_numpy(output.numpy("f").copy())


def _residuals(graph: Graph, blob: str, blocks: nn.Module) -> str:
    """The ``PlainResidual`` blocks in turn."""
    for block in _those(PlainResidual, blocks):
        blob = graph.sum(blob, graph.convolution(graph.convolution(blob, block.conv1, leak=0), block.conv2))
    return blob


def _dense(graph: Graph, blob: str, block: DenseBlock) -> str:
    seen = [blob]
    for conv in (block.conv1, block.conv2, block.conv3, block.conv4):
        seen.append(graph.convolution(graph.joined(seen), conv, leak=DENSE_LEAK))
    return graph.sum(blob, graph.convolution(graph.joined(seen), block.conv5), RESIDUAL_SCALE)


def _write_nrp(module: NRP) -> Graph:
    graph = Graph()
    blob = graph.convolution(INPUT, module.conv_first)
    for block in _those(RRDB, module.RRDB_trunk):
        inner = blob
        for dense in (block.RDB1, block.RDB2, block.RDB3):
            inner = _dense(graph, inner, dense)
        blob = graph.sum(blob, inner, RESIDUAL_SCALE)
    graph.convolution(blob, module.trunk_conv)
    return graph


def _write_resg(module: NRPResG) -> Graph:
    graph = Graph()
    blob = _residuals(graph, graph.convolution(INPUT, module.conv_first, leak=FIRST_LEAK), module.recon_trunk)
    graph.convolution(blob, module.conv_last)
    return graph


def _write_lite(module: NrpLite) -> Graph:
    """What is between the unshuffled image and the gate; the rest is ``NrpLite.around``."""
    graph = Graph()
    blob = graph.convolution(INPUT, module.head)
    skips = []
    for blocks, shrink in zip(module.down, _those(nn.Conv2d, module.shrink), strict=False):
        skips.append(_residuals(graph, blob, blocks))
        blob = graph.convolution(skips[-1], shrink)
    blob = _residuals(graph, blob, module.down[-1])
    grown = list(_those(nn.ConvTranspose2d, module.grow))
    for blocks, grow, skip in zip(reversed(module.up), reversed(grown), reversed(skips), strict=True):
        blob = _residuals(graph, graph.sum(graph.transposed(blob, grow), skip), blocks)
    graph.convolution(blob, module.tail)
    return graph


def _those(kind: type[Block], blocks: nn.Module) -> Iterator[Block]:
    """The children of ``blocks``, each of which is a ``kind``."""
    for block in blocks.children():
        if not isinstance(block, kind):
            raise IncompatibleWeightsError(f"ncnn cannot run a {type(block).__name__}; use NRP_RUNTIME=torch")
        yield block


_WRITERS: Mapping[type[nn.Module], Callable[[Any], Graph]] = MappingProxyType(
    {NRP: _write_nrp, NRPResG: _write_resg, NrpLite: _write_lite}
)
