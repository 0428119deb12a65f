"""The JSON that the service answers with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from pydantic import BaseModel, Field
from torch import Tensor

from model_store.card import Card
from service.activation import Change
from service.options import NamedMode
from service.suspicion import Suspicion


class ModeReport(BaseModel):
    """The inference mode an image was purified in."""

    name: str
    noise_std: float = Field(description="standard deviation of the noise, image values being in [0, 1]")
    draws: int = Field(description="noisy copies that were purified and averaged")
    ball: float | None = Field(description="bound on the noise in levels of 255, or null")
    jpeg: int | None = Field(description="quality of the JPEG that goes before the noise, or null")

    @classmethod
    def of(cls, named: NamedMode) -> Self:
        return cls(name=named.name, **named.mode.model_dump())


class SuspicionReport(BaseModel):
    """How far purifying moved the image and the answer. Uncalibrated: no probability of an attack."""

    score: float = Field(description="the residual_rms, as in X-NRP-Suspicion")
    calibrated: bool = Field(default=False, description="always false for now")
    linf: int = Field(description="greatest change of a channel value, in levels of 255")
    residual_rms: float = Field(description="root mean square change, in levels of 255")
    prediction_shift: float | None = Field(
        description="Jensen-Shannon divergence in bits, 0 to 1, of the probabilities before and after; null where "
        "nothing was classified"
    )

    @classmethod
    def of(cls, suspicion: Suspicion) -> Self:
        return cls(
            score=suspicion.score,
            linf=suspicion.linf,
            residual_rms=suspicion.residual_rms,
            prediction_shift=suspicion.prediction_shift,
        )


class PurifiedImage(BaseModel):
    """An image file inside JSON."""

    media_type: str
    width: int
    height: int
    base64: str


class PurifyAnswer(BaseModel):
    """``POST /purify`` with ``Accept: application/json``."""

    request_id: str
    purifier: str
    mode: ModeReport
    image: PurifiedImage
    suspicion: SuspicionReport
    timings_ms: dict[str, float]


class Prediction(BaseModel):
    """One label."""

    label: str
    index: int
    probability: float


class ClassifyAnswer(BaseModel):
    """``POST /classify-robust``."""

    request_id: str
    model: str
    purifier: str
    mode: ModeReport
    predictions: list[Prediction] = Field(description="of the purified image, best first")
    undefended: list[Prediction] | None = Field(description="of the image as it came; null unless compare=true")
    suspicion: SuspicionReport
    timings_ms: dict[str, float]


class ServedModel(BaseModel):
    """A card, and whether its model is in memory."""

    loaded: bool
    card: Card


class ServedModels(BaseModel):
    """``GET /models``."""

    purifier: str = Field(description="the default purifier")
    classifier: str = Field(description="the downstream classifier")
    labels: int = Field(description="how many labels the classifier knows")
    models: list[ServedModel]


class ModelVersion(BaseModel):
    """A model and its weights."""

    name: str
    sha256: str


class ActivateAnswer(BaseModel):
    """``POST /models/{name}/activate``."""

    purifier: ModelVersion = Field(description="the default purifier now")
    before: ModelVersion = Field(description="the default purifier until now")

    @classmethod
    def of(cls, change: Change) -> Self:
        now, before = change.now, change.before
        return cls(
            purifier=ModelVersion(name=now.name, sha256=now.sha256),
            before=ModelVersion(name=before.name, sha256=before.sha256),
        )


class Health(BaseModel):
    """``GET /health/...``."""

    status: str


def best(probabilities: Tensor, labels: Sequence[str], count: int) -> list[Prediction]:
    """The ``count`` likeliest of ``labels``, probabilities (classes,), best first."""
    values, indices = probabilities.topk(min(count, len(labels)))
    return [
        Prediction(label=labels[index], index=index, probability=value)
        for value, index in zip(values.tolist(), indices.tolist(), strict=True)
    ]
