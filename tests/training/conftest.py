"""Small photo folders and recipes: whole trainings in a second or two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from training.purifier_recipe import PurifierRecipe

SUPERVISED = """
name = "tiny-features"
summary = "tiny"
architecture = "vgg16_conv3_3"
arguments = { width = 0.0625 }
epochs = 3
side = 24
crop_start = 16
crop = 16
short_side = 18
batch = 4
learning_rate = 1e-3
precision = "float32"
save_every = 2

[labels]
one = "first"
"""

PURIFIER = """
name = "tiny-purifier"
summary = "tiny"
architecture = "nrp_lite"
feature_network = "tiny-features"
steps = 6
side = 24
crop = 16
batch = 4
learning_rate = 1e-3
precision = "float32"
save_every = 2
default_mode = "noise"
prediction_weight = 0.05

[arguments]
widths = [8, 8]
encoder = [1, 1]
decoder = [1]

[modes]
noise = { noise_std = 0.2, draws = 2 }

[adversaries]
count = 16
kinds = ["ssp", "prediction"]
eps = [4.0, 8.0]
side = 24
iterations = 2
batch = 4
"""


def tiny_recipe(**changes: Any) -> PurifierRecipe:
    facts: dict[str, Any] = {
        "name": "tiny",
        "summary": "tiny",
        "architecture": "nrp_lite",
        "feature_network": "tiny-features",
        "steps": 1,
        "learning_rate": 1e-3,
    }
    return PurifierRecipe(**(facts | changes))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two folders of six smooth photos, one brighter than the other."""
    for offset, folder in ((0, "one"), (120, "two")):
        (tmp_path / "photos" / folder).mkdir(parents=True)
        for number in range(6):
            ramp = np.linspace(offset, offset + 20 * number, 40)
            pixels = np.broadcast_to(ramp[None, :, None], (30 + number, 40, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "photos" / folder / f"{number}.png")
    return tmp_path / "photos"


@pytest.fixture
def recipes(tmp_path: Path) -> Path:
    """A folder with the two tiny recipes."""
    (tmp_path / "features.toml").write_text(SUPERVISED)
    (tmp_path / "purifier.toml").write_text(PURIFIER)
    return tmp_path
