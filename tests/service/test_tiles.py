from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from model_store.architectures import build
from service.tiles import Tiling, add_in_tiles

LITE = {"widths": (8, 8, 8), "encoder": (1, 1, 1), "decoder": (1, 1)}


def network(name: str, arguments: dict[str, Any]) -> Any:
    """Random weights that let every convolution show in the output."""
    torch.manual_seed(1)
    module = build(name, arguments).eval()
    for parameter in module.parameters():
        if parameter.ndim == 4:
            nn.init.kaiming_normal_(parameter, nonlinearity="relu")
    return module


def tiled(module: Any, image: Tensor, pixels: int) -> Tensor:
    tiling = Tiling.of(image.shape[-2], image.shape[-1], module, pixels)
    assert len(tiling.rows) * len(tiling.columns) > 1
    out = torch.zeros_like(image)
    with torch.inference_mode():
        assert add_in_tiles(tiling, lambda top, bottom: image[:, top:bottom], module, out, lambda: False)
    return out


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("nrp_lite", LITE),
        ("nrp_resg", {"blocks": 3, "features": 8}),
        ("nrp", {"blocks": 1, "features": 8, "growth": 4}),
    ],
)
def test_tiles_give_what_the_whole_image_gives(name: str, arguments: dict[str, Any]) -> None:
    module = network(name, arguments)
    image = torch.rand(3, 250, 411, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        whole = module(image.unsqueeze(0))[0].clamp(0, 1)
    assert (tiled(module, image, 1) - whole).abs().max() < 1e-4


def test_without_its_reach_a_network_shows_the_seams() -> None:
    module = network("nrp_lite", LITE)
    image = torch.rand(3, 250, 411, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        whole = module(image.unsqueeze(0))[0].clamp(0, 1)
    module.reach = 0
    assert (tiled(module, image, 1) - whole).abs().max() > 1 / 255


@pytest.mark.parametrize(("height", "width"), [(1, 5000), (5000, 1), (333, 4001), (900, 900), (160, 160), (321, 322)])
def test_weights_add_up_to_one_everywhere(height: int, width: int) -> None:
    module = nn.Identity()
    for pixels, (reach, multiple) in itertools.product((1, 10**5, 10**6), ((0, 1), (44, 16), (64, 12))):
        module.reach, module.multiple = reach, multiple
        tiling = Tiling.of(height, width, module, pixels)
        assert tiling.largest <= max(pixels, (2 * tiling.overlap) ** 2)
        for spans, length in ((tiling.rows, height), (tiling.columns, width)):
            total = torch.zeros(length)
            for index, (first, last) in enumerate(spans):
                assert first % multiple == 0
                weights = tiling.weights(spans, index)
                assert weights.min() >= 0
                assert index == 0 or weights[:reach].sum() == 0
                total[first:last] += weights
            torch.testing.assert_close(total, torch.ones(length))
            assert all(later[0] >= earlier[1] for earlier, later in zip(spans, spans[2:], strict=False))


def test_a_value_that_is_not_finite_is_told() -> None:
    module = build("identity")
    image = torch.rand(3, 200, 200)
    image[0, 150, 150] = torch.nan
    tiling = Tiling.of(200, 200, module, 1)
    assert not add_in_tiles(tiling, lambda a, b: image[:, a:b], module, torch.zeros_like(image), lambda: False)


def test_tiles_are_not_computed_for_nobody() -> None:
    seen: list[int] = []

    def count(tile: Tensor) -> Tensor:
        seen.append(1)
        return tile

    image = torch.rand(3, 300, 300)
    tiling = Tiling.of(300, 300, build("identity"), 1)
    add_in_tiles(tiling, lambda a, b: image[:, a:b], count, torch.zeros_like(image), lambda: len(seen) == 2)
    assert len(seen) == 2
