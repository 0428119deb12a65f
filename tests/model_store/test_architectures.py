from __future__ import annotations

from types import MappingProxyType
from typing import Any

import pytest
import torch
from torch import nn

from model_store.architectures import ARCHITECTURES, build
from model_store.card import Card
from model_store.errors import UnknownArchitectureError
from model_store.store import ModelStore

# Arguments that make each architecture small; an architecture without a line here is not tested, and fails below.
TINY = MappingProxyType(
    {
        "cda_generator": {"width": 4, "blocks": 1},
        "identity": {},
        "nrp": {"blocks": 2, "features": 8, "growth": 4},
        "nrp_resg": {"blocks": 2, "features": 8},
        "nrp_lite": {"widths": [8, 8], "encoder": [1, 1], "decoder": [1]},
        "resnet_small": {"classes": 3, "widths": [8, 8, 8, 8], "blocks": 1},
        "mobilenet_v3_small": {"classes": 3},
        "vgg_small": {"classes": 3, "width": 0.0625},
        "conv_attention": {"classes": 3, "widths": [8, 8, 8], "depth": 1, "heads": 2},
        "torchvision_classifier": {"classes": 3, "model": "squeezenet1_1", "options": {"dropout": 0.0}},
        "timm_classifier": {"classes": 3, "model": "test_efficientnet"},
        "vgg16_conv3_3": {"classes": 3, "width": 0.125},
        "segnet_basic": {"classes": 3, "width": 4, "kernel": 3},
        "retinanet_small": {"classes": 3, "widths": [8, 8, 8, 8], "blocks": 1, "channels": 8},
    }
)
PURIFIERS = sorted(name for name, architecture in ARCHITECTURES.items() if architecture.task == "purifier")
DETECTORS = {name for name, architecture in ARCHITECTURES.items() if architecture.task == "detector"}
ONE_ROW = ("classifier", "feature-network")
OTHERS = sorted(name for name, architecture in ARCHITECTURES.items() if architecture.task in ONE_ROW)


def disturbed(name: str) -> nn.Module:
    """A tiny module none of whose parameters or buffers has its initial value: zeros would hide a mistake."""
    module = build(name, TINY[name]).eval()
    with torch.no_grad():
        for tensor in module.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(torch.rand_like(tensor) * 0.1)
            else:
                tensor.add_(7)
    return module


def test_every_registered_architecture_has_small_arguments_here() -> None:
    assert set(TINY) == set(ARCHITECTURES)


@pytest.mark.parametrize("name", PURIFIERS)
@pytest.mark.parametrize("size", [(1, 1), (7, 5), (33, 17), (1, 64)])
def test_a_purifier_keeps_the_shape_of_any_image(name: str, size: tuple[int, int]) -> None:
    images = torch.rand(2, 3, *size)
    purified = disturbed(name)(images)
    assert purified.shape == images.shape
    assert purified.dtype == torch.float32
    assert torch.isfinite(purified).all()


@pytest.mark.parametrize("name", PURIFIERS)
def test_a_purifier_builds_from_its_defaults(name: str) -> None:
    with torch.device("meta"):
        assert build(name)(torch.rand(1, 3, 7, 5)).shape == (1, 3, 7, 5)


@pytest.mark.parametrize("name", PURIFIERS)
def test_an_image_is_purified_alike_whatever_its_neighbours(name: str) -> None:
    module = disturbed(name)
    image = torch.rand(1, 3, 9, 6)
    among_others = module(torch.cat([torch.zeros(1, 3, 9, 6), image]))[1:]
    torch.testing.assert_close(among_others, module(image))


@pytest.mark.parametrize("name", OTHERS)
def test_a_classifier_or_feature_network_gives_one_row_of_logits_an_image(name: str) -> None:
    assert disturbed(name)(torch.rand(2, 3, 33, 40)).shape == (2, 3)


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_published_and_loaded_again_a_module_answers_the_same(name: str, store: ModelStore) -> None:
    module = disturbed(name)
    task = ARCHITECTURES[name].task
    card = Card(name="m", summary="s", task=task, architecture=name, arguments=TINY[name])  # type: ignore[arg-type]
    store.publish(card, module)
    loaded = store.load("m").module
    images = torch.rand(2, 3, 32, 32)
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    torch.testing.assert_close(loaded(images), module(images), rtol=0, atol=0)


