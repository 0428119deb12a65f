from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from skimage import data
from torch import Tensor

from model_store.pixels import image_to_bytes
from robustness.errors import EvaluationError
from robustness.results.grids import (
    BOXES,
    CAMVID,
    VOID,
    Panel,
    box_legend,
    grid,
    mask_legend,
    paint_boxes,
    paint_mask,
    perturbation,
    write_grid,
)

CLASSES = ("sky", "building", "pole")


@pytest.fixture
def cat() -> Tensor:
    """A photo uint8 (3, 40, 60)."""
    return image_to_bytes(Image.fromarray(data.chelsea()).resize((60, 40)))


def flat(colour: tuple[int, int, int], height: int = 20, width: int = 30) -> Tensor:
    return torch.tensor(colour, dtype=torch.uint8).view(3, 1, 1).expand(3, height, width)


def count(picture: Image.Image, colour: tuple[int, int, int]) -> int:
    """How many pixels have exactly this colour."""
    return int((image_to_bytes(picture) == torch.tensor(colour).view(3, 1, 1)).all(0).sum())


def pixel(image: Tensor, y: int, x: int) -> tuple[int, ...]:
    return tuple(image[:, y, x].tolist())


def test_every_panel_is_in_the_grid_at_its_size(cat: Tensor) -> None:
    red, blue = Panel(flat((255, 0, 0))), Panel(flat((0, 0, 255)))
    picture = grid([[red, blue], [None, red]], height=40)
    assert count(picture, (255, 0, 0)) == 2 * 40 * 60
    assert count(picture, (0, 0, 255)) == 40 * 60
    whole = image_to_bytes(grid([[Panel(cat)]], height=40))
    assert any(
        torch.equal(whole[:, top : top + 40, left : left + 60], cat)
        for top in range(whole.shape[1] - 39)
        for left in range(whole.shape[2] - 59)
    )


def test_titles_captions_and_legend_take_room_and_ink() -> None:
    panel = Panel(flat((255, 0, 0)))
    bare = grid([[panel, panel]], height=60)
    described = Panel(panel.image, "church 98 %", "wrong")
    full = grid(
        [[described, described]],
        row_titles=["SSP"],
        column_titles=["clean", "attacked"],
        legend=mask_legend(CLASSES),
        height=60,
    )
    assert full.width > bare.width
    assert full.height > bare.height + 40
    assert count(bare, (34, 34, 34)) == 0
    assert count(full, (34, 34, 34)) > 20
    assert count(full, (190, 60, 0)) > 10
    assert count(full, CAMVID[1]) > 100


def test_a_long_caption_stays_under_its_panel() -> None:
    long = Panel(flat((255, 255, 255)), "word " * 60 + "w" * 90, "wrong")
    ink = image_to_bytes(grid([[long, Panel(flat((255, 255, 255)))]], height=60))
    assert (ink[:, :, : 10 + 90] < 200).any()
    assert (ink[:, :, 10 + 90 :] > 200).all()


@pytest.mark.parametrize(
    ("rows", "titles", "text"),
    [
        ([], {}, "rows of one length"),
        ([[None, None]], {}, "needs panels"),
        ([[Panel(flat(VOID))], []], {}, "rows of one length"),
        ([[Panel(flat(VOID))]], {"row_titles": ["a", "b"]}, "2 row titles for 1 rows"),
        ([[Panel(flat(VOID))]], {"column_titles": ["a", "b"]}, "2 column titles for 1 columns"),
    ],
)
def test_a_crooked_grid_is_refused(rows: list[list[Panel | None]], titles: dict[str, list[str]], text: str) -> None:
    with pytest.raises(EvaluationError, match=text):
        grid(rows, row_titles=titles.get("row_titles", ()), column_titles=titles.get("column_titles", ()))


def test_a_perturbation_is_shown_around_grey_and_says_how_large() -> None:
    panel = perturbation(flat((104, 100, 0)), flat((100, 104, 0)), factor=8)
    assert pixel(panel.image, 0, 0) == (160, 96, 128)
    assert panel.caption == "difference x 8"


def test_a_mask_has_the_legends_colours_and_void_is_black() -> None:
    mask = torch.tensor([[0, 1, 2, 3]]).expand(2, 4)
    found = paint_mask(flat((255, 255, 255), 2, 4), mask, CLASSES, opacity=1.0)
    colours = [colour for _, colour in mask_legend(CLASSES)]
    assert [name for name, _ in mask_legend(CLASSES)] == [*CLASSES, "void"]
    assert [pixel(found, 1, x) for x in range(4)] == colours
    assert colours == [*CAMVID[:3], VOID]


def test_the_photo_shines_through_a_mask() -> None:
    mask = torch.zeros(2, 2, dtype=torch.uint8)
    assert pixel(paint_mask(flat((28, 228, 128), 2, 2), mask, CLASSES, opacity=0.5), 0, 0) == (78, 178, 128)


def test_many_classes_have_many_colours() -> None:
    names = [str(number) for number in range(30)]
    assert len({colour for _, colour in mask_legend(names)}) == 31
    assert len({colour for _, colour in box_legend(names)}) == 30


def test_a_mask_of_another_size_is_refused(cat: Tensor) -> None:
    with pytest.raises(EvaluationError, match="does not fit"):
        paint_mask(cat, torch.zeros(4, 4, dtype=torch.long), CLASSES)


def test_boxes_are_drawn_where_they_are_and_scores_decide_which() -> None:
    boxes = torch.tensor([[4.0, 6, 24, 16], [2, 2, 8, 8], [1, 1, 28, 18]])
    found = paint_boxes(flat(VOID), boxes, torch.tensor([1, 0, -1]), torch.tensor([0.9, 0.4, 0.9]))
    assert pixel(found, 6, 14) == BOXES[1]
    assert pixel(found, 10, 14) == VOID
    assert pixel(found, 10, 4) == BOXES[1]
    assert not (found == torch.tensor(BOXES[0]).view(3, 1, 1)).all(0).any()
    assert pixel(found, 1, 14) == VOID


def test_boxes_follow_the_image_to_another_height() -> None:
    found = paint_boxes(flat(VOID), torch.tensor([[4.0, 6, 24, 16]]), torch.tensor([0]), height=80)
    assert found.shape == (3, 80, 120)
    assert pixel(found, 24, 60) == BOXES[0]


def test_classes_are_written_at_their_boxes_if_given() -> None:
    box, label = torch.tensor([[4.0, 30, 90, 70]]), torch.tensor([0])
    plain, named = (paint_boxes(flat(VOID, 80, 100), box, label, classes=names) for names in ((), ("RBC",)))
    assert (named[:, :28] != 0).any()
    assert (plain[:, :28] == 0).all()


def test_no_box_leaves_the_image_alone(cat: Tensor) -> None:
    none = paint_boxes(cat, torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), torch.zeros(0))
    assert torch.equal(none, cat)


def test_a_grid_is_written_whole_or_not_at_all(cat: Tensor, tmp_path: Path) -> None:
    picture = grid([[Panel(cat)]])
    path = write_grid(picture, tmp_path / "deep" / "grid.png")
    with Image.open(path) as back:
        assert torch.equal(image_to_bytes(back), image_to_bytes(picture))
    assert [file.name for file in path.parent.iterdir()] == ["grid.png"]
    with pytest.raises(EvaluationError, match="cannot be written"):
        write_grid(picture, path / "grid.png")
