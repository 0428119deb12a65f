"""Recipes: a TOML file that states what differs from the defaults written here."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from training.errors import RecipeError

RECIPES = Path(__file__).parent / "recipes"


class Recipe(BaseModel):
    """What every training has. ``side`` is the square, in pixels, that photos are brought to once, at the start."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    summary: str
    architecture: str
    arguments: dict[str, Any] = {}
    source: str = "a folder of photos"
    terms: str = "not stated"
    seed: int = 0
    side: int = Field(default=160, ge=8)
    batch: int = Field(default=32, ge=1)
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    warmup: float = Field(default=0.05, ge=0, le=1)
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    save_every: int = Field(default=100, ge=1)
    gradient_clip: float = Field(default=1.0, gt=0)


class SupervisedRecipe(Recipe):
    """A classifier, or the feature network with its small head.

    The random crop grows linearly from ``crop_start`` to ``crop`` over the first 70 % of the run: early epochs on
    small crops cost less and teach the same coarse features. Photos to be classified are brought to ``short_side``
    and centre-cropped to ``crop``: random crops show objects larger than whole photos do, which this makes up for.

    ``adversarial_eps`` (in /255) above 0 trains on PGD adversaries of each batch instead of the batch (Madry et al.,
    2018), of ``adversarial_iterations`` steps from a uniform start. The budget grows from 0 over the first
    ``adversarial_ramp`` of the run: from scratch, a small network learns next to nothing from the whole of it.
    """

    epochs: float = Field(gt=0)
    crop: int = Field(default=128, ge=8)
    crop_start: int = Field(default=96, ge=8)
    short_side: int = Field(default=144, ge=8)
    smallest_area: float = Field(default=0.35, gt=0, le=1)
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    adversarial_eps: float = Field(default=0.0, ge=0)
    adversarial_iterations: int = Field(default=2, ge=1)
    adversarial_ramp: float = Field(default=0.5, ge=0, le=1)
    labels: dict[str, str] = {}

    @model_validator(mode="after")
    def _crop_fits(self) -> Self:
        if self.short_side < self.crop:
            raise ValueError("short_side must be at least crop")
        return self


class AdversaryRecipe(BaseModel):
    """The bank of adversaries of at most ``count`` photos, made once and reused.

    ``kinds`` and, slower, ``eps`` (in /255) cycle over its batches: ``ssp`` moves the features away from the clean
    image's, as published; ``prediction`` is PGD on the feature network's own answer. Neither needs a label.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    count: int = Field(default=3000, ge=1)
    side: int = Field(default=128, ge=8)
    kinds: tuple[Literal["ssp", "prediction"], ...] = Field(default=("ssp",), min_length=1)
    eps: tuple[float, ...] = (4.0, 8.0, 16.0)
    step_share: float = Field(default=0.25, gt=0)
    iterations: int = Field(default=10, ge=1)
    start: Literal["uniform", "corner"] = "corner"
    batch: int = Field(default=32, ge=1)


class PurifierRecipe(Recipe):
    """The purifier: what it sees, how much noise, and how the losses are weighed; ``limits`` goes into its card.

    ``noise_high`` (in [0,1] pixel units): each photo's noise std is noise_high * u ** noise_power, u uniform in
    [0,1]; a power under 1 leans towards heavy noise. ``adversary_share`` of each batch comes from the bank.
    """

    feature_network: str
    steps: int = Field(ge=1)
    crop: int = Field(default=96, ge=8)
    smallest_zoom: float = Field(default=0.6, gt=0, le=1)
    adversary_share: float = Field(default=0.5, ge=0, le=1)
    noise_high: float = Field(default=0.35, ge=0, le=1)
    noise_power: float = Field(default=0.5, gt=0)
    pixel_weight: float = Field(default=1.0, ge=0)
    feature_weight: float = Field(default=0.1, ge=0)
    prediction_weight: float = Field(default=0.0, ge=0)
    adversarial_weight: float = Field(default=5e-3, ge=0)
    adversarial_from: float = Field(default=0.5, ge=0, le=1)
    feature_share: float = Field(default=0.5, gt=0, le=1)
    ema_decay: float = Field(default=0.999, ge=0, lt=1)
    modes: dict[str, dict[str, Any]] = {}
    default_mode: str = "static"
    adversaries: AdversaryRecipe = AdversaryRecipe()
    limits: tuple[str, ...] = ()

    @property
    def needs_predictions(self) -> bool:
        """Whether the feature network must have a head."""
        return self.prediction_weight > 0 or "prediction" in self.adversaries.kinds


AnyRecipe = TypeVar("AnyRecipe", bound=Recipe)


def read_recipe(where: str, schema: type[AnyRecipe]) -> AnyRecipe:
    """The recipe in file ``where``, or the shipped one of that name. Raises RecipeError."""
    path = Path(where) if where.endswith(".toml") else RECIPES / f"{where}.toml"
    if not path.is_file():
        shipped = ", ".join(sorted(p.stem for p in RECIPES.glob("*.toml")))
        raise RecipeError(f"no recipe {where!r}; give a .toml file or one of: {shipped}")
    try:
        return schema.model_validate(tomllib.loads(path.read_text()))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path.name} is not TOML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where_in = ".".join(str(part) for part in first["loc"])
        raise RecipeError(f"{path.name}: {where_in}: {first['msg']}") from error