# The tanh of a disturbed generator saturates: its own test has another.
@pytest.mark.parametrize("name", sorted(set(ARCHITECTURES) - {"identity", "cda_generator"} - DETECTORS))
def test_a_gradient_reaches_the_input(name: str) -> None:
    images = torch.rand(1, 3, 32, 32, requires_grad=True)
    (gradient,) = torch.autograd.grad(disturbed(name)(images).sum(), images)
    assert gradient.abs().sum() > 0


def published_names() -> dict[str, set[str]]:
    ends = [f"conv{i}.{kind}" for i in range(1, 6) for kind in ("weight", "bias")]
    nrp = {f"RRDB_trunk.{block}.RDB{dense}.{end}" for block in range(23) for dense in (1, 2, 3) for end in ends}
    resg = {f"recon_trunk.{block}.{end}" for block in range(23) for end in ends[:4]}
    first = {"conv_first.weight", "conv_first.bias"}
    return {
        "nrp": nrp | first | {"trunk_conv.weight", "trunk_conv.bias"},
        "nrp_resg": resg | first | {"conv_last.weight", "conv_last.bias"},
    }


@pytest.mark.parametrize(("name", "keys", "numbers"), [("nrp", 694, 16_550_275), ("nrp_resg", 96, 1_702_211)])
def test_the_published_networks_have_their_names_and_parameter_counts(name: str, keys: int, numbers: int) -> None:
    with torch.device("meta"):
        state = build(name).state_dict()
    assert set(state) == published_names()[name]
    assert len(state) == keys
    assert sum(tensor.numel() for tensor in state.values()) == numbers


@pytest.mark.parametrize(
    ("name", "key", "shape"),
    [
        ("nrp", "conv_first.weight", (64, 3, 3, 3)),
        ("nrp", "RRDB_trunk.22.RDB3.conv1.weight", (32, 64, 3, 3)),
        ("nrp", "RRDB_trunk.0.RDB1.conv5.weight", (64, 192, 3, 3)),
        ("nrp", "trunk_conv.bias", (3,)),
        ("nrp_resg", "recon_trunk.22.conv2.weight", (64, 64, 3, 3)),
        ("nrp_resg", "conv_last.weight", (3, 64, 3, 3)),
    ],
)
def test_the_published_networks_have_their_shapes(name: str, key: str, shape: tuple[int, ...]) -> None:
    with torch.device("meta"):
        assert build(name).state_dict()[key].shape == shape


def test_the_feature_network_has_the_names_and_shapes_of_vgg16_up_to_conv3_3() -> None:
    channels = {0: (64, 3), 2: (64, 64), 5: (128, 64), 7: (128, 128), 10: (256, 128), 12: (256, 256), 14: (256, 256)}
    with torch.device("meta"):
        state = build("vgg16_conv3_3").state_dict()
    trunk = {key: tuple(tensor.shape) for key, tensor in state.items() if key.startswith("features.")}
    weights = {f"features.{index}.weight": (*pair, 3, 3) for index, pair in channels.items()}
    biases = {f"features.{index}.bias": pair[:1] for index, pair in channels.items()}
    assert trunk == weights | biases


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("no_such", {}, "nrp_lite"),
        ("nrp", {"depth": 3}, "depth"),
        ("nrp", {"features": -1}, "nrp"),
        ("nrp_lite", {"widths": [8, 8], "encoder": [1], "decoder": []}, "widths"),
        ("resnet_small", {}, "classes"),
        ("torchvision_classifier", {"classes": 3, "model": "no_such"}, "no_such"),
        ("torchvision_classifier", {"classes": 3, "model": "inception_v3"}, "inception_v3"),
    ],
)
def test_a_wrong_name_or_argument_is_refused_in_one_line(name: str, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(UnknownArchitectureError, match=said) as refused:
        build(name, arguments)
    assert "\n" not in str(refused.value)


def test_normalisation_is_no_part_of_the_weights() -> None:
    assert not any("normalise" in key for key in build("resnet_small", TINY["resnet_small"]).state_dict())
