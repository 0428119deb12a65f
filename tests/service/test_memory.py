"""What a large image takes, decoding and encoding included, measured on a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

import nrp
from model_store.architectures import build
from model_store.card import Card, Inference
from model_store.inference import InferenceMode
from model_store.store import SHIPPED, ModelStore

GIBI = 1 << 30
WIDTH, HEIGHT = 6000, 4000
# In KiB, the last line of what is printed. ru_maxrss would do, but it starts from what the tests' own process holds.
MEASURED = """
import sys
from pathlib import Path
import nrp
code = nrp.main(sys.argv[1:])
told = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(int(told["VmHWM"].split()[0]) * 1024)
sys.exit(code)
"""


@pytest.fixture
def little_store(tmp_path: Path) -> Path:
    """A store with a purifier of the shipped one's kind that takes seconds for 24 megapixels."""
    arguments = {"widths": (8, 8), "encoder": (1, 1), "decoder": (1,), "unshuffle": 4}
    module = build("nrp_lite", arguments)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.05)
    inference = Inference(default="all", modes={"all": InferenceMode(noise_std=0.1, draws=2, jpeg=20)})
    card = Card(
        name="nrp-lite", summary="", task="purifier", architecture="nrp_lite", arguments=arguments, inference=inference
    )
    ModelStore(tmp_path / "store").publish(card, module)
    return tmp_path / "store"


def peak_of_purifying(store: Path, folder: Path, *options: str) -> int:
    """Bytes that ``nrp purify`` held at the most on 24 megapixels."""
    source = folder / "large.jpg"
    noise = torch.randint(0, 256, (HEIGHT // 8, WIDTH // 8, 3), dtype=torch.uint8)
    Image.fromarray(noise.numpy()).resize((WIDTH, HEIGHT)).save(source, quality=90)
    command = [sys.executable, "-c", MEASURED, "purify", str(source), "--output", str(folder / "out"), "--seed", "1"]
    command += ["--store", str(store), "--device", "cpu", *options]
    done = subprocess.run(command, cwd=Path(nrp.__file__).parent, capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stderr
    with Image.open(folder / "out" / "large.jpg") as image:
        assert image.size == (WIDTH, HEIGHT)
    return int(done.stdout.split()[-1])


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_24_megapixels_behind_jpeg_and_noise_take_less_than_2_gib(little_store: Path, tmp_path: Path) -> None:
    assert peak_of_purifying(little_store, tmp_path, "--purifier", "nrp-lite") < 2 * GIBI


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_24_megapixels_through_the_shipped_purifier_take_less_than_2_gib(tmp_path: Path) -> None:
    assert peak_of_purifying(SHIPPED, tmp_path, "--samples", "1") < 2 * GIBI
