"""The segmenter's training on synthetic scenes: it learns, and resumes to the bit."""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from model_store.store import ModelStore
from robustness.datasets.camvid import CLASSES, VOID, read_camvid
from robustness.victims.segmentation import load_segmenter
from training.commands import configure_train, run_train
from training.errors import DataError, RecipeError, RunError
from training.recipe import read_recipe
from training.segmentation import SegmentationTraining, SegmenterRecipe, class_weights, scene_crops

RECIPE = """
name = "tiny-segmenter"
summary = "tiny"
architecture = "segnet_basic"
arguments = { width = 8, kernel = 3 }
epochs = 3
batch = 3
learning_rate = 1e-2
size = [24, 32]
crop = [16, 32]
crop_start = [16, 16]
precision = "float32"
save_every = 2
"""


@pytest.fixture
def camvid(tmp_path: Path) -> Path:
    """Six scenes: bright sky (0) above a dark road (3), the horizon at another height in each; a void rim."""
    for folder in ("images", "labels"):
        (tmp_path / "camvid/train" / folder).mkdir(parents=True)
    for number in range(6):
        horizon = 8 + 2 * number
        scene = np.full((24, 32, 3), 220, dtype=np.uint8)
        mask = np.zeros((24, 32), dtype=np.uint8)
        scene[horizon:], mask[horizon:], mask[:, :2] = 40, 3, VOID
        Image.fromarray(scene).save(tmp_path / "camvid/train/images" / f"{number}.png")
        Image.fromarray(mask).save(tmp_path / "camvid/train/labels" / f"{number}.png")
    (tmp_path / "recipe.toml").write_text(RECIPE)
    return tmp_path / "camvid"


def segmenter(camvid: Path, run: str, *more: object) -> int:
    here = camvid.parent
    options = ("--recipe", here / "recipe.toml", "--store", here / "store", "--quiet", "--run", here / run)
    parser = argparse.ArgumentParser()
    configure_train(parser)
    return run_train(parser.parse_args([str(word) for word in ("segmenter", *options, *more, "--", camvid)]))


def weights(camvid: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = load_file(camvid.parent / "store/tiny-segmenter/weights.safetensors")
    return state


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_scenes_in_a_published_segmenter_out(camvid: Path) -> None:
    text = RECIPE.replace("epochs = 3", "epochs = 30")
    (camvid.parent / "recipe.toml").write_text(text)
    assert segmenter(camvid, "run") == 0
    store = ModelStore(camvid.parent / "store")
    card = store.verify("tiny-segmenter")
    assert card.labels == CLASSES
    assert card.recipe["size"] == [24, 32]
    assert card.input.short_side is None
    victim = load_segmenter(store, "tiny-segmenter", torch.device("cpu"))
    scenes = read_camvid(camvid, "train", victim.size)
    answers = victim.answer(scenes.pixels.unsqueeze(1).float() / 255)
    assert victim.score(answers, scenes.truths).percent > 80


@pytest.mark.parametrize("stop", [1, 2, 5])
def test_a_run_killed_and_resumed_gives_the_same_bits(camvid: Path, stop: int) -> None:
    segmenter(camvid, "straight")
    whole = weights(camvid)
    segmenter(camvid, "killed", "--stop-at", stop)
    segmenter(camvid, "killed", "--replace")
    assert same(whole, weights(camvid))
    segmenter(camvid, "other", "--seed", 7, "--replace")
    assert not same(whole, weights(camvid))


def test_a_run_is_not_resumed_on_other_masks(camvid: Path) -> None:
    segmenter(camvid, "run", "--stop-at", 1)
    Image.new("L", (32, 24), 3).save(camvid / "train/labels/0.png")
    with pytest.raises(RunError, match="other data"):
        segmenter(camvid, "run")


def test_only_one_folder_is_taken(camvid: Path) -> None:
    with pytest.raises(DataError, match="one folder"):
        segmenter(camvid, "run", "--", camvid)


def test_the_crop_grows_to_its_full_size(camvid: Path) -> None:
    recipe = replace(read_recipe(str(camvid.parent / "recipe.toml"), SegmenterRecipe), epochs=50)
    work = SegmentationTraining(recipe, read_camvid(camvid, "train", recipe.size), torch.device("cpu"))
    assert work.total == 100
    assert [work.crop_at(number) for number in (0, 60, 70, 99)] == [(16, 16), (16, 16), (16, 32), (16, 32)]
    images, masks = work.batch(99)
    assert images.shape == (3, 3, 16, 32)
    assert masks.shape == (3, 16, 32)


def test_a_batch_of_nothing_but_void_has_no_loss(camvid: Path) -> None:
    for path in (camvid / "train/labels").iterdir():
        Image.new("L", (32, 24), VOID).save(path)
    recipe = read_recipe(str(camvid.parent / "recipe.toml"), SegmenterRecipe)
    work = SegmentationTraining(recipe, read_camvid(camvid, "train", recipe.size), torch.device("cpu"))
    assert work.step(0) == {"loss": 0.0, "accuracy": 0.0}


def test_images_and_masks_are_cropped_alike() -> None:
    """Each pixel's class is its colour, so they must agree after the crop, up to what bilinear mixes at edges."""
    ramp = (torch.arange(48) // 8).expand(5, 32, 48)
    pixels = (ramp * 40).unsqueeze(1).expand(5, 3, 32, 48).to(torch.uint8)
    images, masks = scene_crops(pixels, ramp, (16, 16), 1.5, torch.Generator().manual_seed(3))
    assert images.shape == (5, 3, 16, 16)
    assert masks.dtype == torch.int64
    seen = (images[:, 0] * 255 / 40).round().long()
    assert (seen == masks).float().mean() > 0.95
    rising = images[:, 0, 0, -1] > images[:, 0, 0, 0]
    assert {bool(one) for one in rising} == {True, False}  # mirrored or not
    assert len({tuple(mask.unique().tolist()) for mask in masks}) > 1  # windows differ


def test_class_weights_lift_rare_classes() -> None:
    masks = torch.arange(VOID).repeat_interleave(2 ** torch.arange(VOID)).view(1, 1, -1)
    assert class_weights(masks, "none").tolist() == [1.0] * VOID + [0.0]
    median = class_weights(masks, "median")
    assert median[0] == 32
    assert median[5] == 1
    torch.testing.assert_close(class_weights(masks, "sqrt"), median.sqrt())
    with pytest.raises(DataError, match="bicyclist"):
        class_weights(masks.clamp(max=VOID - 2), "sqrt")


def test_crops_larger_than_the_scenes_are_refused(camvid: Path) -> None:
    (camvid.parent / "recipe.toml").write_text(RECIPE.replace("crop = [16, 32]", "crop = [32, 32]"))
    with pytest.raises(RecipeError, match="rising order"):
        segmenter(camvid, "run")


def test_the_shipped_recipe_is_read() -> None:
    assert read_recipe("segmenter", SegmenterRecipe).name == "camvid-segnet"
