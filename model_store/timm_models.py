"""timm's classifiers with their published weights: architecture, preprocessing and labels come from timm itself.

Weights are safetensors of the Hugging Face hub, downloaded on first use and then taken from its cache without asking
again; no pickle is read. timm is imported when one of its models is asked for: that takes a second.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from model_store.errors import UnavailableModelError

WEIGHTS = "model.safetensors"
CACHE = "~/.cache/huggingface/hub"  # $HF_HOME/hub, where that is set
EXAMPLE = "timm:resnet50.a1_in1k"


@dataclass(frozen=True)
class TimmModel:
    """``module`` as timm builds it, frozen, in evaluation mode, on the CPU. The rest is as in ``OfficialModel``."""

    labels: tuple[str, ...]
    identity: str
    transforms: TimmTransforms
    module: nn.Module


class TimmTransforms(nn.Module):
    """What timm does to a photo before a network: of images (N, 3, H, W) in [0,1] it makes what the network takes.

    ``resize_size``, ``crop_size``, ``mean`` and ``std`` are named as torchvision's transforms name them: the shorter
    side is brought to the one, each side where it is to ``stretch``; then the centre is cut out, and normalised.
    """

    def __init__(self, steps: Callable[[Tensor], Tensor], config: Mapping[str, Any]) -> None:
        super().__init__()
        self._steps = steps
        side = int(config["input_size"][-1])
        self.resize_size, self.crop_size = [int(side / config["crop_pct"])], [side]
        self.stretch = config["crop_mode"] == "squash"
        self.mean, self.std = config["mean"], config["std"]

    def forward(self, images: Tensor) -> Tensor:
        return self._steps(images)


def load_timm(name: str, otherwise: str) -> TimmModel:
    """timm's classifier ``name``, such as ``resnet50.a1_in1k``; without a tag the weights that timm prefers.

    ``otherwise`` ends the text of an error with what the reader can do instead. Raises UnavailableModelError for a name
    that timm does not know, a network without classes or whose classes have no names, and weights that cannot be had.
    """
    timm = _timm(otherwise)
    config = _configuration(timm, name, otherwise)
    labels = _labels(timm, config, name, otherwise)
    file = _weights(config.hf_hub_id, name, otherwise)
    try:
        # custom_load: timm reads some models' own formats by code of theirs; what lies on the hub is in timm's.
        overlay = {"file": str(file), "custom_load": False}
        module = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay)
        taken = timm.data.resolve_model_data_config(module)
        transforms = TimmTransforms(timm.data.create_transform(**taken), taken)
    except Exception as error:  # a damaged file and a foreign one each raise something else
        raise UnavailableModelError(
            f"{file} does not hold the weights of timm:{name} ({_line(error)}); delete it, {otherwise}"
        ) from error
    identity = f"{config.hf_hub_id} {hashlib.sha256(file.read_bytes()).hexdigest()[:12]}"
    return TimmModel(labels, identity, transforms, module.eval().requires_grad_(False))


def imagenet_folders() -> tuple[str, ...]:
    """The WordNet ids of ImageNet's 1,000 classes, in the order in which networks number them: that of their folders.

    Raises UnavailableModelError where timm, which knows them, is not installed.
    """
    return tuple(_timm("or leave official classifiers out").data.ImageNetInfo().label_names())


def _timm(otherwise: str) -> Any:
    try:
        import timm  # noqa: PLC0415 - see the top
    except ImportError as error:
        raise UnavailableModelError(f"timm is not installed; run: pip install timm, {otherwise}") from error
    return timm


def _configuration(timm: Any, name: str, otherwise: str) -> Any:
    """timm's configuration of the weights: where they are, what they take and tell apart."""
    base = name.partition(".")[0]
    try:
        config = timm.get_pretrained_cfg(name) if timm.is_model(base) else None
    except RuntimeError:  # no such tag
        config = None
    if config is None:
        near = timm.list_pretrained(f"{base}.*")[:3] if timm.is_model(base) else []
        known = ", ".join(f"timm:{one}" for one in near) or EXAMPLE
        raise UnavailableModelError(
            f"timm {timm.__version__} has no model {name!r}; name one such as {known}, {otherwise}"
        )
    if not config.num_classes:
        raise UnavailableModelError(f"timm:{name} gives features, not classes; name one such as {EXAMPLE}, {otherwise}")
    if not config.hf_hub_id or config.hf_hub_filename:
        raise UnavailableModelError(f"timm:{name} has no {WEIGHTS} on the hub; name one such as {EXAMPLE}, {otherwise}")
    return config


def _labels(timm: Any, config: Any, name: str, otherwise: str) -> tuple[str, ...]:
    """The classes' names in the order of the outputs: those of the weights, else ImageNet's by how many there are."""
    subset = timm.data.infer_imagenet_subset({"num_classes": config.num_classes})
    info = timm.data.ImageNetInfo(subset) if subset else None
    identifiers = config.label_names or (info.label_names() if info else ())
    described = config.label_descriptions or (info.label_descriptions(as_dict=True) if info else {})
    if len(identifiers) != config.num_classes:
        raise UnavailableModelError(
            f"timm names {len(identifiers)} of the {config.num_classes} classes of timm:{name}; publish it in a model "
            f"store with its labels, {otherwise}"
        )
    return _readable(identifiers, [str(described.get(identifier, identifier)) for identifier in identifiers])


def _readable(identifiers: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    """The first of each class's synonyms, ``tench`` of ``tench, Tinca tinca``; where that names several classes, all of
    its synonyms, and where those do too, its identifier as well."""
    first = [name.partition(",")[0] for name in names]
    firsts, wholes = Counter(first), Counter(names)
    return tuple(
        short if firsts[short] == 1 else name if wholes[name] == 1 else f"{name} ({identifier})"
        for short, name, identifier in zip(first, names, identifiers, strict=True)
    )


def _weights(repository: str, name: str, otherwise: str) -> Path:
    """The file in the hub's cache, where it is put if need be."""
    import huggingface_hub as hub  # noqa: PLC0415 - comes with timm

    cached = hub.try_to_load_from_cache(repository, WEIGHTS)
    if isinstance(cached, str):
        return Path(cached)
    try:
        hub.get_hf_file_metadata(hub.hf_hub_url(repository, WEIGHTS))  # asks once; a download, for half a minute
        return Path(hub.hf_hub_download(repository, WEIGHTS))
    except Exception as error:  # network, proxies, the hub and disks each raise something else
        raise UnavailableModelError(
            f"the weights of timm:{name} cannot be had here ({_line(error)}); where there is network, run `hf download "
            f"{repository} {WEIGHTS}` and copy {CACHE}/models--{repository.replace('/', '--')} here, {otherwise}"
        ) from error


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
