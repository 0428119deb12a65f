"""The README's pictures: what they are drawn from, and how the grid is put together."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

import nrp
from model_store.pixels import fit, image_to_bytes, to_float
from model_store.store import ModelStore
from robustness.datasets import bccd, camvid

DOCS = Path(nrp.__file__).parent / "docs"
OBJECTS = {"golf": "golf ball", "parachute": "parachute", "church": "church"}


@pytest.fixture(scope="module", autouse=True)
def docs() -> Iterator[None]:
    """The folder of the documentation's scripts can be imported from, as when one of them is run."""
    sys.path.insert(0, str(DOCS))
    yield
    sys.path.remove(str(DOCS))


def drawing(name: str) -> ModuleType:
    return importlib.import_module(f"drawings.{name}")


def picture(name: str) -> Image.Image:
    drawn: Image.Image = getattr(drawing(name), OBJECTS[name].replace(" ", "_"))()
    return drawn


@pytest.mark.parametrize("name", OBJECTS)
def test_objects_are_recognised(name: str) -> None:
    drawn = picture(name)
    assert (drawn.mode, drawn.size) == ("RGB", (256, 256))
    classifier = ModelStore().load("imagenette-resnet")
    with torch.inference_mode():
        images = fit(to_float(image_to_bytes(drawn)).unsqueeze(0), classifier.card.input)
        probabilities = classifier.module(images).softmax(1)[0]
    assert classifier.card.labels[int(probabilities.argmax())] == OBJECTS[name]
    assert probabilities.max() > 0.6


@pytest.mark.parametrize("name", OBJECTS)
def test_objects_are_the_same_every_time(name: str) -> None:
    assert picture(name).tobytes() == picture(name).tobytes()


def test_the_golf_ball_is_the_one_that_the_readme_sends() -> None:
    with Image.open(DOCS / "images" / "golf-ball.png") as kept:
        assert np.abs(np.asarray(kept, dtype=int) - np.asarray(picture("golf"), dtype=int)).max() <= 1


def test_the_street_shows_the_classes_it_claims() -> None:
    scene, mask = drawing("street").street()
    again, mask_again = drawing("street").street()
    assert (scene.tobytes(), mask.tobytes()) == (again.tobytes(), mask_again.tobytes())
    assert scene.size == mask.size == (240, 180)
    shown = {camvid.CLASSES[number] for number in np.unique(np.asarray(mask))}
    assert shown == {"sky", "building", "pole", "road", "pavement", "tree", "sign", "car"}
    brightness = np.asarray(scene.convert("L"), dtype=float)
    road, sky = (brightness[np.asarray(mask) == camvid.CLASSES.index(name)].mean() for name in ("road", "sky"))
    assert road + 60 < sky


def test_the_smear_has_a_box_round_every_cell() -> None:
    scene, boxes, kinds = drawing("smear").smear()
    again, *same = drawing("smear").smear()
    assert (scene.tobytes(), [boxes, kinds]) == (again.tobytes(), same)
    assert scene.size == (320, 240)
    counts = dict(zip(bccd.CLASSES, np.bincount(kinds, minlength=3).tolist(), strict=True))
    assert counts["RBC"] > 10
    assert (counts["WBC"], counts["Platelets"]) == (1, 3)
    for left, top, right, bottom in boxes:
        assert 0 <= left < right <= 320
        assert 0 <= top < bottom <= 240
    pixels = np.asarray(scene, dtype=float)
    left, top, right, bottom = (round(side) for side in boxes[kinds.index(bccd.CLASSES.index("WBC"))])
    red, green, blue = pixels[top:bottom, left:right].mean((0, 1))
    assert blue > red > green  # purple, as stained white cells are


def test_found_counts_each_cell_once_and_needs_its_class() -> None:
    showcase = importlib.import_module("showcase")
    cells = torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30], [50, 50, 60, 60]])
    truths = {"boxes": cells, "labels": torch.tensor([0, 0, 1])}
    answers = {
        "boxes": torch.cat([cells[:1], cells[:1] + 1, cells[1:2] + 8, cells[2:], cells[1:2], torch.zeros(1, 4)]),
        "labels": torch.tensor([0, 0, 0, 0, 0, -1]),
        "scores": torch.tensor([0.9, 0.8, 0.7, 0.6, 0.1, 0.0]),
    }
    assert showcase.found(answers, truths) == (1, 3)
    assert showcase.found({**answers, "scores": torch.full((6,), 0.9)}, truths) == (2, 3)


def test_the_palette_keeps_the_colours_that_must_be_exact() -> None:
    showcase = importlib.import_module("showcase")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    exact = ((213, 94, 0), (86, 180, 233), (255, 255, 255))
    palette = showcase.palette_of(Image.fromarray(noise), exact)
    for colour in exact:
        flat = Image.new("RGB", (8, 8), colour).quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
        assert flat.convert("RGB").getcolors() == [(64, colour)]


def test_sheets_are_stacked_on_white() -> None:
    showcase = importlib.import_module("showcase")
    whole = showcase.stacked([Image.new("RGB", (4, 2), "red"), Image.new("RGB", (6, 3), "blue")])
    assert whole.size == (6, 5)
    assert [whole.getpixel(place) for place in ((0, 0), (5, 0), (5, 4))] == [(255, 0, 0), (255, 255, 255), (0, 0, 255)]


def test_the_committed_grid_is_small() -> None:
    file = DOCS / "images" / "grid.png"
    assert file.stat().st_size < 600_000
    with Image.open(file) as grid:
        assert grid.width > 800
