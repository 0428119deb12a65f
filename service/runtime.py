"""What runs a purifier: PyTorch, or ncnn where that is the faster of the two, which is on a CPU in float32."""

from __future__ import annotations

import structlog
import torch
from torch import nn

from model_store.devices import place
from model_store.errors import IncompatibleWeightsError
from model_store.ncnn_purifier import NcnnPurifier, can_run
from model_store.store import LoadedModel
from service.lanes import Crowd
from service.priority import step_back
from service.settings import RuntimeName

log = structlog.get_logger()


def in_runtime(
    loaded: LoadedModel, name: RuntimeName, device: torch.device, precision: torch.dtype, crowd: Crowd
) -> nn.Module:
    """A purifier ready to be run on ``device``; ``auto`` takes ncnn where it can run it and gives the same answers.

    Raises IncompatibleWeightsError where ncnn was asked for by name and cannot.
    """
    fits = device.type == "cpu" and precision is torch.float32
    if name == "ncnn" and not fits:
        raise IncompatibleWeightsError("ncnn runs on a CPU in float32 only; use NRP_RUNTIME=auto, or NRP_DEVICE=cpu")
    if name == "ncnn" or (name == "auto" and fits and can_run(loaded.module)):
        try:
            return NcnnPurifier(loaded.module, crowd.threads, step_back, crowd.alone)
        except IncompatibleWeightsError as error:
            if name == "ncnn":
                raise
            log.warning("ncnn_refused", model=loaded.card.name, reason=str(error))
    return place(loaded.module, device)
