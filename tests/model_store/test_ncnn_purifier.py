"""Purifiers run by ncnn against the same modules in PyTorch."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from torch import nn

from model_store import ncnn_purifier
from model_store.architectures import build
from model_store.errors import IncompatibleWeightsError
from model_store.ncnn_graph import Graph
from model_store.ncnn_purifier import NcnnPurifier, can_run
from model_store.store import SHIPPED, ModelStore

SMALL: Mapping[str, dict[str, Any]] = {
    "nrp": {"blocks": 2, "features": 16, "growth": 8},
    "nrp_resg": {"blocks": 2, "features": 16},
    "nrp_lite": {"widths": [12, 20], "encoder": [1, 1], "decoder": [1], "unshuffle": 2},
}


@pytest.fixture(autouse=True, params=[1, 2], ids=["1 thread", "2 threads"])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """What PyTorch has for the caller, which decides the way that images take."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture(params=sorted(SMALL))
def module(request: pytest.FixtureRequest) -> nn.Module:
    """A small network of each kind whose every parameter matters."""
    torch.manual_seed(3)
    built = build(request.param, SMALL[request.param]).eval()
    for parameter in built.parameters():
        nn.init.normal_(parameter, std=0.1)
    return built


@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (1, 3, 7, 5), (2, 3, 33, 18), (3, 3, 24, 40), (5, 3, 16, 16)])
@torch.inference_mode()
def test_answers_are_those_of_pytorch(module: nn.Module, shape: tuple[int, ...]) -> None:
    images = torch.rand(shape)
    answers = NcnnPurifier(module, threads=2)(images)
    assert answers.shape == images.shape
    torch.testing.assert_close(answers, module(images), atol=2e-5, rtol=0)


@torch.inference_mode()
def test_an_image_has_the_same_answer_in_any_company(module: nn.Module) -> None:
    purifier = NcnnPurifier(module, threads=2)
    images = torch.rand(4, 3, 20, 20)
    together = purifier(images)
    assert torch.equal(together[2:4], purifier(images[2:4]))
    torch.testing.assert_close(together[:1], purifier(images[:1]), atol=1e-6, rtol=0)


@torch.inference_mode()
def test_in_company_the_caller_runs_its_images_itself(module: nn.Module) -> None:
    begun: list[str] = []
    images = torch.rand(3, 3, 16, 16)
    purifier = NcnnPurifier(module, 2, lambda: begun.append("a thread"), lambda: False)
    torch.testing.assert_close(purifier(images), module(images), atol=2e-5, rtol=0)
    assert begun == []


@torch.inference_mode()
def test_large_images_take_the_way_without_kept_memory(module: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ncnn_purifier, "KEPT_PIXELS", 64)
    images = torch.rand(1, 3, 40, 40)
    torch.testing.assert_close(NcnnPurifier(module, threads=1)(images), module(images), atol=2e-5, rtol=0)


@torch.inference_mode()
def test_channels_last_images_are_taken_too(module: nn.Module) -> None:
    images = torch.rand(2, 3, 12, 20)
    purifier = NcnnPurifier(module, threads=1)
    assert torch.equal(purifier(images.contiguous(memory_format=torch.channels_last)), purifier(images))


def test_reach_and_multiple_are_the_modules_own(module: nn.Module) -> None:
    purifier = NcnnPurifier(module, threads=1)
    assert purifier.reach == module.reach
    assert purifier.multiple == getattr(module, "multiple", 1)


def test_threads_begin_with_what_they_are_told(module: nn.Module) -> None:
    begun: list[str] = []
    purifier = NcnnPurifier(module, 2, lambda: begun.append(threading.current_thread().name))
    purifier(torch.rand(4, 3, 16, 16))
    assert begun
    assert all(name.startswith("ncnn") for name in begun)


def test_a_module_of_another_kind_is_refused() -> None:
    assert not can_run(nn.Identity())
    with pytest.raises(IncompatibleWeightsError, match="cannot run a Identity; use NRP_RUNTIME=torch"):
        NcnnPurifier(nn.Identity(), 1)


def test_a_changed_block_is_refused() -> None:
    module = build("nrp_resg", SMALL["nrp_resg"])
    module.recon_trunk[1] = nn.Identity()
    with pytest.raises(IncompatibleWeightsError, match="cannot run a Identity"):
        NcnnPurifier(module, 1)


@pytest.mark.parametrize("value", [float("nan"), 1e20])
def test_weights_with_which_the_answers_differ_are_refused(module: nn.Module, value: float) -> None:
    with torch.no_grad():
        next(module.parameters())[0] = value
    with pytest.raises(IncompatibleWeightsError, match="from PyTorch's"):
        NcnnPurifier(module, 1)


def test_ncnn_out_of_memory_is_told_as_such(module: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    purifier = NcnnPurifier(module, 1)

    full = Mock()
    full.create_extractor.return_value.extract.return_value = (ncnn_purifier.NO_MEMORY, None)
    monkeypatch.setattr(purifier._nets[1], "_net", full)
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        purifier(torch.rand(1, 3, 8, 8))


def test_a_blob_that_several_layers_read_is_split() -> None:
    graph = Graph()
    first = graph.convolution("input", nn.Conv2d(3, 3, 3, padding=1))
    graph.sum(first, graph.convolution(first, nn.Conv2d(3, 3, 3, padding=1)))
    lines = graph.text().splitlines()
    assert lines[1] == "5 6"
    assert [line.split()[0] for line in lines[2:]] == ["Input", "Convolution", "Split", "Convolution", "BinaryOp"]


@pytest.mark.parametrize("name", [card.name for card in ModelStore(SHIPPED).cards() if card.task == "purifier"])
@torch.inference_mode()
def test_shipped_weights_give_the_same_levels(name: str) -> None:
    module = ModelStore(SHIPPED).load(name).module.eval()
    images = torch.rand(2, 3, 64, 48, generator=torch.Generator().manual_seed(1))
    off = (NcnnPurifier(module, 2)(images) - module(images)).abs().max()
    assert float(off) < 0.01 / 255
