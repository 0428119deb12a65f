import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from types import MappingProxyType

import pytest

from model_store.architectures import build
from training.detection import DetectorRecipe
from training.errors import RecipeError
from training.perturber import PerturberRecipe
from training.purifier_recipe import PurifierRecipe
from training.recipe import RECIPES, Recipe, SupervisedRecipe, read_recipe, recipe_from_json, recipe_json
from training.segmentation import SegmenterRecipe

# By the first word of a recipe's name: how it is read, and the arguments that its data will give.
SCHEMAS: Mapping[str, tuple[type[Recipe], Mapping[str, int]]] = MappingProxyType(
    {
        "classifier": (SupervisedRecipe, {"classes": 10}),
        "detector": (DetectorRecipe, {"classes": 3}),
        "feature": (SupervisedRecipe, {"classes": 10}),
        "perturber": (PerturberRecipe, {}),
        "purifier": (PurifierRecipe, {}),
        "segmenter": (SegmenterRecipe, {"classes": 11}),
        "surrogate": (SupervisedRecipe, {"classes": 10}),
    }
)
SHIPPED = sorted(path.stem for path in RECIPES.glob("*.toml"))


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_recipes_read_and_build(name: str) -> None:
    schema, extra = SCHEMAS[name.split("-", maxsplit=1)[0]]
    recipe = read_recipe(name, schema)
    build(recipe.architecture, {**recipe.arguments, **extra})


def test_a_shipped_purifier_recipe_names_its_default_mode() -> None:
    recipe = read_recipe("purifier", PurifierRecipe)
    assert recipe.default_mode in {"static", "published", *recipe.modes}


def test_a_wrong_key_is_named(tmp_path: Path) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text('name = "a"\nsummary = "a"\narchitecture = "nrp_lite"\nlearning_rat = 1e-3\n')
    with pytest.raises(RecipeError, match=r"wrong\.toml: .*learning_rat"):
        read_recipe(str(path), Recipe)


def test_an_unknown_recipe_lists_the_shipped() -> None:
    with pytest.raises(RecipeError, match="classifier"):
        read_recipe("nothing-of-the-kind", Recipe)


def test_broken_toml_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_text("name = \n")
    with pytest.raises(RecipeError, match="is not TOML") as caught:
        read_recipe(str(path), Recipe)
    assert "\n" not in str(caught.value)


FACTS = {"name": "a", "summary": "a", "architecture": "resnet_small", "learning_rate": 1e-3}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("side = 4", "side must be at least 8"),
        ("learning_rate = 0", "learning_rate must be above 0"),
        ("warmup = 1.5", "warmup must be at most 1"),
        ("label_smoothing = 1", "label_smoothing must be below 1"),
        ('batch = "many"', "batch: Input should be a valid integer"),
        ('precision = "float8"', "precision: Input should be 'auto', 'float32' or 'bfloat16'"),
        ("short_side = 100", "short_side must be at least crop"),
    ],
)
def test_a_value_out_of_bounds_is_named_with_what_it_should_be(tmp_path: Path, text: str, told: str) -> None:
    facts = {**FACTS, "epochs": 1}
    lines = [f"{key} = {value!r}" for key, value in facts.items() if not text.startswith(key)]
    path = tmp_path / "wrong.toml"
    path.write_text("\n".join([*lines, text]))
    with pytest.raises(RecipeError, match=rf"^wrong\.toml: {told}"):
        read_recipe(str(path), SupervisedRecipe)


def test_the_bounds_hold_without_a_file_too() -> None:
    recipe = Recipe(name="a", summary="a", architecture="nrp_lite", learning_rate=1e-3)
    with pytest.raises(ValueError, match="batch must be at least 1"):
        replace(recipe, batch=0)
    with pytest.raises(FrozenInstanceError):
        recipe.batch = 2  # type: ignore[misc]


@pytest.mark.parametrize("name", SHIPPED)
def test_a_recipe_survives_json(name: str) -> None:
    schema, _ = SCHEMAS[name.split("-", maxsplit=1)[0]]
    recipe = read_recipe(name, schema)
    data = json.loads(json.dumps(recipe_json(recipe)))
    restored = recipe_from_json(schema, data)
    assert restored == recipe
    assert all(type(a) is type(b) for a, b in zip(vars(restored).values(), vars(recipe).values(), strict=True))


def test_json_of_another_version_is_refused() -> None:
    data = recipe_json(read_recipe("purifier", PurifierRecipe))
    with pytest.raises(RecipeError, match="no field 'colour'"):
        recipe_from_json(PurifierRecipe, {**data, "colour": "red"})
    with pytest.raises(RecipeError, match="no field 'colour'"):
        recipe_from_json(PurifierRecipe, {**data, "adversaries": {"colour": "red"}})
    with pytest.raises(RecipeError, match="steps must be at least 1"):
        recipe_from_json(PurifierRecipe, {**data, "steps": 0})
    del data["steps"]
    with pytest.raises(RecipeError, match="steps"):
        recipe_from_json(PurifierRecipe, data)
    assert "seed" not in recipe_json(read_recipe("purifier", PurifierRecipe), without={"seed"})


def test_recipes_need_no_pydantic_but_for_reading_toml() -> None:
    code = "import sys; import training.recipe, training.purifier_recipe; sys.exit('pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0  # noqa: S603
