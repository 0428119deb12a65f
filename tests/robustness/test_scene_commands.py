"""`nrp evaluate segmenter`: clean figures of a victim that is no classifier."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
from PIL import Image

from model_store.architectures import build
from model_store.card import Card
from model_store.store import ModelStore
from robustness.commands import configure_evaluate, run_evaluate
from robustness.datasets.camvid import CLASSES
from robustness.errors import VictimError


@pytest.fixture
def roads(store: ModelStore, tmp_path: Path) -> Path:
    """Three scenes, all of class 3, in CamVid's layout, and an untrained segmenter in the store."""
    for folder, image in (("images", Image.new("RGB", (24, 16), "grey")), ("labels", Image.new("L", (24, 16), 3))):
        (tmp_path / "roads" / "test" / folder).mkdir(parents=True)
        for name in "abc":
            image.save(tmp_path / "roads" / "test" / folder / f"{name}.png")
    shape = {"classes": len(CLASSES), "width": 4}
    card = Card(name="roads", summary="s", task="segmenter", architecture="segnet_basic", arguments=shape)
    card = card.model_copy(update={"labels": CLASSES, "recipe": {"size": [16, 24]}})
    store.publish(card, build("segnet_basic", shape))
    return tmp_path / "roads"


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    configure_evaluate(parser)
    return run_evaluate(parser.parse_args(words))


def test_a_segmenters_clean_figure_goes_into_its_card(
    roads: Path, store: ModelStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = ["--data", str(roads), "--store", str(store.root), "--device", "cpu", "--output", str(tmp_path / "out")]
    assert run("segmenter", "roads", *places, "--limit", "2", "--write-card", "--json") == 0
    (figure,) = store.card("roads").figures
    assert (figure.name, figure.unit, figure.count) == ("pixel accuracy, clean, undefended, roads", "%", 2)
    assert figure.command == "nrp evaluate segmenter roads --data roads --limit 2"
    assert 0 <= figure.value <= 100
    shown = json.loads(capsys.readouterr().out)
    assert shown["value"] == figure.value
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text()) == shown


def test_a_model_is_measured_as_what_it_is(roads: Path, store: ModelStore) -> None:
    with pytest.raises(VictimError, match="victim-a is a classifier, not a segmenter"):
        run("segmenter", "victim-a", "--data", str(roads), "--store", str(store.root), "--device", "cpu")
