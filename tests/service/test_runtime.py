"""What runs a purifier."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from model_store.architectures import build
from model_store.card import Card
from model_store.errors import IncompatibleWeightsError
from model_store.inference import InferenceMode
from model_store.ncnn_purifier import NcnnPurifier
from model_store.store import LoadedModel, ModelStore
from service.engine import Engine
from service.job import Answer, Job
from service.lanes import Crowd
from service.runtime import in_runtime
from service.settings import RuntimeName

CPU = torch.device("cpu")
CROWD = Crowd(lanes=1, threads=1)


def loaded(module: nn.Module | None = None) -> LoadedModel:
    """A small purifier that ncnn can run."""
    arguments: dict[str, Any] = {"blocks": 1, "features": 8}
    card = Card(name="small", summary="", task="purifier", architecture="nrp_resg", arguments=arguments)
    return LoadedModel(card, (module or build("nrp_resg", arguments)).eval())


@pytest.mark.parametrize(
    ("name", "precision", "by_ncnn"),
    [
        ("auto", torch.float32, True),
        ("auto", torch.bfloat16, False),
        ("torch", torch.float32, False),
        ("ncnn", torch.float32, True),
    ],
)
def test_ncnn_runs_float32_on_a_cpu(name: RuntimeName, precision: torch.dtype, by_ncnn: bool) -> None:
    assert isinstance(in_runtime(loaded(), name, CPU, precision, CROWD), NcnnPurifier) is by_ncnn


def test_what_ncnn_has_no_way_to_run_is_pytorchs_with_auto() -> None:
    assert isinstance(in_runtime(loaded(nn.Identity()), "auto", CPU, torch.float32, CROWD), nn.Identity)


def test_what_ncnn_cannot_run_is_an_error_where_it_was_asked_for() -> None:
    with pytest.raises(IncompatibleWeightsError, match="NRP_RUNTIME=torch"):
        in_runtime(loaded(nn.Identity()), "ncnn", CPU, torch.float32, CROWD)
    with pytest.raises(IncompatibleWeightsError, match="NRP_RUNTIME=auto"):
        in_runtime(loaded(), "ncnn", CPU, torch.bfloat16, CROWD)


def test_weights_that_ncnn_gets_wrong_are_pytorchs_with_auto() -> None:
    model = loaded()
    with torch.no_grad():
        next(model.module.parameters()).fill_(1e30)
    assert not isinstance(in_runtime(model, "auto", CPU, torch.float32, CROWD), NcnnPurifier)
    with pytest.raises(IncompatibleWeightsError, match="from PyTorch's"):
        in_runtime(model, "ncnn", CPU, torch.float32, CROWD)


def test_an_engine_answers_the_same_in_either_runtime(settings_for: Any, tmp_path: Path) -> None:
    model = loaded()
    ModelStore(tmp_path).publish(model.card, model.module)
    pixels = torch.randint(0, 256, (3, 18, 22), dtype=torch.uint8)
    jobs = [Job(pixels, "small", InferenceMode(noise_std=0.1, draws=3), seed) for seed in (1, 2)]
    answers = []
    for name in ("torch", "ncnn"):
        engine = Engine(settings_for(model_store=tmp_path, purifier="small", runtime=name), tasks=())
        answers.append([outcome for outcome in engine.run(jobs) if isinstance(outcome, Answer)])
    for by_torch, by_ncnn in zip(*answers, strict=True):
        assert int((by_torch.purified.int() - by_ncnn.purified.int()).abs().max()) <= 1
    assert [len(each) for each in answers] == [2, 2]
