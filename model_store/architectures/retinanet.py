"""The shipped detector: torchvision's RetinaNet on the backbone of the shipped classifier."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops import FeaturePyramidNetwork

from model_store.architectures.normalise import Normalise
from model_store.architectures.resnet import ResNetSmall

# Strides of the three stages that feed the pyramid: the first one's, at 4, is too fine to pay for.
STRIDES = (8, 16, 32)
GROUPS = 8

Boxes = dict[str, Tensor]


class PyramidBackbone(nn.Module):
    """``ResNetSmall``'s stem and stages under a feature pyramid (Lin et al., 2017): maps at strides 8, 16 and 32.

    ``stem`` and ``stages`` have the classifier's names and shapes, so its weights can be their starting point.
    """

    def __init__(self, widths: Sequence[int], blocks: int, channels: int) -> None:
        super().__init__()
        classifier = ResNetSmall(1, widths, blocks)
        self.stem, self.stages = classifier.stem, classifier.stages
        self.pyramid = FeaturePyramidNetwork(list(widths[-len(STRIDES) :]), channels)
        self.out_channels = channels

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """The pyramid's maps, finest first, of normalised images (N, 3, H, W), H and W multiples of 32."""
        features = self.stem(images)
        maps: OrderedDict[str, Tensor] = OrderedDict()
        for index, stage in enumerate(self.stages):
            features = stage(features)
            maps[str(index)] = features
        for index in range(len(self.stages) - len(STRIDES)):
            del maps[str(index)]
        out: OrderedDict[str, Tensor] = self.pyramid(maps)
        return out


class RetinaNetSmall(nn.Module):
    """RetinaNet (Lin et al., 2017, focal loss), small. NCHW in [0,1] to one dict of boxes, scores, labels an image.

    Images keep their size; zeros are added at the right and the bottom up to a multiple of 32, as torchvision does.
    Boxes are x1 y1 x2 y2 in pixels, labels 0 to ``classes`` - 1 (each class has its own sigmoid, so there is no
    background label). ``anchor_sizes`` are the anchors' sides in pixels at each stride, ``ratios`` their height over
    width. The heads normalise by groups: they see three scales, whose batch statistics differ.
    """

    def __init__(
        self,
        classes: int,
        widths: Sequence[int] = (48, 96, 192, 320),
        blocks: int = 2,
        channels: int = 96,
        anchor_sizes: Sequence[Sequence[int]] = ((17, 25), (42, 56), (80, 120)),
        ratios: Sequence[float] = (0.7, 1.0, 1.43),
    ) -> None:
        super().__init__()
        if len(widths) <= len(STRIDES) or len(anchor_sizes) != len(STRIDES):
            raise ValueError(f"retinanet_small takes {len(STRIDES) + 1} widths and {len(STRIDES)} rows of anchor_sizes")
        self.normalise = Normalise()
        sizes = tuple(tuple(row) for row in anchor_sizes)
        anchors = AnchorGenerator(sizes, (tuple(ratios),) * len(sizes))
        backbone = PyramidBackbone(widths, blocks, channels)
        head = RetinaNetHead(
            channels, anchors.num_anchors_per_location()[0], classes, norm_layer=partial(nn.GroupNorm, GROUPS)
        )
        self.detector = RetinaNet(
            backbone, classes, anchor_generator=anchors, head=head, detections_per_img=100, nms_thresh=0.5
        )

    def forward(self, images: Tensor) -> list[Boxes]:
        """At most 100 detections an image, best first: boxes (K, 4), scores (K,) in [0,1], labels (K,) int64."""
        outputs, anchors, levels = self._outputs(images)
        shapes = [(images.shape[-2], images.shape[-1])] * len(images)
        split = {name: list(value.split_with_sizes(levels, dim=1)) for name, value in outputs.items()}
        found: list[Boxes] = self.detector.postprocess_detections(
            split, [list(each.split_with_sizes(levels)) for each in anchors], shapes
        )
        return found

    def losses(self, images: Tensor, targets: Sequence[Boxes]) -> Boxes:
        """``classification`` (focal) and ``box`` (L1) losses (N,), each over an image's matched anchors.

        In either mode, and differentiable in the images: an attacker raises them with the batch statistics frozen.
        ``targets`` give boxes (K, 4) and labels (K,) of each image; K may be 0.
        """
        outputs, anchors, _ = self._outputs(images)
        classification, box = [], []
        for place, target in enumerate(targets):
            own = {name: value[place : place + 1] for name, value in outputs.items()}
            parts = self.detector.compute_loss([target], own, [anchors[place]])
            classification.append(parts["classification"])
            box.append(parts["bbox_regression"])
        return {"classification": torch.stack(classification), "box": torch.stack(box)}

    def _outputs(self, images: Tensor) -> tuple[Boxes, list[Tensor], list[int]]:
        """The heads' float32 outputs (N, A, ...), the anchors of each image (A, 4), and how many each level has."""
        height, width = images.shape[-2:]
        step = STRIDES[-1]
        padded = F.pad(self.normalise(images), (0, -width % step, 0, -height % step))
        padded = padded.contiguous(memory_format=torch.channels_last)
        maps = list(self.detector.backbone(padded).values())
        outputs = {name: value.float() for name, value in self.detector.head(maps).items()}
        anchors = self.detector.anchor_generator(ImageList(padded, [(height, width)] * len(images)), maps)
        each = self.detector.anchor_generator.num_anchors_per_location()
        levels = [level.shape[-2] * level.shape[-1] * count for level, count in zip(maps, each, strict=True)]
        return outputs, anchors, levels
