"""The service's settings: one frozen object, filled from ``NRP_*`` variables and the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from model_store.store import SHIPPED
from service.errors import SettingsError

MEBI = 1 << 20
# Below Pillow's own bomb threshold (89 478 485), so that ours is always the one that decides.
MOST_PIXELS = 80_000_000

DeviceName = Literal["auto", "cpu", "cuda"]
PrecisionName = Literal["auto", "float32", "bfloat16"]


class Settings(BaseSettings):
    """Everything an operator can choose. Read when constructed, never at import."""

    model_config = SettingsConfigDict(env_prefix="NRP_", frozen=True, extra="forbid")

    host: str = Field(default="127.0.0.1", description="address to listen on")
    port: int = Field(default=8000, ge=0, le=65535, description="port to listen on; 0 takes a free one")

    device: DeviceName = Field(default="auto", description="where the models run; auto takes CUDA where there is one")
    precision: PrecisionName = Field(
        default="auto", description="auto: bfloat16 where the device computes in it, else float32"
    )
    threads: int = Field(default=0, ge=0, description="CPU threads of one model run; 0 leaves it to torch")
    codec_threads: int = Field(default=2, ge=1, le=64, description="threads that decode and encode images")

    model_store: Path = Field(default=SHIPPED, description="folder of published models")
    purifier: str = Field(
        default="auto",
        description="default purifier; any other in the store is loaded when asked for. auto: nrp-fast on a CPU, "
        "nrp-strong else",
    )
    classifier: str = Field(
        default="imagenette-resnet", description="a classifier in the store, torchvision:NAME, or none"
    )
    segmenter: str = Field(
        default="auto",
        description="a segmenter in the store, torchvision:NAME, or none; auto: camvid-segnet where the store has it",
    )
    detector: str = Field(
        default="auto",
        description="a detector in the store, torchvision:NAME, or none; auto: bccd-retinanet where the store has it",
    )

    max_body_bytes: int = Field(default=20 * MEBI, ge=1, description="longest request body")
    max_body_bytes_in_flight: int = Field(
        default=320 * MEBI, ge=1, description="bodies held at one time, all requests together"
    )
    max_pixels: int = Field(default=25 * MEBI, ge=1, le=MOST_PIXELS, description="largest image, in pixels")
    max_pixels_in_flight: int = Field(
        default=32 * MEBI, ge=1, description="decoded pixels held at one time, all requests"
    )
    max_waiting: int = Field(default=512, ge=1, description="images that may wait for the device")
    batch_pixels: int = Field(
        default=0, ge=0, description="pixels of one model run, draws counted; 0: 1 Mi on a CPU, 8 Mi else"
    )
    tile_pixels: int = Field(
        default=4 * MEBI, ge=1, description="an image of more pixels is purified in overlapping tiles of batch_pixels"
    )
    max_draws: int = Field(default=16, ge=1, le=64, description="most noisy draws that one request may ask for")
    request_timeout_s: float = Field(default=60.0, gt=0, description="seconds before an unanswered request gets a 504")
    suspicion_threshold: float | None = Field(
        default=None,
        ge=0,
        description="score from which an image is suspicious, instead of the threshold of the purifier's card",
    )

    admin_key: SecretStr | None = Field(
        default=None, min_length=16, description="key that POST /models/{name}/activate asks for; off without one"
    )

    drain_delay_s: float = Field(
        default=0.5, ge=0, description="seconds between readiness turning false and the port closing"
    )
    drain_seconds: float = Field(
        default=30.0, ge=0, description="seconds that requests in flight get to finish at shutdown"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="least level written")
    log_format: Literal["auto", "json", "console"] = Field(
        default="auto", description="json: one object a line; console: for a person; auto: console on a terminal"
    )

    @model_validator(mode="after")
    def _room_for_one(self) -> Self:
        """The largest request alone must fit into an idle service, or it would be told to retry for ever."""
        if self.max_pixels_in_flight < self.max_pixels:
            raise ValueError("max_pixels_in_flight must be at least max_pixels")
        if self.max_body_bytes_in_flight < self.max_body_bytes:
            raise ValueError("max_body_bytes_in_flight must be at least max_body_bytes")
        return self


def load_settings(**chosen: Any) -> Settings:
    """Settings from the environment, with the values in ``chosen`` that are not None above it.

    Raises SettingsError: one line that names the variable.
    """
    try:
        return Settings(**{name: value for name, value in chosen.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        name = f"NRP_{where.upper()}: " if where else ""
        raise SettingsError(f"invalid setting: {name}{first['msg']}") from error
