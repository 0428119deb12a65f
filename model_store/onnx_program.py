"""ONNX programs: a network that ONNX Runtime runs, on the CPU, beside the models that PyTorch runs.

One file is the whole program, the one that its card's hash vouches for: tensors kept in other files are refused, and so
is every operator that neither ONNX Runtime nor the file itself defines. ``onnxruntime`` and ``onnx`` are an extra,
imported when the first such program is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from model_store.card import Card, InputConvention
from model_store.errors import IncompatibleWeightsError, UnavailableModelError
from model_store.program_input import channels_first
from model_store.program_output import RANKS, columns

# The operators of the standard, its machine-learning domain's, and those that ONNX Runtime brings along itself.
BUILT_IN = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
FLOATS = frozenset({"tensor(float)", "tensor(float16)", "tensor(double)"})
INTEGERS = frozenset({"tensor(int64)", "tensor(int32)"})
DETECTIONS: Mapping[str, frozenset[str]] = MappingProxyType(
    {"boxes": FLOATS, "scores": FLOATS, "labels": INTEGERS | FLOATS}
)

Dimension = int | str | None


class OnnxNetwork(nn.Module):
    """Images as the card's convention has them, float32 on any device, to what the program gives, on the CPU.

    A detector whose card names no decoder gives a list of one dict an image, everything else one float32 tensor.
    ``size`` and ``single`` as in ``Program``; without a batch dimension the input is one image.
    """

    def __init__(self, session: Any, card: Card) -> None:
        """``session``: an InferenceSession. Raises IncompatibleWeightsError where it is not what the card needs."""
        super().__init__()
        self._session = session
        self._name = card.name
        self._boxes = card.task == "detector" and card.output is None
        self._input, self._batched, batch, self.size = _input(session, card.name, card.input)
        self.single = not self._batched or isinstance(batch, int)
        self._outputs = _detections(session, card.name) if self._boxes else (_output(session, card),)
        boxes = next((output for output in session.get_outputs() if output.name == "boxes"), None)
        if self._boxes and boxes is not None and len(boxes.shape or ()) != 3:  # (K, 4), of one image
            self.single = True

    def __deepcopy__(self, memo: dict[int, Any]) -> OnnxNetwork:
        """Itself: a session cannot be copied, and nothing in it changes."""
        return self

    def forward(self, images: Tensor) -> Any:
        if images.requires_grad:
            raise IncompatibleWeightsError(
                f"{self._name!r} is an ONNX program, which gives no gradients: attack it by transfer (SSP, a "
                "surrogate) or by score (Square)"
            )
        given = images.detach().to("cpu", torch.float32).contiguous()
        arrays = self._session.run(list(self._outputs), {self._input: (given if self._batched else given[0]).numpy()})
        found = [torch.from_numpy(array).to(images.device) for array in arrays]
        if not self._boxes:
            return found[0].float()
        return _per_image(dict(zip(self._outputs, found, strict=True)))


def read_onnx(data: bytes, card: Card) -> OnnxNetwork:
    """The network in ``data``. Raises UnavailableModelError without ONNX Runtime, IncompatibleWeightsError for a file
    that is not whole in itself or does not serve the card's task, and what ONNX Runtime raises for a broken one."""
    runtime, onnx = _packages(card.name)
    model = onnx.load_model_from_string(data)
    _check_whole(onnx, model, card.name)
    del model
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # what it warns of is not for an operator
    # Its threads would spin between runs, on the cores that PyTorch's need then.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return OnnxNetwork(session, card).eval()


def _packages(name: str) -> tuple[ModuleType, ModuleType]:
    try:
        import onnx  # noqa: PLC0415 - an extra, and slow to import
        import onnxruntime  # noqa: PLC0415
    except ImportError as error:
        raise UnavailableModelError(
            f"{name!r} is an ONNX program, and {error.name} is not installed; run: pip install 'nrp[onnx]'"
        ) from error
    return onnxruntime, onnx


