"""The JSON of ``POST /purify/batch``: the answer itself, or ``report.json`` in the archive."""

from __future__ import annotations

from pydantic import BaseModel, Field

from service.answers import EncodedImage, ModeReport, SuspicionReport


class ItemProblem(BaseModel):
    """Why one image has no answer: a problem of RFC 9457, as the image alone would have got."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    request_id: str
    file: str = Field(description="the name it was sent under")
    retry_after: int | None = Field(default=None, description="seconds, where the status is 429; null else")


class BatchItem(BaseModel):
    """One image, in the place it was sent in."""

    file: str = Field(description="the name it was sent under, up to 255 characters of it")
    status: int = Field(description="the HTTP status that the image alone would have got")
    name: str | None = Field(
        default=None, description="its name in the archive, safe to write to a disk; null where it failed"
    )
    image: EncodedImage | None = Field(default=None, description="null in the archive's report, and where it failed")
    suspicion: SuspicionReport | None = Field(default=None, description="null where it failed")
    timings_ms: dict[str, float] | None = Field(default=None, description="null where it failed")
    problem: ItemProblem | None = Field(default=None, description="null where it was purified")


class BatchHead(BaseModel):
    """What is known before the first image."""

    request_id: str
    purifier: str
    mode: ModeReport


class BatchTotals(BaseModel):
    """What is known after the last image."""

    succeeded: int
    failed: int


class BatchAnswer(BatchHead):
    """``POST /purify/batch`` with ``Accept: application/json``, and ``report.json`` without the images."""

    items: list[BatchItem]
    succeeded: int
    failed: int
