from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from model_store.architectures import build
from training.detection import DetectorRecipe
from training.errors import RecipeError
from training.perturber import PerturberRecipe
from training.recipe import RECIPES, PurifierRecipe, Recipe, SupervisedRecipe, read_recipe
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
