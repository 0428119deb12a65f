"""The JSON that the service answers with."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Self

from pydantic import BaseModel, Field
from torch import Tensor

from model_store.card import Card
from service.activation import Change
from service.findings import Detections
from service.masks import MaskFile
from service.options import NamedMode
from service.pipeline import DecidedOn
from service.remote.report import RemoteReport
from service.suspicion import Suspicion

LISTED_LABELS = 100  # of one model in the list of all


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
    """How far purifying moved the image and the answer. Calibrated or not: no probability of an attack."""

    score: float = Field(
        description="as in X-NRP-Suspicion. Calibrated: the sum over the signals of -log10 of the share of clean "
        "images that reach them; else the residual_rms"
    )
    calibrated: bool = Field(
        description="whether the purifier's card holds what clean images score in this mode, with this classifier"
    )
    threshold: float | None = Field(
        description="the score from which an image is suspicious: the operator's, else the calibration's, else null"
    )
    suspicious: bool | None = Field(description="whether the score reaches the threshold; null where there is none")
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
            calibrated=suspicion.calibrated,
            threshold=suspicion.threshold,
            suspicious=suspicion.suspicious,
            linf=suspicion.linf,
            residual_rms=suspicion.residual_rms,
            prediction_shift=suspicion.prediction_shift,
        )


class EncodedImage(BaseModel):
    """An image file inside JSON."""

    media_type: str
    width: int
    height: int
    base64: str

    @classmethod
    def of(cls, file: bytes, media_type: str, width: int, height: int) -> Self:
        text = base64.b64encode(file).decode()
        return cls(media_type=media_type, width=width, height=height, base64=text)


class PurifyAnswer(BaseModel):
    """``POST /purify`` with ``Accept: application/json``."""

    request_id: str
    purifier: str
    mode: ModeReport
    image: EncodedImage
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
    decided_on: DecidedOn = Field(
        description="the image that predictions are of; original under policy=suspicious alone"
    )
    predictions: list[Prediction] = Field(description="of the image decided on, best first")
    undefended: list[Prediction] | None = Field(description="of the image as it came; null unless compare=true")
    suspicion: SuspicionReport
    timings_ms: dict[str, float]


class Box(BaseModel):
    """Corners in pixels of the upright image, as fractions of a pixel; x grows to the right, y down."""

    x0: float
    y0: float
    x1: float
    y1: float


class DetectedObject(BaseModel):
    """One object."""

    label: str
    index: int
    score: float
    box: Box


class DetectAnswer(BaseModel):
    """``POST /detect-robust``."""

    request_id: str
    model: str
    purifier: str
    mode: ModeReport
    width: int = Field(description="of the image turned upright, which the boxes are in")
    height: int
    objects: list[DetectedObject] = Field(description="in the mean purified image, best first")
    undefended: list[DetectedObject] | None = Field(description="in the image as it came; null unless compare=true")
    suspicion: SuspicionReport
    timings_ms: dict[str, float]


class ClassShare(BaseModel):
    """One class in a mask."""

    label: str
    index: int = Field(description="the value of its pixels in the mask")
    share: float = Field(description="of all pixels, 0 to 1")


class Segmentation(BaseModel):
    """A mask, and the classes that it shows."""

    classes: list[ClassShare] = Field(description="largest first, none that has no pixel")
    mask: EncodedImage


class SegmentAnswer(BaseModel):
    """``POST /segment-robust`` with ``Accept: application/json``."""

    request_id: str
    model: str
    purifier: str
    mode: ModeReport
    defended: Segmentation = Field(description="of the purified draws, their probabilities averaged pixel by pixel")
    undefended: Segmentation | None = Field(description="of the image as it came; null unless compare=true")
    suspicion: SuspicionReport
    timings_ms: dict[str, float]


class ServedModel(BaseModel):
    """A card, and whether its model is in memory."""

    loaded: bool
    labels: int = Field(description="how many labels the card names")
    card: Card

    @classmethod
    def of(cls, card: Card, *, loaded: bool) -> Self:
        """With all that the card says."""
        return cls(loaded=loaded, labels=len(card.labels), card=card)

    @classmethod
    def in_brief(cls, card: Card, *, loaded: bool) -> Self:
        """As one of a list: of more than ``LISTED_LABELS`` labels, and as many class folders, only the number."""
        whole = cls.of(card, loaded=loaded)
        if whole.labels <= LISTED_LABELS:
            return whole
        recipe = {key: value for key, value in card.recipe.items() if key != "folders"}
        return whole.model_copy(update={"card": card.model_copy(update={"labels": (), "recipe": recipe})})


class ServedModels(BaseModel):
    """``GET /models``."""

    purifier: str = Field(description="the default purifier")
    classifier: str | None = Field(description="the downstream classifier; null where there is none")
    labels: int = Field(description="how many labels the classifier knows")
    segmenter: str | None = Field(description="the downstream segmenter; null where there is none")
    detector: str | None = Field(description="the downstream detector; null where there is none")
    remotes: list[RemoteReport] = Field(description="those of the three that run elsewhere")
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


def detected(detections: Detections, labels: Sequence[str], threshold: float) -> list[DetectedObject]:
    """The objects of a score of ``threshold`` or more, best first."""
    rows = zip(detections.boxes.tolist(), detections.scores.tolist(), detections.labels.tolist(), strict=True)
    return [
        DetectedObject(
            label=labels[index], index=index, score=score, box=Box(x0=box[0], y0=box[1], x1=box[2], y1=box[3])
        )
        for box, score, index in rows
        if score >= threshold
    ]


def segmented(mask: MaskFile, labels: Sequence[str], width: int, height: int) -> Segmentation:
    """A mask inside JSON, with the shares of its classes."""
    return Segmentation(classes=class_shares(mask, labels), mask=EncodedImage.of(mask.file, "image/png", width, height))


def class_shares(mask: MaskFile, labels: Sequence[str]) -> list[ClassShare]:
    """The classes in a mask, largest first."""
    shares = sorted(enumerate(mask.shares), key=lambda entry: -entry[1])
    return [ClassShare(label=labels[index], index=index, share=share) for index, share in shares if share > 0]


def best(probabilities: Tensor, labels: Sequence[str], count: int) -> list[Prediction]:
    """The ``count`` likeliest of ``labels``, probabilities (classes,), best first."""
    values, indices = probabilities.topk(min(count, len(probabilities)))
    return [
        Prediction(label=labels[index], index=index, probability=value)
        for value, index in zip(values.tolist(), indices.tolist(), strict=True)
    ]
