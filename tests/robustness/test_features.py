from __future__ import annotations

import threading

import pytest
import torch
from torch import Tensor, nn

from model_store.architectures import build
from robustness.errors import VictimError
from robustness.features import FeatureTap, activations, layers_of


class Late(nn.Module):
    """Counts its calls, and may wait for others in the middle of a pass."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.barrier: threading.Barrier | None = None

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        if self.barrier is not None:
            self.barrier.wait(timeout=20)
        return images


class Net(nn.Module):
    """conv, ReLU in place twice, a pair of outputs, a layer that never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.late = Late()
        self.down = nn.Conv2d(4, 2, 1)
        self.pair = nn.MaxPool2d(2, return_indices=True)
        self.spare = nn.Linear(1, 1)

    def forward(self, images: Tensor) -> Tensor:
        values = self.relu(self.down(self.late(self.relu(self.conv(images)))))
        pooled: Tensor = self.pair(values)[0]
        return pooled.flatten(1)


@pytest.fixture
def net() -> Net:
    return Net().eval()


@pytest.fixture
def images() -> Tensor:
    return torch.rand(2, 3, 6, 6)


def hooks_of(module: nn.Module) -> int:
    return sum(len(part._forward_hooks) for part in module.modules())


def test_layers_have_the_names_of_the_submodules(net: Net) -> None:
    assert layers_of(net) == ("conv", "relu", "late", "down", "pair", "spare")
    assert layers_of(nn.Sequential(nn.Sequential(nn.ReLU()))) == ("0", "0.0")


def test_a_tap_gives_the_layers_own_output(net: Net, images: Tensor) -> None:
    assert torch.equal(FeatureTap(net, "conv")(images), net.conv(images))
    assert torch.equal(FeatureTap(net, "down")(images), net.down(net.conv(images).relu()))


def test_a_layer_that_runs_twice_gives_its_first_output(net: Net, images: Tensor) -> None:
    assert torch.equal(FeatureTap(net, "relu")(images), net.conv(images).relu())


def test_what_comes_after_the_layer_is_not_run(net: Net, images: Tensor) -> None:
    FeatureTap(net, "relu")(images)
    assert net.late.calls == 0


def test_the_gradient_is_that_of_the_part_before(net: Net, images: Tensor) -> None:
    leaf = images.requires_grad_(True)
    (found,) = torch.autograd.grad(FeatureTap(net, "down")(leaf).square().sum(), leaf)
    (expected,) = torch.autograd.grad(net.down(net.conv(leaf).relu()).square().sum(), leaf)
    assert found.any()
    assert torch.equal(found, expected)


def test_activations_come_in_the_order_asked_for_and_unspoilt(net: Net, images: Tensor) -> None:
    down, conv, again = activations(net, ["down", "conv", "down"])(images)
    assert torch.equal(conv, net.conv(images))
    assert (conv < 0).any()
    assert torch.equal(down, net.down(net.conv(images).relu()))
    assert torch.equal(again, down)


def test_activations_are_differentiable(net: Net, images: Tensor) -> None:
    leaf = images.requires_grad_(True)
    total = torch.stack([part.square().sum() for part in activations(net, ["conv", "down"])(leaf)]).sum()
    assert torch.autograd.grad(total, leaf)[0].any()


@pytest.mark.parametrize("layer", ["conv5", "", "conv.weight"])
def test_an_unknown_layer_is_refused_with_the_known_ones(net: Net, layer: str) -> None:
    with pytest.raises(VictimError, match="conv, relu, late, down, pair, spare"):
        FeatureTap(net, layer)
    with pytest.raises(VictimError, match="conv, relu, late, down, pair, spare"):
        activations(net, ["conv", layer])


def test_no_layer_at_all_is_refused(net: Net) -> None:
    with pytest.raises(VictimError, match="at least one layer"):
        activations(net, [])


@pytest.mark.parametrize(("layer", "text"), [("spare", "no part in the forward pass"), ("pair", "gives no tensor")])
def test_a_layer_without_features_is_refused(net: Net, images: Tensor, layer: str, text: str) -> None:
    with pytest.raises(VictimError, match=text):
        FeatureTap(net, layer)(images)
    assert hooks_of(net) == 0


def test_hooks_do_not_outlast_the_call(net: Net, images: Tensor) -> None:
    activations(net, ["conv", "down"])(images)
    with pytest.raises(RuntimeError, match="channels"):
        FeatureTap(net, "down")(images[:, :2])
    assert hooks_of(net) == 0
    assert net(images).shape == (2, 18)


def test_two_threads_may_tap_one_network_at_once(net: Net, images: Tensor) -> None:
    net.late.barrier = threading.Barrier(2)
    found: dict[int, Tensor] = {}

    def work(place: int) -> None:
        found[place] = FeatureTap(net, "down")(images + place)

    threads = [threading.Thread(target=work, args=(place,)) for place in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    for place in range(2):
        assert torch.equal(found[place], net.down(net.conv(images + place).relu()))


def test_a_tap_of_the_stores_network_is_its_own_extract(images: Tensor) -> None:
    network = build("vgg16_conv3_3", {"classes": 3, "width": 0.1}).eval()
    assert torch.equal(FeatureTap(network, "features")(images), network.extract(images))  # type: ignore[operator]
