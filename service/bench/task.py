"""The task that every arm gets: which weights in which mode on which image, and how many at a time."""

from __future__ import annotations

import io
import os
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from PIL import Image, ImageFilter
from pydantic import BaseModel, ConfigDict, Field

from service.settings import RuntimeName

VARIABLE = "NRP_BENCH_TASK"
BUDGET_PIXELS = 1 << 20
MOST_IN_A_BATCH = 32


class Task(BaseModel):
    """Handed to the arms' processes through the environment, since their frameworks start processes of their own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    store: Path
    purifier: str
    mode: str = "static"
    device: Literal["cpu", "cuda"] = "cpu"
    side: int = Field(default=224, ge=16)
    seed: int = 0
    threads: int = Field(default=0, ge=0, description="CPU threads of one model run; 0: as many as there are cores")
    runtime: RuntimeName = "auto"

    @property
    def batch(self) -> int:
        """Images that the peers run together at the most: what fits into one Mi of pixels, as in this service."""
        return max(1, min(MOST_IN_A_BATCH, BUDGET_PIXELS // (self.side * self.side)))

    @property
    def model_threads(self) -> int:
        """CPU threads of one model run."""
        return self.threads or cores()

    def environment(self) -> dict[str, str]:
        """The variable that ``received_task`` reads."""
        return {VARIABLE: self.model_dump_json()}

    def image(self) -> bytes:
        """The PNG file that every request of the benchmark carries."""
        return picture(self.side, self.side, self.seed)


def received_task(environment: Mapping[str, str] | None = None) -> Task:
    """The task of an arm's process."""
    return Task.model_validate_json((os.environ if environment is None else environment)[VARIABLE])


def picture(width: int, height: int, seed: int) -> bytes:
    """A PNG of blurred noise: smooth areas and edges, so it packs and purifies about as a photo does."""
    levels = random.Random(seed).randbytes(3 * width * height)  # noqa: S311 - a picture, not a secret
    image = Image.frombytes("RGB", (width, height), levels).filter(ImageFilter.GaussianBlur(1.5))
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
