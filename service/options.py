"""What a request asks for besides its image: the query parameters, and the inference mode they amount to."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from model_store.card import Card
from model_store.inference import STANDARD_MODES, STATIC, InferenceMode
from service.errors import InvalidParameterError

SEED_BITS = 63
CARD_DEFAULT = "default"
PUBLISHED_NAME = "published"
STATIC_NAME = "static"
# Beyond this a copy shows nothing of the image.
MOST_SIGMA = 10.0

Policy = Literal["always", "suspicious"]


class PurifyQuery(BaseModel):
    """Query parameters of ``POST /purify``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    purifier: str | None = Field(default=None, description="a purifier of `GET /models`; the service's own by default")
    mode: str | None = Field(
        default=None,
        description="an inference mode by name: one of the purifier's card, `static`, `published`, or `default`",
    )
    dynamic: bool | None = Field(
        default=None,
        description="false: static, without noise. true: the card's default mode where that adds noise, else "
        "`published`. Instead of `mode`, not beside it",
    )
    samples: int | None = Field(
        default=None, ge=1, description="independent noisy draws whose answers are averaged; the mode's own by default"
    )
    seed: int | None = Field(
        default=None,
        ge=0,
        lt=2**SEED_BITS,
        description="makes the noise reproducible; by default secret and fresh, which an attacker cannot prepare for",
    )


class BatchQuery(PurifyQuery):
    """Query parameters of ``POST /purify/batch``."""

    format: Literal["png", "webp", "jpeg"] = Field(
        default="png", description="of the purified images, since `Accept` chooses what they come in"
    )


class DownstreamQuery(PurifyQuery):
    """Query parameters of every route that hands the purified image to a model."""

    model: str | None = Field(default=None, description="the model's name; the loaded one is the only one")
    compare: bool = Field(default=False, description="also return what the model says of the image as it came")
    policy: Policy = Field(
        default="always",
        description="always: decided on the purified image. suspicious: only where the calibrated suspicion reaches "
        "its threshold, else on the image as it came; needs a calibration (see `suspicion` of the purifier's card)",
    )


class ClassifyQuery(DownstreamQuery):
    """Query parameters of ``POST /classify-robust``."""

    top_k: int | None = Field(default=None, ge=1, description="labels to return, best first; 5 by default")
    certify: bool = Field(
        default=False,
        description="instead of probabilities a certificate: a label that no change of the upload below an L2 radius "
        "can turn, or an abstention. Allows `purifier`, `model`, `seed` and the four parameters below",
    )
    sigma: float | None = Field(
        default=None,
        gt=0,
        le=MOST_SIGMA,
        description="standard deviation of a certificate's noise, image values being in [0, 1]; by default that of the "
        "purifier's card",
    )
    n: int | None = Field(default=None, ge=1, description="noisy copies that bound the label's share; 1000 by default")
    n0: int | None = Field(default=None, ge=1, description="noisy copies that choose the label; 100 by default")
    alpha: float | None = Field(
        default=None, gt=0, lt=1, description="chance that a certificate is wrong, at the most; 0.001 by default"
    )


class DetectQuery(DownstreamQuery):
    """Query parameters of ``POST /detect-robust``."""

    score_threshold: float = Field(
        default=0.5, ge=0, le=1, description="least score of an object that is returned; detectors give none below 0.05"
    )


class SegmentQuery(DownstreamQuery):
    """Query parameters of ``POST /segment-robust``."""


@dataclass(frozen=True)
class NamedMode:
    """An inference mode and what it is called."""

    name: str
    mode: InferenceMode


def choose_mode(
    card: Card, *, mode: str | None, dynamic: bool | None, samples: int | None, max_draws: int
) -> NamedMode:
    """The mode asked for under ``card``. Raises InvalidParameterError naming the parameter at fault."""
    if mode is not None and dynamic is not None:
        raise InvalidParameterError("mode and dynamic say the same thing; give one of them")
    modes = {**STANDARD_MODES, **(card.inference.modes if card.inference else {})}
    own = card.inference.default if card.inference else STATIC_NAME
    name = own if mode in {None, CARD_DEFAULT} else str(mode)
    if dynamic is False:
        name = STATIC_NAME
    elif dynamic and modes.get(own, STATIC).static:
        name = PUBLISHED_NAME
    if name not in modes:
        raise InvalidParameterError(f"mode: {card.name} has no mode {name!r}; it has {', '.join(sorted(modes))}")
    return NamedMode(name, _with_samples(modes[name], name, samples, max_draws))


def _with_samples(mode: InferenceMode, name: str, samples: int | None, max_draws: int) -> InferenceMode:
    if mode.static:
        if samples is not None and samples > 1:
            raise InvalidParameterError(
                f"samples: mode {name!r} adds no noise, so all samples are equal; ask for a dynamic mode"
            )
        return mode.model_copy(update={"draws": 1})
    draws = mode.draws if samples is None else samples
    if draws > max_draws:
        raise InvalidParameterError(f"samples: {draws} draws in mode {name!r}, but this service allows {max_draws}")
    return mode.model_copy(update={"draws": draws})


def choose_seed(seed: int | None) -> int:
    """The seed asked for, or a secret one."""
    return secrets.randbits(SEED_BITS) if seed is None else seed
