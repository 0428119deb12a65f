"""What is attacked and judged is what the service runs."""

from __future__ import annotations

import io

import pytest
import torch
from PIL import Image
from skimage.data import astronaut
from torch import Tensor, nn

from model_store.inference import InferenceMode, PurifierDraws
from model_store.pixels import image_to_bytes, to_bytes, to_float
from robustness.aware.defended import FLOAT32, Arithmetic, Mode
from tests.robustness.aware.conftest import MakeDefended, Wavy

MODES = (
    Mode(),
    Mode(jpeg=30),
    Mode(noise_std=0.06, draws=2, jpeg=20),
    Mode(noise_std=0.05, draws=3, ball=16.0),
)


@pytest.mark.parametrize("mode", MODES, ids=repr)
@pytest.mark.parametrize("chunk", [64, 1, 4])
def test_its_draws_are_those_of_the_service(
    mode: Mode, chunk: int, images: Tensor, make_defended: MakeDefended
) -> None:
    defended, seeds = make_defended(mode, Wavy()), [11, 12, 13, 14, 15, 16]
    inference = InferenceMode(noise_std=mode.noise_std, draws=mode.draws, ball=mode.ball, jpeg=mode.jpeg)
    versions = PurifierDraws(Wavy(), inference).draws(images, seeds)
    expected = defended.classifier(versions.flatten(0, 1)).log_softmax(dim=1).view(6, mode.draws, 3).detach()
    torch.testing.assert_close(defended.draws(images, seeds, FLOAT32, chunk), expected)


@pytest.mark.parametrize("quality", [20, 50, 75])
def test_its_jpeg_is_libjpegs_up_to_rare_roundings(quality: int, make_defended: MakeDefended) -> None:
    """The service runs ``model_store.jpeg``; its own test holds it closer, here is the whole step with 8 bits."""
    pixels = torch.from_numpy(astronaut()[:128, 100:228].copy()).permute(2, 0, 1)
    file = io.BytesIO()
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=quality)
    libjpeg = image_to_bytes(Image.open(file)).int()
    found = to_bytes(make_defended(Mode(jpeg=quality)).prepared(to_float(pixels).unsqueeze(0)))[0].int()
    assert (found - libjpeg).abs().float().mean() < 0.7
    assert (found - libjpeg).abs().float().quantile(0.99) <= 8


def test_each_network_computes_in_its_own_precision(images: Tensor, make_defended: MakeDefended) -> None:
    seen = []

    class Seen(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            seen.append((torch.is_autocast_enabled("cpu"), images.dtype))
            return images

    defended = make_defended(Mode(), Seen())
    for purifier in ("float32", "bfloat16"):
        logits = defended.draws(images, range(6), Arithmetic(purifier=purifier), 64)  # type: ignore[arg-type]
        assert logits.dtype == torch.float32
    assert seen == [(False, torch.float32), (True, torch.float32)]
