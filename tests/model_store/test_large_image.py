from __future__ import annotations

import pytest
import torch
from torch import Tensor

from model_store import large_image, noise_stream
from model_store.inference import PUBLISHED, InferenceMode, compressed, noisy_draws, seeded
from model_store.large_image import LargeImage, compressed_in_strips, mean_levels
from model_store.noise_stream import NoiseStream
from model_store.pixels import to_bytes, to_float

JPEG_THEN_NOISE = InferenceMode(noise_std=0.1, draws=3, jpeg=20)


def photo(height: int, width: int) -> Tensor:
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=seeded(0))


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noise_stream, "PIECE", 64)
    monkeypatch.setattr(large_image, "STRIP_PIXELS", 1000)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize(
    "size", [(16, 16), (7, 13), (40, 9), (1, 6), (3, 7), (1, 1)]
)  # some are no multiple of sixteen values
def test_rows_of_noise_are_those_of_the_whole_draw_in_any_order(size: tuple[int, int]) -> None:
    height, width = size
    generator = seeded(5)
    whole = [torch.randn((3, height, width), generator=generator) for _ in range(3)]
    stream = NoiseStream(seeded(5), height, width)
    for draw in (2, 0, 1):
        for top, bottom in ((height // 2, height), (0, height), (0, 1)):
            assert torch.equal(stream.rows(draw, top, bottom), whole[draw][:, top:bottom])


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("mode", [InferenceMode(), PUBLISHED, JPEG_THEN_NOISE, InferenceMode(jpeg=50)])
def test_rows_are_those_of_the_image_held_whole(mode: InferenceMode) -> None:
    pixels = photo(75, 41)
    wanted = noisy_draws(to_float(pixels), mode, seeded(8))
    large = LargeImage(pixels, mode, 8)
    for draw in range(1 if mode.static else mode.draws):
        rows = torch.cat([large.rows(draw, 0, 30), large.rows(draw, 30, 75)], dim=1)
        assert torch.equal(rows, wanted[draw])


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("size", [(64, 40), (65, 33), (17, 100), (5, 5)])
def test_jpeg_in_strips_is_jpeg_of_the_whole(size: tuple[int, int]) -> None:
    pixels, mode = photo(*size), InferenceMode(jpeg=30)
    assert torch.equal(compressed_in_strips(pixels, mode), to_bytes(compressed(to_float(pixels), mode)))


@pytest.mark.usefixtures("small_pieces")
def test_the_mean_is_rounded_to_the_levels_of_its_type() -> None:
    total = torch.rand(3, 50, 30) * 2
    assert torch.equal(mean_levels(total, 2, torch.uint8), to_bytes(total / 2))
    deep = torch.arange(65_536).view(1, 256, 256).expand(3, -1, -1)
    assert torch.equal(mean_levels(deep / 65_535 * 3, 3, torch.uint16).int(), deep.int())
    assert torch.equal(mean_levels(to_float(deep.to(torch.uint16)), 1, torch.uint16).int(), deep.int())
