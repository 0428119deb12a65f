"""Programs: networks that carry their own code, as TorchScript, as torch.export or as ONNX saves it.

A program can do whatever its author wanted, like any code. It is loaded from the operator's model store alone, after
its bytes were found to be those that its card vouches for; nothing that a client sends ever becomes one.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from model_store.card import Card, InputConvention, Output
from model_store.errors import IncompatibleWeightsError, InvalidCardError, ModelStoreError
from model_store.onnx_program import read_onnx
from model_store.program_input import channels_first, program_input
from model_store.program_output import check_output, check_stated, read_output

TASKS = frozenset({"classifier", "segmenter", "detector"})
PLAIN = InputConvention()


class Program(nn.Module):
    """A loaded program: images (N, 3, H, W) float32 RGB in [0,1] to what its task's networks return.

    Logits (N, classes), logits (N, classes, H, W), or a list of one dict of boxes, scores and labels an image.
    ``network`` takes what ``convention`` says and gives what ``output`` says; both are brought to ours here.
    ``size`` (height, width) is the only one it takes, None: any. ``single``: it takes one image at a time, so a batch
    is run in turns.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        size: tuple[int, int] | None = None,
        single: bool = False,
        convention: InputConvention = PLAIN,
        output: Output | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.size = size
        self.single = single
        self.convention = convention
        self.output = output

    def train(self, mode: bool = True) -> Program:
        """A program has its mode built in; an exported one refuses to be told another."""
        self.training = mode
        return self

    def forward(self, images: Tensor) -> Any:
        if not self.single or len(images) == 1:
            return self._read(images)
        each = [self._read(image) for image in torch.split(images, 1)]
        return torch.cat(each) if isinstance(each[0], Tensor) else [found for answer in each for found in answer]

    def raw(self, images: Tensor) -> Any:
        """What the program itself gives for images (N, 3, H, W) in [0,1]; N is 1 where it is ``single``."""
        return self.network(program_input(images, self.convention))

    def _read(self, images: Tensor) -> Any:
        return read_output(self.raw(images), self.output, (images.shape[-2], images.shape[-1]))


@dataclass(frozen=True)
class ProgramFormat:
    """One way of saving a program: the name of its file beside the card, and what reads it."""

    file: str
    read: Callable[[bytes, Card], Program]


def load_program(card: Card, data: bytes) -> Program:
    """The program in ``data``, whose hash was verified, in evaluation mode on the CPU.

    Raises InvalidCardError for a task that no program serves, IncompatibleWeightsError for bytes that are no such
    program or give on a probe what the card does not say, UnavailableModelError where what runs it is not installed.
    """
    check_card(card)
    try:
        program = PROGRAMS[card.architecture].read(data, card)
    except ModelStoreError:
        raise
    except Exception as error:  # every kind of damage raises something else
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise IncompatibleWeightsError(
            f"{PROGRAMS[card.architecture].file} of {card.name!r} is no {card.architecture} program: {reason}"
        ) from error
    for parameter in program.parameters():
        parameter.requires_grad = False
    check_output(program.raw, card, program.size)
    return program


def check_card(card: Card) -> None:
    """Raises InvalidCardError for a card that no program can have."""
    if card.task not in TASKS:
        raise InvalidCardError(
            f"card of {card.name!r}: a program can be a {', '.join(sorted(TASKS))}, not a {card.task}"
        )
    if not card.labels:
        raise InvalidCardError(f"card of {card.name!r} names no classes; add them to its labels, in order")
    check_stated(card)


def check_ours(card: Card) -> None:
    """Raises InvalidCardError for a card of weights that asks for what only programs have."""
    if card.output is not None or not card.input.plain:
        raise InvalidCardError(
            f"card of {card.name!r}: networks of this project take NCHW RGB in [0,1] and give logits or boxes; leave "
            "output, and what input says of layout, colour and scale, to programs"
        )


def _read_torchscript(data: bytes, card: Card) -> Program:
    with warnings.catch_warnings():
        # TorchScript is deprecated, not gone: programs that exist already are what it is read for.
        warnings.simplefilter("ignore", FutureWarning)
        network = torch.jit.load(io.BytesIO(data), map_location="cpu")  # type: ignore[no-untyped-call]
    if hasattr(network, "training"):  # a frozen program has no mode left
        network.eval()
    return Program(network, convention=card.input, output=card.output)


def _read_exported(data: bytes, card: Card) -> Program:
    name = card.name
    exported = torch.export.load(io.BytesIO(data))
    inputs = exported.graph_signature.user_inputs
    shapes = [
        node.meta["val"].shape
        for node in exported.graph.nodes
        if node.op == "placeholder" and node.name in inputs and isinstance(node.meta.get("val"), Tensor)
    ]
    if len(inputs) != 1 or len(shapes) != 1 or len(shapes[0]) != 4:
        raise IncompatibleWeightsError(f"{name!r}: the program must take one tensor, images of rank 4")
    batch, channels, height, width = channels_first(shapes[0], card.input)
    if channels != 3:
        raise IncompatibleWeightsError(
            f"{name!r}: the program must take images (N, 3, H, W), or (N, H, W, 3) with layout NHWC in its card"
        )
    if isinstance(batch, int) and batch != 1:
        raise IncompatibleWeightsError(
            f"{name!r}: the program takes exactly {batch} images; export it with one, or with any number"
        )
    if isinstance(height, int) != isinstance(width, int):
        raise IncompatibleWeightsError(f"{name!r}: export the program with height and width both fixed or both free")
    size = (height, width) if isinstance(height, int) and isinstance(width, int) else None
    return Program(
        exported.module(), size=size, single=isinstance(batch, int), convention=card.input, output=card.output
    )


def _read_onnx(data: bytes, card: Card) -> Program:
    network = read_onnx(data, card)
    return Program(network, size=network.size, single=network.single, convention=card.input, output=card.output)


PROGRAMS: Mapping[str, ProgramFormat] = MappingProxyType(
    {
        "torchscript": ProgramFormat("program.pt", _read_torchscript),
        "exported": ProgramFormat("program.pt2", _read_exported),
        "onnx": ProgramFormat("program.onnx", _read_onnx),
    }
)
