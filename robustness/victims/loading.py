"""Loading: a victim of whichever task its card says, and the data it is judged on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from model_store.card import InputConvention
from model_store.official import is_official
from model_store.store import ModelStore
from robustness.datasets.bccd import CLASSES as BCCD_CLASSES
from robustness.datasets.bccd import read_bccd
from robustness.datasets.camvid import CLASSES as CAMVID_CLASSES
from robustness.datasets.camvid import read_camvid
from robustness.datasets.coco import read_coco
from robustness.datasets.imagenet import read_imagenet
from robustness.datasets.nips17 import CLASSES as NIPS17_CLASSES
from robustness.datasets.nips17 import is_nips17, read_nips17
from robustness.datasets.photos import Part, find_photos, in_rounds, keep_part, load_photos
from robustness.datasets.recognise import class_root
from robustness.datasets.yolo import is_yolo, read_yolo
from robustness.errors import PhotoFolderError, VictimError
from robustness.examples import Examples
from robustness.progress import Progress
from robustness.results.row import Task
from robustness.victims.classification import Classifier, agreeing, load_classifier
from robustness.victims.detection import Detector, load_detector
from robustness.victims.official import OfficialClassifier, OfficialDetector, load_official_victim
from robustness.victims.segmentation import Segmenter, load_segmenter
from robustness.victims.victim import Victim


@dataclass(frozen=True)
class Selection:
    """Which photos: ``limit`` in all, from the ``part`` of each class on which choices were, or were not, made."""

    limit: int | None
    fraction: float
    part: Part
    seed: int


def load_victim(
    store: ModelStore, name: str, device: torch.device, convention: InputConvention | None = None
) -> Victim:
    """The victim ``name`` of the store, or an official one, ``torchvision:NAME`` or ``timm:NAME``.

    A classifier that takes images of any size may be judged at the size of ``convention`` instead of its own. Raises
    UnknownModelError, UnavailableModelError, or VictimError for a model that is nothing to judge, or a ``convention``
    given to what is no classifier.
    """
    if is_official(name):
        return _at(load_official_victim(name, device), convention)
    task = store.card(name).task
    if task == "classifier":
        return load_classifier(store, name, device, convention)
    return _at(_load_scene_victim(store, name, task, device), convention)


def _at(victim: Victim, convention: InputConvention | None) -> Victim:
    if convention is None:
        return victim
    if not isinstance(victim, Classifier):
        raise VictimError(f"{victim.name} is no classifier, so no input convention can be given for it; leave it out")
    return replace(victim, convention=convention)


def _load_scene_victim(store: ModelStore, name: str, task: str, device: torch.device) -> Victim:
    if task == "segmenter":
        return load_segmenter(store, name, device)
    if task == "detector":
        return load_detector(store, name, device)
    raise VictimError(f"{name} is a {task}; name classifiers, segmenters or detectors (`nrp models list`)")


def task_of(victim: Victim) -> Task:
    """What a victim is for."""
    if isinstance(victim, Segmenter):
        return "segmentation"
    return "detection" if isinstance(victim, Detector) else "classification"


def read_examples(root: Path, victims: tuple[Victim, ...], selection: Selection, progress: Progress) -> Examples:
    """The test data of ``root`` at the size that ``victims``, all of one task, take.

    Raises PhotoFolderError for data that does not fit, VictimError for victims that do not agree on it.
    """
    first = victims[0]
    if isinstance(first, Classifier):
        classifiers = tuple(victim for victim in victims if isinstance(victim, Classifier))
        agreeing(classifiers)
        return _photos(root, first, selection, progress)
    if len({is_official(victim.name) for victim in victims}) > 1:
        raise VictimError(f"{', '.join(v.name for v in victims)} were trained on other classes; measure them apart")
    sizes = {victim.size for victim in victims if isinstance(victim, Segmenter | Detector)}
    if len(sizes) > 1:
        raise VictimError(f"{', '.join(v.name for v in victims)} take images of several sizes; measure them apart")
    (size,) = sizes
    return _scenes(root, first, size, selection.limit)


def _scenes(root: Path, victim: Victim, size: tuple[int, int], limit: int | None) -> Examples:
    if isinstance(victim, OfficialDetector):
        return read_coco(root, size, limit=limit)
    if isinstance(victim, Detector):
        return _boxed(root, victim, size, limit)
    if not isinstance(victim, Segmenter) or len(victim.classes) != len(CAMVID_CLASSES):
        raise VictimError(f"{victim.name} does not tell CamVid's classes apart; name a segmenter trained on them")
    return read_camvid(root, "test", size)


def _boxed(root: Path, victim: Detector, size: tuple[int, int], limit: int | None) -> Examples:
    if is_yolo(root):
        return read_yolo(root, size, limit, classes=len(victim.classes))
    if len(victim.classes) != len(BCCD_CLASSES):
        raise VictimError(
            f"{victim.name} does not tell BCCD's cells apart; name a detector trained on them, or photos with its "
            "classes in images/ and labels/ as YOLO has them"
        )
    return read_bccd(root, "test", size)


def _photos(root: Path, victim: Classifier, selection: Selection, progress: Progress) -> Examples:
    if is_nips17(root):
        return _nips17(root, victim, selection, progress)
    if isinstance(victim, OfficialClassifier):
        return read_imagenet(root, victim.convention, progress, limit=selection.limit, seed=selection.seed)
    place = class_root(root) or root  # a victim may have been trained on folders that WordNet does not name
    files = keep_part(find_photos(place, victim.folders), selection.fraction, selection.part)
    return load_photos(in_rounds(files, selection.seed, selection.limit), victim.convention, progress)


def _nips17(root: Path, victim: Classifier, selection: Selection, progress: Progress) -> Examples:
    if len(victim.folders) != NIPS17_CLASSES:
        raise VictimError(
            f"{root} holds photos of ImageNet's {NIPS17_CLASSES} classes but {victim.name} tells {len(victim.folders)} "
            "apart; name a classifier of ImageNet, such as efficientnet-lite0"
        )
    if selection.fraction > 0 or selection.part == "selection":
        raise PhotoFolderError(
            f"{root} is for evaluation alone and has no selection; leave out --selection-fraction and --part"
        )
    return read_nips17(root, victim.convention, progress, limit=selection.limit, seed=selection.seed)
