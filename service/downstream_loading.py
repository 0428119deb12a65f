"""Loading of downstream models: from the store, as weights or as a program, or from torchvision or timm."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

from torch import nn
from torchvision.models.detection.roi_heads import RoIHeads

from model_store.card import Card, InputConvention
from model_store.errors import InvalidCardError, UnknownModelError
from model_store.folding import fold_batch_norms
from model_store.official import Kind, OfficialModel, is_official, load_official
from model_store.pixels import fit
from model_store.program import Program
from model_store.scenes import Boxes, Masks, SceneScale, scene_scale
from model_store.store import LoadedModel, ModelStore
from service.downstream import Classifier, Detector, Downstream, Segmenter

VARIABLES: Mapping[Kind, str] = MappingProxyType(
    {"classifier": "NRP_CLASSIFIER", "segmenter": "NRP_SEGMENTER", "detector": "NRP_DETECTOR"}
)
KINDS: tuple[Kind, ...] = tuple(VARIABLES)
# A mask is a PNG of one byte a pixel.
MOST_CLASSES = 256


def load_downstream(kind: Kind, name: str, store: ModelStore) -> Downstream:
    """The model of that name, in evaluation mode on the CPU; a classifier's batch norms are folded.

    Not while another thread runs a network: see ``fold_batch_norms``. Raises UnknownModelError for one that serves
    another task, InvalidCardError, UnavailableModelError, or what ``ModelStore.load`` raises.
    """
    variable = VARIABLES[kind]
    if is_official(name):
        official = load_official(kind, name, f"or unset {variable} to use the shipped {kind}")
        return _OFFICIAL[kind](official)
    card = store.card(name)
    if card.task != kind:
        raise UnknownModelError(f"{name!r} is a {card.task}, not a {kind}; choose another {variable}")
    return _STORED[kind](store.load(name))


def _official_classifier(official: OfficialModel) -> Classifier:
    crop = official.convention.crop
    module = fold_batch_norms(official.module)
    return Classifier(official.name, official.labels, "", module, False, official.transforms, crop)


def _official_segmenter(official: OfficialModel) -> Segmenter:
    module = Masks(official.on_pixels()).eval()
    scale = SceneScale(short_side=official.convention.short_side)
    return Segmenter(official.name, official.labels, "", module, False, scale)


def _official_detector(official: OfficialModel) -> Detector:
    module = _without_masks(official.module)
    return Detector(official.name, official.labels, "", Boxes(module).eval(), True, SceneScale())


def _without_masks(module: nn.Module) -> nn.Module:
    """Mask and Keypoint R-CNN without what nobody asks them for: their masks would be as large as the upload, each."""
    heads = getattr(module, "roi_heads", None)
    if isinstance(heads, RoIHeads):
        heads.mask_roi_pool = heads.keypoint_roi_pool = None
    return module


def _stored_classifier(loaded: LoadedModel) -> Classifier:
    card, module = loaded.card, loaded.module
    _check_labelled(card)
    convention = _checked(card.input)
    if isinstance(module, Program):
        _check_program_crop(card, module)
    else:
        module = fold_batch_norms(module)
    prepare = partial(fit, convention=convention)
    return Classifier(
        card.name, card.labels, card.sha256, module, isinstance(module, Program), prepare, convention.crop
    )


def _stored_segmenter(loaded: LoadedModel) -> Segmenter:
    card, module = loaded.card, loaded.module
    if len(card.labels) > MOST_CLASSES:
        raise InvalidCardError(f"the card of {card.name} has {len(card.labels)} labels; a mask holds {MOST_CLASSES}")
    return Segmenter(card.name, card.labels, card.sha256, module, isinstance(module, Program), _scale(loaded))


def _stored_detector(loaded: LoadedModel) -> Detector:
    card, module = loaded.card, loaded.module
    return Detector(card.name, card.labels, card.sha256, module, isinstance(module, Program), _scale(loaded))


def _scale(loaded: LoadedModel) -> SceneScale:
    """A program that was made for one size gets that; otherwise the card says how large scenes are."""
    _check_labelled(loaded.card)
    if isinstance(loaded.module, Program) and loaded.module.size is not None:
        return SceneScale(exact=loaded.module.size)
    return scene_scale(loaded.card)


def _check_labelled(card: Card) -> None:
    if not card.labels:
        raise InvalidCardError(f"the card of {card.name} names no classes; add them to its labels, in order")


def _checked(convention: InputConvention) -> InputConvention:
    """The card's convention, provided that what it leaves of an image is bounded."""
    if convention.short_side is not None and convention.crop is None:
        return convention.model_copy(update={"crop": convention.short_side})
    return convention


def _check_program_crop(card: Card, program: Program) -> None:
    crop = _checked(card.input).crop
    if crop is None or card.input.short_side is None:
        raise InvalidCardError(f"the card of {card.name} must say in input.short_side and input.crop what it takes")
    if program.size not in {None, (crop, crop)}:
        raise InvalidCardError(f"the card of {card.name} crops to {crop} pixels, but the program takes {program.size}")


_OFFICIAL: Mapping[Kind, Callable[[OfficialModel], Downstream]] = MappingProxyType(
    {"classifier": _official_classifier, "segmenter": _official_segmenter, "detector": _official_detector}
)
_STORED: Mapping[Kind, Callable[[LoadedModel], Downstream]] = MappingProxyType(
    {"classifier": _stored_classifier, "segmenter": _stored_segmenter, "detector": _stored_detector}
)
