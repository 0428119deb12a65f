"""A program's output: read as its card says, and checked on a probe where the program is loaded.

``output`` of a card: of a classifier or segmenter ``logits``, ``probabilities`` (over all labels, as softmax gives
them) or ``sigmoid`` (one column, the probability of the second of two labels); of a detector the name of a decoder,
or nothing where it gives boxes itself. Everything that follows takes logits, so probabilities become their
logarithms, of which softmax makes the same probabilities again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from model_store.card import Card, Output
from model_store.errors import IncompatibleWeightsError, InvalidCardError
from model_store.fastestdet import decode_fastestdet

Decoder = Callable[[Tensor, tuple[int, int]], list[dict[str, Tensor]]]

DECODERS: Mapping[str, Decoder] = MappingProxyType({"fastestdet": decode_fastestdet})
"""From a detector's ``output`` to what reads it: (N, channels, h, w), and height and width of the images, to boxes."""
RANKS: Mapping[str, int] = MappingProxyType({"classifier": 2, "segmenter": 4})
SCALES = ("logits", "probabilities", "sigmoid")
LEAST = torch.finfo(torch.float32).tiny
# Softmax in float16 over a thousand labels misses 1 by a few thousandths.
TOLERANCE = 0.01
PROBES = 3
PROBE_SIDE = 64


def check_stated(card: Card) -> None:
    """Raises InvalidCardError for an ``output`` that no program of that task and those labels can have."""
    known = DECODERS if card.task == "detector" else SCALES
    if card.output is not None and card.output not in known:
        raise InvalidCardError(
            f"card of {card.name!r}: a {card.task} has no output {card.output!r}; known: {', '.join(known)}"
        )
    if card.task == "classifier" and len(card.labels) < 2:
        raise InvalidCardError(
            f"card of {card.name!r}: a classifier of one label always says that; name two, and output: sigmoid where "
            "the program gives the probability of the second alone"
        )
    if card.output == "sigmoid" and len(card.labels) != 2:
        raise InvalidCardError(
            f"card of {card.name!r}: output: sigmoid is one probability, of the second of two labels; it has "
            f"{len(card.labels)} labels"
        )


def columns(card: Card) -> int:
    """How many numbers a classifier or segmenter gives an image or pixel."""
    return 1 if card.output == "sigmoid" else len(card.labels)


def read_output(given: Any, output: Output | None, size: tuple[int, int]) -> Any:
    """What a program gave for images of ``size`` (height, width), as ``Program`` gives it; differentiable."""
    if output is None or output == "logits":
        return given
    if output in DECODERS:
        return DECODERS[output](given, size)
    found = given.float()
    if output == "sigmoid":
        found = torch.cat([1 - found, found], dim=1)
    return found.clamp(min=LEAST).log()


def check_output(run: Callable[[Tensor], Any], card: Card, size: tuple[int, int] | None) -> None:
    """Run a program as it is on random images, and see whether it gives what its card says, or what can be assumed.

    ``run``: images (1, 3, H, W) in [0,1] to what the program itself gives; ``size`` (height, width): the only one it
    takes. A program that gives boxes is not run. Raises IncompatibleWeightsError for another shape, and for values that
    are not what the card states; where it states nothing, for those in [0,1], which may be no logits.
    """
    if card.task == "detector" and card.output is None:
        return
    height, width = size or _probe_size(card)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        answers = [_run(run, card, torch.rand(1, 3, height, width, generator=generator)) for _ in range(PROBES)]
    if card.task == "detector":
        for answer in answers:
            read_output(answer, card.output, (height, width))
        return
    for answer in answers:
        if answer.ndim != RANKS[card.task] or answer.shape[1] != columns(card):
            raise IncompatibleWeightsError(
                f"{card.name!r} gives {tuple(answer.shape)} for one image, not the {card.output or 'logits'} of "
                f"{len(card.labels)} labels in dimension 1 of {RANKS[card.task]}; correct its card or program"
            )
    if card.output != "logits":
        _check_range(card, answers)


def _check_range(card: Card, answers: Sequence[Tensor]) -> None:
    inside = all(bool(((answer >= -LEAST) & (answer <= 1 + TOLERANCE)).all()) for answer in answers)
    whole = inside and all(bool(((answer.sum(dim=1) - 1).abs() <= TOLERANCE).all()) for answer in answers)
    if (card.output == "sigmoid" and not inside) or (card.output == "probabilities" and not whole):
        low, high = min(float(answer.min()) for answer in answers), max(float(answer.max()) for answer in answers)
        raise IncompatibleWeightsError(
            f"the card of {card.name!r} states output: {card.output}, but the program gives values from {low:.3g} to "
            f"{high:.3g}{'' if not inside else ', which do not add up to 1'}; correct the card"
        )
    if card.output is None and whole:
        raise IncompatibleWeightsError(
            f'{card.name!r} gives probabilities, not logits; add "output": "probabilities" to its card'
        )
    if card.output is None and inside:
        raise IncompatibleWeightsError(
            f'{card.name!r} gives values in [0, 1] that do not add up to 1; add "output": "logits" to its card if they '
            "are logits; independent probabilities of several labels are not served, export the logits"
        )


def _run(run: Callable[[Tensor], Any], card: Card, image: Tensor) -> Tensor:
    size = f"{image.shape[-2]}x{image.shape[-1]}"
    try:
        given = run(image)
    except IncompatibleWeightsError:
        raise
    except Exception as error:  # a program can fail in any way
        reason = " ".join(str(error).split())[-200:] or type(error).__name__  # TorchScript's traceback comes first
        raise IncompatibleWeightsError(
            f"{card.name!r} fails on an image of {size}: {reason}; state the size in its card (input.crop, recipe.size)"
        ) from error
    if not isinstance(given, Tensor):
        raise IncompatibleWeightsError(f"{card.name!r} gives a {type(given).__name__}, not a tensor; export that alone")
    return given.float()


def _probe_size(card: Card) -> tuple[int, int]:
    """A size that a program which takes several does take, by its card."""
    size = card.recipe.get("size")
    if isinstance(size, list | tuple) and len(size) == 2:
        return int(size[0]), int(size[1])
    side = card.input.crop or card.input.short_side or PROBE_SIDE
    return side, side
