"""A network of convolutions written down for ncnn: its layers as text, its weights as bytes.

ncnn (Tencent, BSD-3) computes 3x3 convolutions by Winograd's minimal filtering (Lavin and Gray, 2016), with a quarter
to a fifth of the multiplications; oneDNN, which PyTorch calls, does not in float32. Formats: its ``param`` and ``bin``.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

MAGIC = 7767517
INPUT, OUTPUT = "input", "output"
# The word before a layer's weights: they are float32 as they stand.
RAW_FLOAT32 = np.uint32(0).tobytes()


@dataclass(frozen=True)
class _Layer:
    kind: str
    inputs: tuple[str, ...]
    output: str
    parameters: str


class Graph:
    """Layers in the order in which they run. Each method adds one and returns the name of what comes out of it.

    The network's input is the blob ``INPUT``; whichever blob is called last is its output.
    """

    def __init__(self) -> None:
        self._layers: list[_Layer] = []
        self._weights: list[bytes] = []

    def convolution(self, blob: str, module: nn.Conv2d, *, leak: float | None = None) -> str:
        """``leak``: the slope below 0 of an activation that follows, 0 for ReLU; None: there is none."""
        activation = "" if leak is None else " 9=1" if leak == 0 else f" 9=2 -23310=1,{leak:g}"
        self._keep(module.weight, module.bias)
        return self._add("Convolution", (blob,), self._shape(module, module.weight) + activation)

    def transposed(self, blob: str, module: nn.ConvTranspose2d) -> str:
        """A transposed convolution; ncnn has its weights with outputs before inputs."""
        self._keep(module.weight.transpose(0, 1), module.bias)
        return self._add("Deconvolution", (blob,), self._shape(module, module.weight))

    def sum(self, first: str, second: str, scale: float = 1.0) -> str:
        """``first`` + ``scale`` x ``second``."""
        if scale == 1.0:
            return self._add("BinaryOp", (first, second), "0=0")
        return self._add("Eltwise", (first, second), f"0=1 -23301=2,1.0,{scale:g}")

    def joined(self, blobs: Sequence[str]) -> str:
        """Their channels one after the other."""
        if len(blobs) == 1:
            return blobs[0]
        return self._add("Concat", tuple(blobs), "0=0")

    def text(self) -> str:
        """The ``param`` file. In it a blob has one reader, so one that several layers read is split before."""
        layers = self._split()
        blobs = sum(len(outputs) for _, _, outputs, _ in layers)
        lines = [
            f"{kind} {place} {len(inputs)} {len(outputs)} {' '.join((*inputs, *outputs))} {parameters}".rstrip()
            for place, (kind, inputs, outputs, parameters) in enumerate(layers)
        ]
        return "\n".join([str(MAGIC), f"{len(layers)} {blobs}", *lines, ""])

    def weights(self) -> bytes:
        """The ``bin`` file."""
        return b"".join(self._weights)

    def _add(self, kind: str, inputs: tuple[str, ...], parameters: str) -> str:
        output = f"b{len(self._layers)}"
        self._layers.append(_Layer(kind, inputs, output, parameters))
        return output

    def _keep(self, weight: Tensor, bias: Tensor | None) -> None:
        if bias is None:
            raise ValueError("every convolution of a purifier has a bias")
        self._weights += [RAW_FLOAT32, _bytes(weight), _bytes(bias)]

    def _shape(self, module: nn.Conv2d | nn.ConvTranspose2d, weight: Tensor) -> str:
        kernel, stride, padding = module.kernel_size[0], module.stride[0], module.padding[0]
        return f"0={module.out_channels} 1={kernel} 3={stride} 4={padding} 5=1 6={weight.numel()}"

    def _split(self) -> list[tuple[str, tuple[str, ...], tuple[str, ...], str]]:
        readers = Counter(blob for layer in self._layers for blob in layer.inputs)
        left = defaultdict(list)
        layers: list[tuple[str, tuple[str, ...], tuple[str, ...], str]] = []

        def produced(kind: str, inputs: tuple[str, ...], blob: str, parameters: str) -> None:
            layers.append((kind, inputs, (blob,), parameters))
            if readers[blob] > 1:
                copies = tuple(f"{blob}_{number}" for number in range(readers[blob]))
                layers.append(("Split", (blob,), copies, ""))
                left[blob] = list(copies)

        produced("Input", (), INPUT, "")
        for place, layer in enumerate(self._layers):
            inputs = tuple(left[blob].pop(0) if left[blob] else blob for blob in layer.inputs)
            output = OUTPUT if place + 1 == len(self._layers) else layer.output
            produced(layer.kind, inputs, output, layer.parameters)
        return layers


def _bytes(values: Tensor) -> bytes:
    return values.detach().float().cpu().contiguous().numpy().tobytes()
