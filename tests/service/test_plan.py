from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from service.errors import CommandInputError
from service.plan import find_images, make_plan


@pytest.fixture
def tree(tmp_path: Path) -> Any:
    """Some files; what they hold does not matter to a plan."""
    for name in ("in/a.jpg", "in/sub/b.PNG", "in/sub/c.gif", "in/notes.txt", "in/.hidden.txt", "alone", "other/a.jpg"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path


def test_names_folders_and_formats_are_kept(tree: Path) -> None:
    plan = {
        e.target.relative_to(tree).as_posix(): e.image_format
        for e in make_plan([tree / "in"], tree / "out", force_png=False)
    }
    assert plan == {"out/a.jpg": "JPEG", "out/sub/b.PNG": "PNG", "out/sub/c.png": "PNG"}


def test_png_can_be_forced(tree: Path) -> None:
    plan = make_plan([tree / "in", tree / "alone"], tree / "out", force_png=True)
    assert sorted(e.target.name for e in plan) == ["a.png", "alone.png", "b.png", "c.png"]
    assert {e.image_format for e in plan} == {"PNG"}


def test_two_inputs_for_one_output_are_refused_before_anything_is_done(tree: Path) -> None:
    with pytest.raises(CommandInputError, match=r"both become .*a\.jpg"):
        make_plan([tree / "in", tree / "other"], tree / "out", force_png=False)
    (tree / "in" / "a.gif").write_bytes(b"x")
    with pytest.raises(CommandInputError, match=r"both become .*a\.png"):
        make_plan([tree / "in"], tree / "out", force_png=True)


def test_an_input_is_never_overwritten(tree: Path) -> None:
    with pytest.raises(CommandInputError, match="overwritten"):
        make_plan([tree / "in"], tree / "in", force_png=False)
    with pytest.raises(CommandInputError, match="overwritten"):
        make_plan([tree / "in" / "a.jpg"], tree / "in" / "sub" / "..", force_png=False)


def test_the_outputs_of_an_earlier_run_are_no_inputs(tree: Path) -> None:
    output = tree / "in" / "out"
    output.mkdir()
    (output / "a.jpg").write_bytes(b"x")
    assert len(make_plan([tree / "in"], output, force_png=False)) == 3


def test_a_file_named_twice_is_done_once(tree: Path) -> None:
    assert len(find_images([tree / "in", tree / "in" / "a.jpg", tree / "in"])) == 3


def test_what_is_not_there_is_named(tree: Path) -> None:
    with pytest.raises(CommandInputError, match=r"nowhere does not exist"):
        find_images([tree / "nowhere"])
    (tree / "empty").mkdir()
    with pytest.raises(CommandInputError, match="no image found"):
        find_images([tree / "empty"])
