"""docs/operations.md is what an operator reads: it must know every setting and its default."""

from pathlib import Path

import pytest

from model_store.store import SHIPPED
from service.settings import Settings

PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()


@pytest.mark.parametrize("name", list(Settings.model_fields))
def test_every_setting_is_on_the_operations_page_with_its_default(name: str) -> None:
    field = Settings.model_fields[name]
    shown = (
        "the shipped weights" if field.default == SHIPPED else "none" if field.default is None else f"`{field.default}`"
    )
    assert f"| `NRP_{name.upper()}` | {shown} | {field.description} |" in PAGE
