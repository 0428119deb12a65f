"""Photos to be sent together."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from PIL import Image


@pytest.fixture
def photos(photo: Callable[..., Image.Image], file_of: Callable[..., bytes]) -> Callable[..., list[tuple[str, bytes]]]:
    """Files of different photos of one size, ``0.png`` and so on."""

    def make(count: int, width: int = 24, height: int = 16) -> list[tuple[str, bytes]]:
        return [(f"{number}.png", file_of(photo(width, height, number))) for number in range(count)]

    return make
