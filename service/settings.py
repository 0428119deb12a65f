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
RuntimeName = Literal["auto", "torch", "ncnn"]


class Settings(BaseSettings):
    """Everything an operator can choose. Read when constructed, never at import."""

    model_config = SettingsConfigDict(env_prefix="NRP_", frozen=True, extra="forbid")

    host: str = Field(default="127.0.0.1", description="address to listen on")
    port: int = Field(default=8000, ge=0, le=65535, description="port to listen on; 0 takes a free one")

    device: DeviceName = Field(default="auto", description="where the models run; auto takes CUDA where there is one")
    precision: PrecisionName = Field(
        default="auto", description="auto: bfloat16 where the device computes in it, else float32"
    )
    runtime: RuntimeName = Field(
        default="auto",
        description="what runs the purifier: torch, or ncnn, on a CPU in float32 the faster. auto: ncnn where it can",
    )
    threads: int = Field(default=0, ge=0, description="CPU threads of models, all lanes together; 0: one a core")
    lanes: int = Field(
        default=0, ge=0, le=256, description="runs of models side by side; 0: as many as threads on a CPU, else one"
    )
    codec_threads: int = Field(default=2, ge=1, le=64, description="threads that decode and encode images")

    model_store: Path = Field(default=SHIPPED, description="folder of published models")
    purifier: str = Field(
        default="auto",
        description="default purifier; any other in the store is loaded when asked for. auto: nrp-fast on a CPU, "
        "nrp-strong else",
    )
    classifier: str = Field(
        default="efficientnet-lite0",
        description="a classifier in the store, torchvision:NAME, timm:NAME, a URL, or none",
    )
    segmenter: str = Field(
        default="auto",
        description="a segmenter in the store, torchvision:NAME, a URL, or none; auto: camvid-segnet where the store "
        "has it",
    )
    detector: str = Field(
        default="auto",
        description="a detector in the store, torchvision:NAME, a URL, or none; auto: bccd-retinanet where the store "
        "has it",
    )

    classifier_labels: Path | None = Field(
        default=None, description="file of a remote classifier's labels, one a line, in order"
    )
    segmenter_labels: Path | None = Field(default=None, description="the same for a remote segmenter")
    detector_labels: Path | None = Field(default=None, description="the same for a remote detector")
    remote_authorization: SecretStr | None = Field(
        default=None, min_length=1, description="the header Authorization that remote models are sent"
    )
    remote_ca_file: Path | None = Field(
        default=None, description="certificates that https:// is verified by; certifi's by default"
    )
    remote_connections: int = Field(
        default=16, ge=1, le=1024, description="connections to each remote model, kept open between requests"
    )
    remote_connect_timeout_s: float = Field(
        default=2.0, gt=0, description="seconds to connect to a remote model within"
    )
    remote_timeout_s: float = Field(
        default=15.0, gt=0, description="seconds that one attempt to ask a remote model may take"
    )
    remote_retries: int = Field(
        default=2, ge=0, le=10, description="times that a remote model is asked again when that may help"
    )
    remote_backoff_s: float = Field(
        default=0.1, ge=0, description="longest wait before the first retry; doubled for each further one, up to 5 s"
    )
    remote_max_answer_bytes: int = Field(
        default=16 * MEBI, ge=1, description="longest answer of a remote model that is read"
    )
    remote_breaker_failures: int = Field(
        default=5, ge=1, description="failures in a row after which a remote model is left alone"
    )
    remote_breaker_s: float = Field(default=10.0, gt=0, description="seconds that it is left alone for")

    max_body_bytes: int = Field(default=20 * MEBI, ge=1, description="longest request body")
    max_body_bytes_in_flight: int = Field(
        default=320 * MEBI, ge=1, description="bodies held at one time, all requests together"
    )
    max_pixels: int = Field(default=25 * MEBI, ge=1, le=MOST_PIXELS, description="largest image, in pixels")
    max_pixels_in_flight: int = Field(
        default=32 * MEBI, ge=1, description="decoded pixels held at one time, all requests"
    )
    max_batch_files: int = Field(default=64, ge=1, le=1000, description="files of one POST /purify/batch")
    max_waiting: int = Field(default=512, ge=1, description="images that may wait for the device")
    batch_pixels: int = Field(
        default=0, ge=0, description="pixels of one model run, draws counted; 0: 1 Mi on a CPU for all lanes, 8 Mi else"
    )
    tile_pixels: int = Field(
        default=4 * MEBI, ge=1, description="an image of more pixels is purified in overlapping tiles of batch_pixels"
    )
    max_draws: int = Field(default=16, ge=1, le=64, description="most noisy draws that one request may ask for")
    request_timeout_s: float = Field(default=60.0, gt=0, description="seconds before an unanswered request gets a 504")
    smoothing_purifier: str = Field(
        default="nrp-smoothing", description="purifier of certificates, in the store; loaded when first asked for"
    )
    max_certifications: int = Field(default=2, ge=1, description="certifications at one time; more are told to wait")
    max_certify_samples: int = Field(
        default=10_000, ge=1, description="most noisy copies that choose, and most that bound, in one certification"
    )
    max_certify_pixels: int = Field(
        default=0, ge=0, description="pixels of one certification, all its noisy copies; 0: 256 runs of batch_pixels"
    )
    certify_timeout_s: float = Field(
        default=300.0, gt=0, description="seconds before a certification that is not done is given up with a 504"
    )
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
