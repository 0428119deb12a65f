"""The validation of a run, as a picture: how the judge's agreement, and the pixels, went with the steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from training.errors import RunError
from training.loop import CHECKPOINT

SHARES = (("agrees_clean", "photos"), ("agrees_adversary", "adversaries at 8/255"))
RATIOS = (("psnr_clean", "photos"), ("psnr_adversary", "adversaries at 8/255"))


def read_history(run: Path) -> Sequence[Mapping[str, float]]:
    """Every validation of the run in folder ``run``, in order. Raises RunError where there is none."""
    try:
        saved: dict[str, Any] = torch.load(run / CHECKPOINT, weights_only=True, map_location="cpu")
        history: Sequence[Mapping[str, float]] = saved["state"]["validation"]["history"]
    except FileNotFoundError as error:
        raise RunError(f"{run} holds no {CHECKPOINT}; name the folder of a run") from error
    except Exception as error:  # of another format, or of a training that is not validated
        raise RunError(f"{run / CHECKPOINT} holds no validation ({type(error).__name__})") from error
    if not history:
        raise RunError(f"{run} was not validated yet; train on to the next multiple of validate_every")
    return history


def plot_history(history: Sequence[Mapping[str, float]], path: Path) -> None:
    """Draw agreement in % and PSNR in dB against the step, to the PNG ``path``. Raises RunError without matplotlib."""
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - wanted by few
    except ImportError as error:
        raise RunError("matplotlib is not installed; run: pip install -e '.[evaluate]'") from error
    figure = Figure(figsize=(12, 4.5), dpi=100, layout="constrained")
    steps = [past["step"] for past in history]
    for axis, names, label, factor in zip(
        figure.subplots(1, 2),
        (SHARES, RATIOS),
        ("the judge answers as on the photo, in %", "PSNR in dB"),
        (100, 1),
        strict=True,
    ):
        for (name, words), (colour, marker) in zip(names, (("#0072B2", "o"), ("#D55E00", "s")), strict=True):
            axis.plot(steps, [factor * past[name] for past in history], color=colour, marker=marker, label=words)
        axis.set_xlabel("steps")
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
        axis.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})