def _check_whole(onnx: ModuleType, model: Any, name: str) -> None:
    """Raises IncompatibleWeightsError for a model that needs other files or operators than there are."""
    own = {(function.domain, function.name) for function in model.functions}
    nodes: Iterator[Any] = (
        node for part in (model.graph, *model.functions) for node in _nodes_of(part.node, onnx.AttributeProto)
    )
    for node in nodes:
        if node.domain not in BUILT_IN and (node.domain, node.op_type) not in own:
            raise IncompatibleWeightsError(
                f"{name!r} uses the custom operator {node.domain[:40]}.{node.op_type[:40]}; export it with ONNX's own"
            )
    for tensor in _tensors_of(onnx, model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL or len(tensor.external_data):
            raise IncompatibleWeightsError(
                f"{name!r} keeps the tensor {tensor.name[:40]!r} in another file; save it as one file "
                "(torch.onnx.export with external_data=False)"
            )


def _nodes_of(nodes: Sequence[Any], kinds: Any) -> Iterator[Any]:
    """The nodes, and those of the graphs inside them."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            graphs = [attribute.g] if attribute.type == kinds.GRAPH else attribute.graphs
            for graph in graphs:
                yield from _nodes_of(graph.node, kinds)


def _tensors_of(onnx: ModuleType, model: Any) -> Iterator[Any]:
    """Every tensor of the model, wherever it lies: any message of any depth."""
    waiting = [model]
    while waiting:
        message = waiting.pop()
        if isinstance(message, onnx.TensorProto):
            yield message
            continue
        for field, value in message.ListFields():
            if field.message_type is not None:
                waiting.extend([value] if hasattr(value, "ListFields") else value)


def _input(session: Any, name: str, convention: InputConvention) -> tuple[str, bool, Dimension, tuple[int, int] | None]:
    """Name of the one input, whether it is a batch, its first dimension, and the size where that is fixed."""
    inputs = session.get_inputs()
    own: list[Dimension] = list(inputs[0].shape or ()) if len(inputs) == 1 else []
    shape = channels_first(own, convention)
    if len(shape) not in {3, 4} or shape[-3] != 3 or inputs[0].type != "tensor(float)":
        given = ", ".join(f"{one.name} {one.type} {one.shape}" for one in inputs)[:160] or "nothing"
        wanted = "(N, H, W, 3) or one (H, W, 3)" if convention.layout == "NHWC" else "(N, 3, H, W) or one (3, H, W)"
        turned = convention.layout == "NCHW" and own[-1:] == [3]
        raise IncompatibleWeightsError(
            f"{name!r}: the program must take one float tensor, images {wanted}; it takes {given}"
            + ("; if the channels come last, say layout NHWC in its card's input" if turned else "")
        )
    batch, (height, width) = shape[0], shape[-2:]
    if len(shape) == 4 and isinstance(batch, int) and batch != 1:
        raise IncompatibleWeightsError(
            f"{name!r}: the program takes exactly {batch} images; export it with one, or with any number"
        )
    if isinstance(height, int) != isinstance(width, int):
        raise IncompatibleWeightsError(f"{name!r}: export the program with height and width both fixed or both free")
    size = (height, width) if isinstance(height, int) and isinstance(width, int) else None
    return inputs[0].name, len(shape) == 4, batch, size


def _output(session: Any, card: Card) -> str:
    """The name of the one output: a detector's for its decoder, or so many numbers an image or pixel."""
    outputs = session.get_outputs()
    detector = card.task == "detector"
    rank, count = (4, 5 + len(card.labels)) if detector else (RANKS[card.task], columns(card))
    what = f"{card.output} of" if card.output is not None else "logits of"
    wanted = f"one float tensor, {what} {len(card.labels)} labels: of rank {rank}, with {count} in dimension 1"
    shape: list[Dimension] = list(outputs[0].shape or ()) if len(outputs) == 1 else []
    given = shape[1] if len(shape) == rank else None
    if (
        len(outputs) != 1
        or outputs[0].type not in FLOATS
        or (shape and len(shape) != rank)
        or (isinstance(given, int) and given != count)
    ):
        raise IncompatibleWeightsError(
            f"{card.name!r}: a {card.task} must give {wanted}; it gives {_in_words(outputs)}"
        )
    return str(outputs[0].name)


def _detections(session: Any, name: str) -> tuple[str, ...]:
    outputs = {output.name: output for output in session.get_outputs()}
    fits = set(outputs) == set(DETECTIONS) and all(outputs[key].type in kinds for key, kinds in DETECTIONS.items())
    if not fits:
        raise IncompatibleWeightsError(
            f"{name!r}: a detector must name its outputs boxes, scores and labels, or its card a decoder in output; it "
            f"gives {_in_words(list(outputs.values()))}"
        )
    return tuple(DETECTIONS)


def _per_image(found: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    """One dict an image, of (K, 4), (K,) and (K,); in batches (N, K, ...) a row whose label is negative is padding."""
    if found["boxes"].ndim == 2:
        return [dict(found)]
    images = [{key: value[place] for key, value in found.items()} for place in range(len(found["boxes"]))]
    return [{key: value[one["labels"] >= 0] for key, value in one.items()} for one in images]


def _in_words(outputs: Sequence[Any]) -> str:
    return ", ".join(f"{one.name} {one.type} {one.shape}" for one in outputs)[:200] or "nothing"
