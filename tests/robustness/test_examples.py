from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from robustness.examples import Examples, part_of


@pytest.fixture
def scenes() -> Examples:
    pixels = torch.arange(5 * 3 * 2 * 2, dtype=torch.uint8).view(5, 3, 2, 2)
    truths = {"boxes": torch.arange(5 * 2 * 4.0).view(5, 2, 4), "labels": torch.arange(10).view(5, 2)}
    return Examples(pixels, truths, ("a", "b", "c", "d", "e"))


def test_a_part_keeps_pixels_truths_and_names_together(scenes: Examples) -> None:
    part = scenes.part(slice(1, 3))
    assert len(part) == 2
    assert part.names == ("b", "c")
    assert torch.equal(part.pixels, scenes.pixels[1:3])
    assert part.truths["labels"].tolist() == [[2, 3], [4, 5]]
    assert torch.equal(part.truths["boxes"], scenes.truths["boxes"][1:3])
    assert part_of(scenes.truths, slice(4, 9))["labels"].tolist() == [[8, 9]]


def test_the_first_are_all_where_there_are_fewer(scenes: Examples) -> None:
    assert scenes.first(2).names == ("a", "b")
    assert scenes.first(99).digest == scenes.digest


def test_picked_examples_are_in_the_order_asked_for(scenes: Examples) -> None:
    picked = scenes.pick(torch.tensor([4, 0, 2]))
    assert picked.names == ("e", "a", "c")
    assert torch.equal(picked.pixels, scenes.pixels[[4, 0, 2]])
    assert picked.truths["labels"][:, 0].tolist() == [8, 0, 4]
    assert len(scenes.pick(torch.tensor([], dtype=torch.int64))) == 0


@pytest.mark.parametrize("what", ["pixels", "truths", "key", "names", "order"])
def test_the_digest_depends_on_everything(scenes: Examples, what: str) -> None:
    pixels, truths = scenes.pixels.clone(), dict(scenes.truths)
    pixels[4, 2, 1, 1] += 1
    other = {
        "pixels": replace(scenes, pixels=pixels),
        "truths": replace(scenes, truths={**truths, "labels": truths["labels"] + 1}),
        "key": replace(scenes, truths={"boxes": truths["boxes"], "classes": truths["labels"]}),
        "names": replace(scenes, names=("a", "b", "c", "d", "f")),
        "order": scenes.pick(torch.tensor([1, 0, 2, 3, 4])),
    }[what]
    assert other.digest != scenes.digest


def test_the_digest_does_not_depend_on_the_memory_layout(scenes: Examples) -> None:
    turned = replace(scenes, pixels=scenes.pixels.contiguous(memory_format=torch.channels_last))
    assert turned.digest == scenes.digest
