"""Folding of batch norms: what is folded answers as before, and what cannot be proven is left alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from threading import Lock
from typing import Any, cast

import pytest
import timm
import torch
from timm.layers import StdConv2d
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, spectral_norm
from torchvision.models import get_model

from model_store.architectures import build
from model_store.folding import fold_batch_norms

IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def lively(module: nn.Module) -> nn.Module:
    """Norms as after a training, frozen: with those of a fresh network every mistake would go unseen."""
    generator = torch.Generator().manual_seed(1)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            shape = part.num_features
            assert part.running_mean is not None
            assert part.running_var is not None
            part.running_mean.copy_(0.2 * torch.randn(shape, generator=generator))
            part.running_var.copy_(0.5 + torch.rand(shape, generator=generator))
            part.weight.data.copy_(0.5 + torch.rand(shape, generator=generator))
            part.bias.data.copy_(0.2 * torch.randn(shape, generator=generator))
    return module.eval().requires_grad_(False)


def norms(module: nn.Module) -> int:
    return sum(isinstance(part, nn.BatchNorm2d) for part in module.modules())


def check_same(module: nn.Module, folded: nn.Module, images: Tensor = IMAGES) -> None:
    with torch.inference_mode():
        torch.testing.assert_close(folded(images), module(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "make",
    [
        lambda: build("timm_classifier", {"classes": 10, "model": "tf_efficientnet_lite0"}),
        lambda: build("torchvision_classifier", {"classes": 10, "model": "resnet18"}),
        lambda: build("torchvision_classifier", {"classes": 10, "model": "mobilenet_v3_small"}),
        lambda: build("resnet_small", {"classes": 3, "widths": (8, 16), "blocks": 2}),
        lambda: build("vgg_small", {"classes": 3}),
    ],
    ids=["lite0", "resnet18", "mobilenet", "our resnet", "our vgg"],
)
def test_networks_answer_as_before_without_a_norm_left(make: Any) -> None:
    torch.manual_seed(0)
    module = lively(make())
    folded = fold_batch_norms(module)
    assert norms(folded) == 0 < norms(module)
    assert type(folded) is type(module)
    assert not folded.training
    assert not any(parameter.requires_grad for parameter in folded.parameters())
    check_same(module, folded)


def test_gradients_with_respect_to_the_image_are_the_same() -> None:
    module = lively(timm.create_model("test_efficientnet", num_classes=5))
    slopes = []
    for network in (module, fold_batch_norms(module)):
        images = IMAGES.clone().requires_grad_(True)
        slopes += torch.autograd.grad(network(images)[:, 2].sum(), images)
    torch.testing.assert_close(slopes[1], slopes[0], rtol=1e-3, atol=1e-5)


def test_layers_keep_their_names_and_what_they_give() -> None:
    module = lively(timm.create_model("tf_efficientnet_lite0", num_classes=5))
    folded = fold_batch_norms(module)
    names = dict(module.named_modules())
    assert set(dict(folded.named_modules())) == set(names)
    watched = ["bn1", "bn1.act", "blocks.0.0", "blocks.2", "blocks.2.1.bn2", "blocks.6.0", "conv_head", "global_pool"]
    heard: dict[nn.Module, dict[str, Tensor]] = {module: {}, folded: {}}
    for network, outputs in heard.items():
        for name in watched:

            def hear(_: nn.Module, __: Any, output: Tensor, name: str = name, outputs: Any = outputs) -> None:
                outputs[name] = output.clone()

            network.get_submodule(name).register_forward_hook(hear)
        with torch.inference_mode():
            network(IMAGES)
    for name in watched:
        same = torch.allclose(heard[folded][name], heard[module][name], rtol=1e-4, atol=1e-4)
        assert same is (name != "conv_head"), name  # a convolution now gives what its norm gave


def test_what_is_kept_gives_what_it_gave() -> None:
    inner = nn.Sequential(nn.Conv2d(3, 4, 3))
    module = lively(nn.Sequential(inner, nn.BatchNorm2d(4), nn.Conv2d(4, 5, 1), nn.BatchNorm2d(5)))
    for keep, left in ((), 0), (("0",), 1), (("0.0",), 1), (("1",), 0), (("2", "0"), 2):
        folded = fold_batch_norms(module, keep)
        assert norms(folded) == left, keep
        check_same(module, folded)


def test_the_network_that_is_given_stays_as_it_was() -> None:
    module = lively(get_model("resnet18", weights=None, num_classes=4))
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    folded = fold_batch_norms(module)
    assert folded is not module
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert norms(module) == 20
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval()
    assert fold_batch_norms(plain) is plain


class Odd(nn.Module):
    """A convolution and a norm, put together by ``way``."""

    def __init__(self, way: Callable[[Any, Tensor], Tensor], conv: nn.Module | None = None) -> None:
        super().__init__()
        self.conv, self.norm = conv or nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.way = way

    def forward(self, images: Tensor) -> Tensor:
        return self.way(self, images)


def usual(net: Any, images: Tensor) -> Tensor:
    return cast(Tensor, net.norm(net.conv(images)))


def branching(net: Any, images: Tensor) -> Tensor:
    return cast(Tensor, net.conv(images)) if images.mean() > 0.9 else usual(net, images)


def aliased() -> nn.Module:
    net = Odd(lambda net, x: net.both(x))
    net.both = nn.Sequential(net.conv, net.norm)
    return net


def overheard() -> nn.Module:
    net = Odd(usual)
    net.norm.register_forward_hook(lambda _, __, output: 2 * output)
    return net


NO_PAIRS: Mapping[str, Callable[[], nn.Module]] = {
    "another reader": lambda: Odd(lambda net, x: net.norm(y := net.conv(x)) + y),
    "something between": lambda: Odd(lambda net, x: net.norm(net.conv(x).relu())),
    "the convolution runs twice": lambda: Odd(lambda net, x: net.norm(net.conv(net.conv(x)))),
    "the norm runs twice": lambda: Odd(lambda net, x: net.norm(net.norm(net.conv(x)))),
    "weights read": lambda: Odd(lambda net, x: usual(net, x) + F.conv2d(x, net.conv.weight, padding=1)),
    "weights computed with": lambda: Odd(lambda net, x: usual(net, x) * (net.conv.weight * 2).sum()),
    "a branch": lambda: Odd(branching),
    "another name": aliased,
    "a hook": overheard,
    "standardised weights": lambda: Odd(usual, StdConv2d(3, 3, 3, padding=1)),
    "hooked weights": lambda: Odd(usual, spectral_norm(nn.Conv2d(3, 3, 3, padding=1))),
    "parametrised weights": lambda: Odd(usual, parametrizations.weight_norm(nn.Conv2d(3, 3, 3, padding=1))),
}


@pytest.mark.parametrize("reason", NO_PAIRS)
def test_what_is_no_pair_is_not_folded(reason: str) -> None:
    module = lively(NO_PAIRS[reason]())
    folded = fold_batch_norms(module)
    assert norms(folded) == norms(module)
    check_same(module, folded)


def test_what_cannot_be_copied_is_not_folded() -> None:
    module = lively(Odd(usual))
    module.lock = Lock()  # such as a program's session
    assert fold_batch_norms(module) is module


def test_that_odd_network_is_folded_without_a_reason() -> None:
    assert norms(fold_batch_norms(lively(Odd(usual)))) == 0


def test_weights_that_another_convolution_shares_stay_its_own() -> None:
    module = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1))
    cast(nn.Conv2d, module[2]).weight = cast(nn.Conv2d, module[0]).weight
    check_same(lively(module), fold_batch_norms(module))


@pytest.mark.parametrize("how", ["training", "without statistics"])
def test_norms_that_use_the_batch_are_not_folded(how: str) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=how == "training"))
    module.train(how == "training")
    assert fold_batch_norms(module) is module
