"""The frozen feature network that a purifier is trained against: one from the store, or torchvision's VGG-16."""

from __future__ import annotations

import http.client
from dataclasses import dataclass

from torch import Tensor
from torchvision.models import VGG16_Weights

from model_store.architectures.vgg_features import VGG16Features
from model_store.errors import UnavailableModelError
from model_store.store import ModelStore, fill
from training.errors import DataError

OFFICIAL = "torchvision:vgg16"
_DOWNLOAD_FAILURES = (OSError, RuntimeError, http.client.HTTPException)


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
    weights = VGG16_Weights.IMAGENET1K_V1
    try:
        state: dict[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except _DOWNLOAD_FAILURES as error:
        reason = " ".join(str(error).split())[:200]
        raise UnavailableModelError(
            f"the official VGG-16 weights cannot be had here ({reason}); put {weights.url.rsplit('/', 1)[-1]} into "
            "$TORCH_HOME/hub/checkpoints, or train a network with `nrp train feature-net` and name it with "
            "--feature-network"
        ) from error
    module = VGG16Features(classes=None)
    wanted = module.state_dict().keys()
    fill(module, {key: value for key, value in state.items() if key in wanted}, OFFICIAL)
    return FeatureNetwork(module.eval().requires_grad_(False), weights.url.rsplit("/", 1)[-1])
