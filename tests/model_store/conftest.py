"""An empty store and a small purifier to publish in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from model_store.architectures import build
from model_store.card import Card
from model_store.store import ModelStore

SMALL = {"blocks": 2, "features": 4}


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "store")


@pytest.fixture
def small() -> nn.Module:
    return build("nrp_resg", SMALL)


@pytest.fixture
def make_card() -> Callable[..., Card]:
    def make(name: str = "small", **changes: Any) -> Card:
        facts = {"summary": "a test's", "task": "purifier", "architecture": "nrp_resg", "arguments": SMALL} | changes
        return Card(name=name, **facts)

    return make
