"""The JSON of certificates."""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, Field

from service.certification import Certification
from service.certify_order import CertifyOrder


class Certified(BaseModel):
    """A label that holds in a ball around the upload, or an abstention."""

    model: str
    purifier: str
    abstained: bool = Field(description="whether the copies' answers are too divided for a certificate")
    label: str | None = Field(description="null where abstained")
    index: int | None = Field(description="null where abstained")
    radius: float = Field(
        description="in the L2 norm over all pixels and channels of the upload at its full size, values in [0, 1]: no "
        "change below it turns the label; 0 where abstained"
    )
    sigma: float = Field(description="standard deviation of the noise, which is never clipped")
    n0: int = Field(description="noisy copies that chose the label")
    n: int = Field(description="noisy copies that bounded its share")
    count: int = Field(description="how many of the n copies got the label that the n0 copies chose")
    alpha: float = Field(description="chance that the certificate is wrong, at the most")
    width: int = Field(description="of the image turned upright, which the radius is about")
    height: int

    @classmethod
    def of(cls, order: CertifyOrder, done: Certification, **more: Any) -> Self:
        """The certificate that ``done`` amounts to, and ``more`` fields of a subclass."""
        found, smoothing = done.certificate(), order.smoothing
        index = None if found.abstained else found.label
        return cls(
            model=order.model.name,
            purifier=order.card.name,
            abstained=found.abstained,
            label=None if index is None else order.model.labels[index],
            index=index,
            radius=found.radius,
            sigma=smoothing.sigma,
            n0=smoothing.n0,
            n=smoothing.n,
            count=done.votes(),
            alpha=smoothing.alpha,
            width=done.width,
            height=done.height,
            **more,
        )


class CertifyAnswer(Certified):
    """``POST /classify-robust?certify=true``, and the last event of its stream."""

    request_id: str
    timings_ms: dict[str, float]


class CertifyProgress(BaseModel):
    """Event ``progress``."""

    done: int = Field(description="noisy copies asked about")
    of: int = Field(description="n0 + n")
    seconds_left: float | None = Field(description="estimated; null before the first copies are done")
