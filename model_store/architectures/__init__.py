"""The registry of architectures: a name in a card becomes a module here and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from torch import nn

from model_store.architectures.attention import ConvAttention
from model_store.architectures.generator import PerturbationGenerator
from model_store.architectures.identity import Identity
from model_store.architectures.lite import NrpLite
from model_store.architectures.mobilenet import MobileNetV3Small
from model_store.architectures.published import NRP, NRPResG
from model_store.architectures.resnet import ResNetSmall
from model_store.architectures.retinanet import RetinaNetSmall
from model_store.architectures.segnet import SegNetBasic
from model_store.architectures.vgg_features import VGG16Features, VGGSmall
from model_store.architectures.zoo import TimmClassifier, ZooClassifier
from model_store.errors import UnknownArchitectureError

__all__ = ["ARCHITECTURES", "Architecture", "build"]


@dataclass(frozen=True)
class Architecture:
    """How to build one architecture, and the task its modules serve."""

    build: Callable[..., nn.Module]
    task: str
    summary: str


ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        "cda_generator": Architecture(PerturbationGenerator, "perturber", "CDA's ResNet generator of perturbations"),
        "identity": Architecture(Identity, "purifier", "returns its input; the fake that tests stand on"),
        "nrp": Architecture(NRP, "purifier", "published RRDB purifier, 23 blocks, 16.55 M parameters"),
        "nrp_resg": Architecture(NRPResG, "purifier", "published residual purifier, 23 blocks, 1.70 M parameters"),
        "nrp_lite": Architecture(NrpLite, "purifier", "U-Net on pixel-unshuffled input, for the CPU"),
        "resnet_small": Architecture(ResNetSmall, "classifier", "narrow ResNet-18"),
        "mobilenet_v3_small": Architecture(MobileNetV3Small, "classifier", "torchvision's MobileNetV3-Small"),
        "vgg_small": Architecture(VGGSmall, "classifier", "narrow VGG-11 with batch norm"),
        "conv_attention": Architecture(ConvAttention, "classifier", "convolutional stages, then self-attention"),
        "torchvision_classifier": Architecture(
            ZooClassifier, "classifier", "any classifier of torchvision's, untrained"
        ),
        "timm_classifier": Architecture(TimmClassifier, "classifier", "any classifier of timm's, untrained"),
        "segnet_basic": Architecture(SegNetBasic, "segmenter", "SegNet-Basic: pooling indices instead of skips"),
        "retinanet_small": Architecture(RetinaNetSmall, "detector", "torchvision's RetinaNet on a narrow ResNet-18"),
        "vgg16_conv3_3": Architecture(VGG16Features, "feature-network", "VGG-16 up to conv3-3, after the ReLU"),
    }
)


def build(name: str, arguments: Mapping[str, Any] | None = None) -> nn.Module:
    """Return a freshly initialised module of architecture ``name``.

    Raises UnknownArchitectureError for a name that is not registered or arguments it does not take.
    """
    if name not in ARCHITECTURES:
        raise UnknownArchitectureError(f"unknown architecture {name!r}; known: {', '.join(sorted(ARCHITECTURES))}")
    try:
        return ARCHITECTURES[name].build(**(arguments or {}))
    except (TypeError, ValueError, RuntimeError) as error:
        raise UnknownArchitectureError(f"architecture {name!r} does not take these arguments: {error}") from error
