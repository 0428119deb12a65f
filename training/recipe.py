"""Recipes: a TOML file that states what differs from the defaults written here.

Plain dataclasses, because a training on a bare machine has no pydantic: only reading TOML, at home, asks for it.
"""

from __future__ import annotations

import json
import tomllib
import types
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar, get_args, get_origin, get_type_hints

from training.errors import RecipeError

RECIPES = Path(__file__).parent / "recipes"

Precision = Literal["auto", "float32", "bfloat16"]


@dataclass(frozen=True)
class Bounds:
    """What a number may be: ``least`` and ``most`` belong to the range, ``above`` and ``below`` do not."""

    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None

    def broken(self, value: float) -> str:
        """What ``value`` should be and is not, or nothing."""
        rules = (
            (self.least is None or value >= self.least, f"at least {self.least}"),
            (self.above is None or value > self.above, f"above {self.above}"),
            (self.most is None or value <= self.most, f"at most {self.most}"),
            (self.below is None or value < self.below, f"below {self.below}"),
        )
        return next((rule for kept, rule in rules if not kept), "")


Count = Annotated[int, Bounds(least=1)]
Pixels = Annotated[int, Bounds(least=8)]
Share = Annotated[float, Bounds(least=0, most=1)]
Positive = Annotated[float, Bounds(above=0)]
Weight = Annotated[float, Bounds(least=0)]
Decay = Annotated[float, Bounds(least=0, below=1)]


@dataclass(frozen=True, kw_only=True)
class Bounded:
    """A record of settings, whose bounds are checked when it is made. Raises ValueError naming the field."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        """Check every field whose type carries Bounds."""
        hints = get_type_hints(type(self), include_extras=True)
        for each in fields(self):
            for bounds in getattr(hints[each.name], "__metadata__", ()):
                rule = bounds.broken(getattr(self, each.name)) if isinstance(bounds, Bounds) else ""
                if rule:
                    raise ValueError(f"{each.name} must be {rule}")


@dataclass(frozen=True, kw_only=True)
class Recipe(Bounded):
    """What every training has. ``side`` is the square, in pixels, that photos are brought to once, at the start."""

    name: str
    summary: str
    architecture: str
    arguments: dict[str, Any] = field(default_factory=dict)
    source: str = "a folder of photos"
    terms: str = "not stated"
    seed: int = 0
    side: Pixels = 160
    batch: Count = 32
    learning_rate: Positive
    weight_decay: Weight = 0.0
    warmup: Share = 0.05
    precision: Precision = "auto"
    save_every: Count = 100
    gradient_clip: Positive = 1.0


@dataclass(frozen=True, kw_only=True)
class SupervisedRecipe(Recipe):
    """A classifier, or the feature network with its small head.

    The random crop grows linearly from ``crop_start`` to ``crop`` over the first 70 % of the run: early epochs on
    small crops cost less and teach the same coarse features. Photos to be classified are brought to ``short_side``
    and centre-cropped to ``crop``: random crops show objects larger than whole photos do, which this makes up for.

    ``adversarial_eps`` (in /255) above 0 trains on PGD adversaries of each batch instead of the batch (Madry et al.,
    2018), of ``adversarial_iterations`` steps from a uniform start. The budget grows from 0 over the first
    ``adversarial_ramp`` of the run: from scratch, a small network learns next to nothing from the whole of it.
    """

    epochs: Positive
    crop: Pixels = 128
    crop_start: Pixels = 96
    short_side: Pixels = 144
    smallest_area: Annotated[float, Bounds(above=0, most=1)] = 0.35
    label_smoothing: Decay = 0.1
    adversarial_eps: Weight = 0.0
    adversarial_iterations: Count = 2
    adversarial_ramp: Share = 0.5
    labels: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that the crop fits, too."""
        super().__post_init__()
        if self.short_side < self.crop:
            raise ValueError("short_side must be at least crop")


AnyRecipe = TypeVar("AnyRecipe", bound=Recipe)


def read_recipe(where: str, schema: type[AnyRecipe]) -> AnyRecipe:
    """The recipe in file ``where``, or the shipped one of that name. Raises RecipeError."""
    from pydantic import TypeAdapter, ValidationError  # noqa: PLC0415  (see the top)

    path = recipe_path(where)
    try:
        return TypeAdapter(schema).validate_python(recipe_table(path))
    except ValidationError as error:
        first = error.errors()[0]
        where_in = ".".join(str(part) for part in first["loc"])
        told = first["msg"].removeprefix("Value error, ")
        raise RecipeError(": ".join(part for part in (path.name, where_in, told) if part)) from error


def recipe_path(where: str) -> Path:
    """File ``where``, or the shipped recipe of that name. Raises RecipeError where there is none."""
    path = Path(where) if where.endswith(".toml") else RECIPES / f"{where}.toml"
    if not path.is_file():
        shipped = ", ".join(sorted(p.stem for p in RECIPES.glob("*.toml")))
        raise RecipeError(f"no recipe {where!r}; give a .toml file or one of: {shipped}")
    return path


def recipe_table(path: Path) -> dict[str, Any]:
    """What the file states, not checked yet. Raises RecipeError where it is not TOML."""
    try:
        return tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path.name} is not TOML: {error}") from error


def recipe_json(recipe: Bounded, *, without: Collection[str] = ()) -> dict[str, Any]:
    """``recipe`` as JSON has it (tuples as lists), but for the fields named ``without``."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(recipe)))
    return {name: value for name, value in plain.items() if name not in without}


AnyBounded = TypeVar("AnyBounded", bound=Bounded)


def recipe_from_json(schema: type[AnyBounded], data: Mapping[str, Any]) -> AnyBounded:
    """The recipe that ``recipe_json`` wrote, with its tuples and nested records. Raises RecipeError."""
    hints = get_type_hints(schema)
    known = {each.name for each in fields(schema)}
    unknown = sorted(data.keys() - known)
    if unknown:
        raise RecipeError(f"{schema.__name__} has no field {unknown[0]!r}; write the plan again with this version")
    try:
        return schema(**{name: _restored(hints[name], value) for name, value in data.items()})
    except (TypeError, ValueError) as error:
        raise RecipeError(f"this is no {schema.__name__}: {error}; write the plan again") from error


def _restored(hint: Any, value: Any) -> Any:
    """``value`` out of JSON as a field of type ``hint`` holds it."""
    if isinstance(hint, type) and issubclass(hint, Bounded) and isinstance(value, Mapping):
        return recipe_from_json(hint, value)
    inner = [part for part in get_args(hint) if part is not Ellipsis]
    if get_origin(hint) is tuple and isinstance(value, list):
        kinds = inner if len(inner) == len(value) and get_args(hint)[-1] is not Ellipsis else inner[:1] * len(value)
        return tuple(_restored(kind, part) for kind, part in zip(kinds, value, strict=True))
    if get_origin(hint) is dict and isinstance(value, Mapping):
        return {key: _restored(inner[1], part) for key, part in value.items()}
    if get_origin(hint) is types.UnionType and value is not None:
        return _restored(next(part for part in inner if part is not types.NoneType), value)
    return value
