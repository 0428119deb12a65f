"""Official models as victims, downloaded on first use: ``torchvision:NAME`` of three tasks, ``timm:NAME`` classifiers.

All take images in [0,1] at the size they are judged at: normalisation happens inside, resizing before, so that an
attack acts on pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor
from torchvision.models.detection import RetinaNet

from model_store.devices import place
from model_store.folding import fold_batch_norms
from model_store.official import Kind, OfficialModel, load_official, official_kind
from model_store.scenes import Boxes, Masks
from model_store.timm_models import imagenet_folders
from robustness.errors import VictimError
from robustness.victims.classification import Classifier
from robustness.victims.detection import Detector
from robustness.victims.segmentation import Segmenter
from robustness.victims.victim import Victim

OTHERWISE = "or name models of the store (`nrp models list`)"
SEGMENTED_AT = (520, 520)
DETECTED_AT = (640, 640)
COCO_LABELS = 91


@dataclass(frozen=True)
class OfficialClassifier(Classifier):
    """An ImageNet classifier; ``folders`` are its 1000 classes' WordNet ids, in the order of ``datasets.imagenet``."""


@dataclass(frozen=True)
class OfficialDetector(Detector):
    """A COCO detector; labels are COCO's category numbers, 1 to 90, as ``datasets.coco`` gives them."""


class AttackedBoxes(Boxes):
    """``Boxes`` with losses to attack.

    Every detector of torchvision answers. Losses come from RetinaNets alone, whose loss can be had image by image;
    R-CNNs sample proposals at random while they compute theirs.
    """

    def losses(self, images: Tensor, targets: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
        """``classification`` (focal) and ``box`` (L1) losses (N,), differentiable. Raises VictimError."""
        network = self.network
        if not isinstance(network, RetinaNet):
            raise VictimError(
                f"{type(network).__name__} gives no loss an image: attack it with SSP, CDA or from a surrogate, or "
                "name torchvision:retinanet_resnet50_fpn"
            )
        resized, aims = network.transform(list(images), [dict(target) for target in targets])
        maps = list(network.backbone(resized.tensors).values())
        outputs = {name: value.float() for name, value in network.head(maps).items()}
        anchors = network.anchor_generator(resized, maps)
        each = [
            network.compute_loss([aim], {name: value[at : at + 1] for name, value in outputs.items()}, [anchors[at]])
            for at, aim in enumerate(aims)
        ]
        return {
            "classification": torch.stack([parts["classification"] for parts in each]),
            "box": torch.stack([parts["bbox_regression"] for parts in each]),
        }


def load_official_victim(name: str, device: torch.device, size: tuple[int, int] | None = None) -> Victim:
    """The victim ``torchvision:NAME`` or ``timm:NAME``, of whichever task that is.

    ``size`` (height, width) is what a segmenter (default 520x520) or detector (640x640) is judged at; a classifier's
    is its crop. Raises UnavailableModelError for a name that is not known or weights that cannot be had, and
    VictimError for a detector of other classes than COCO's, or a classifier of other classes than ImageNet's 1000.
    """
    kind = official_kind(name, OTHERWISE)
    official = load_official(kind, name, OTHERWISE)
    return _AS_VICTIM[kind](official, device, size)


def _classifier(official: OfficialModel, device: torch.device, size: tuple[int, int] | None) -> OfficialClassifier:
    if size is not None:
        raise VictimError(f"{official.name} is judged at its own crop; leave out the size")
    folders = imagenet_folders()
    if len(official.labels) != len(folders):
        raise VictimError(
            f"{official.name} tells {len(official.labels)} classes apart, not ImageNet's {len(folders)}; name "
            "one such as torchvision:resnet50"
        )
    module = place(fold_batch_norms(official.on_pixels()), device)
    return OfficialClassifier(official.name, official.identity, module, official.convention, folders, official.labels)


def _segmenter(official: OfficialModel, device: torch.device, size: tuple[int, int] | None) -> Segmenter:
    module = place(Masks(official.on_pixels()).eval(), device)
    return Segmenter(official.name, official.identity, module, official.labels, size or SEGMENTED_AT)


def _detector(official: OfficialModel, device: torch.device, size: tuple[int, int] | None) -> OfficialDetector:
    if len(official.labels) != COCO_LABELS:
        raise VictimError(
            f"{official.name} finds {', '.join(official.labels)}, not COCO's objects; name "
            "torchvision:retinanet_resnet50_fpn"
        )
    module = place(AttackedBoxes(official.on_pixels()).eval(), device)
    return OfficialDetector(official.name, official.identity, module, official.labels, size or DETECTED_AT)


_AS_VICTIM: Mapping[Kind, Callable[[OfficialModel, torch.device, tuple[int, int] | None], Victim]] = MappingProxyType(
    {"classifier": _classifier, "segmenter": _segmenter, "detector": _detector}
)
