"""The frozen feature network that a purifier is trained against: one from the store, or torchvision's VGG-16."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torchvision.models import VGG16_Weights

from model_store.architectures.vgg_features import VGG16Features
from training.errors import DataError

if TYPE_CHECKING:  # training on a bare machine has no pydantic, which the store needs: networks are handed in there
    from model_store.store import ModelStore

OFFICIAL = "torchvision:vgg16"
OTHERWISE = "or train a network with `nrp train feature-net` and name it with --feature-network"


@dataclass(frozen=True)
class FeatureNetwork:
    """``identity`` (a sha256, or the official weights' name) is what runs and banks of adversaries depend on."""

    module: VGG16Features
    identity: str


def load_features(name: str, store: ModelStore) -> FeatureNetwork:
    """The network of that name: the paper's own where it can be downloaded, else one trained here.

    Raises UnknownModelError, DataError for a model that is no feature network, or UnavailableModelError.
    """
    if name == OFFICIAL:
        return _official()
    loaded = store.load(name)
    if not isinstance(loaded.module, VGG16Features):
        raise DataError(f"{name!r} is no feature network; train one with `nrp train feature-net`")
    return FeatureNetwork(loaded.module, loaded.card.sha256)


def _official() -> FeatureNetwork:
    from model_store.official import file_name, read_official  # noqa: PLC0415  (see the top)
    from model_store.store import fill  # noqa: PLC0415

    weights = VGG16_Weights.IMAGENET1K_V1
    state = read_official(weights, OFFICIAL, OTHERWISE)
    module = VGG16Features(classes=None)
    wanted = module.state_dict().keys()
    fill(module, {key: value for key, value in state.items() if key in wanted}, OFFICIAL)
    return FeatureNetwork(module.eval().requires_grad_(False), file_name(weights))
