"""A plan on a bare machine: no store, no pydantic; stopped and gone on with; published at home."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from model_store.architectures import build
from model_store.card import Card
from model_store.errors import ModelExistsError
from model_store.store import ModelStore
from training import bare
from training.bare import main
from training.commands import configure_train, run_train
from training.errors import DataError, RecipeError, RunError
from training.finished import LARGEST, read_finished, require_small
from training.place import Place
from training.plan import read_plan

VALIDATED = """
validate_every = 4
held_back = 4
judge = "tiny-judge"
"""
REFUSED = (
    "pydantic",
    "pydantic_core",
    "pydantic_settings",
    "skimage",
    "scipy",
    "sklearn",
    "structlog",
    "fastapi",
    "starlette",
    "uvicorn",
    "prometheus_client",
    "matplotlib",
    "pycocotools",
    "art",
)
BARE = """
import sys
from importlib.machinery import ModuleSpec


class Refusing:
    def find_spec(self, name, path=None, target=None):
        return ModuleSpec(name, self, origin="refused") if name.split(".")[0] in REFUSED else None

    def create_module(self, spec):
        raise ModuleNotFoundError(f"a bare machine has no {spec.name}")

    def exec_module(self, module):
        raise ModuleNotFoundError(module.__name__)


sys.meta_path.insert(0, Refusing())
try:
    import pydantic
except ModuleNotFoundError:
    pass
else:
    sys.exit("pydantic was not refused")
from training.bare import main

sys.exit(main(sys.argv[1:]))
"""


def nrp_train(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    configure_train(parser)
    return run_train(parser.parse_args([str(argument) for argument in arguments]))


@pytest.fixture
def home(recipes: Path, photos: Path) -> Path:
    """A folder with the recipes, a store with a judge, a packed file and the plan of two stages."""
    arguments = {"classes": 2, "widths": [4, 4], "blocks": 1}
    torch.manual_seed(0)
    judge = Card(name="tiny-judge", summary="j", task="classifier", architecture="resnet_small", arguments=arguments)
    ModelStore(recipes / "store").publish(judge, build("resnet_small", arguments))
    text = (recipes / "purifier.toml").read_text()
    (recipes / "purifier.toml").write_text(text.replace("\n[arguments]", f"{VALIDATED}\n[arguments]", 1))
    nrp_train("pack", photos, "--output", recipes / "pack.safetensors", "--side", 24, "--quiet")
    plan(recipes, "features.toml", "purifier.toml")
    return recipes


def plan(home: Path, *names: str) -> int:
    files = [home / name for name in names]
    return nrp_train("plan", *files, "--output", home / "plan" / "plan.json", "--store", home / "store")


def bare_run(home: Path, run: str, *more: object) -> int:
    words = (home / "plan" / "plan.json", "--pack", home / "pack.safetensors", "--run", home / run, "--quiet", *more)
    return main([str(word) for word in words])


def weights(folder: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = load_file(folder / "weights.safetensors")
    return state


def same(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.slow
def test_a_plan_runs_where_nothing_but_torch_is_and_is_published_at_home(home: Path, tmp_path: Path) -> None:
    code = f"REFUSED = {REFUSED!r}\n{BARE}"
    out = tmp_path / "out"
    words = ["plan/plan.json", "--pack", "pack.safetensors", "--run", "run", "--out", str(out), "--minutes", "5"]
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-W", "error", "-c", code, *words], cwd=home, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "finished tiny-purifier" in done.stdout
    store = home / "published"
    assert nrp_train("publish", out / "tiny-features", out / "tiny-purifier", "--store", store) == 0
    features, purifier = (ModelStore(store).load(name) for name in ("tiny-features", "tiny-purifier"))
    assert features.card.task == "feature-network"
    assert features.card.labels == ("first", "two")
    assert features.card.training_data[0].images == 12
    assert purifier.card.inference is not None
    assert purifier.card.inference.default == "noise"
    assert purifier.card.training_cost is not None
    assert purifier.card.training_cost.hardware.startswith("CPU, ")
    assert purifier.card.recipe["chosen_by"]["step"] in (4, 6)
    assert same(weights(store / "tiny-purifier"), weights(out / "tiny-purifier"))
    with pytest.raises(ModelExistsError):
        nrp_train("publish", out / "tiny-purifier", "--store", store)


def test_run_json_tells_what_was_done(home: Path) -> None:
    assert bare_run(home, "run") == 0
    facts: dict[str, Any] = json.loads((home / "run" / "finished" / "tiny-purifier" / "run.json").read_text())
    assert facts["kind"] == "purifier"
    assert facts["recipe"]["judge"] == "tiny-judge"
    assert facts["photos"]["count"] == 12
    assert len(facts["photos"]["fingerprint"]) == 64
    assert facts["steps"] == 6
    assert 0 < facts["seconds"] < 600
    assert facts["torch"] == torch.__version__
    assert [row["step"] for row in facts["validation"]["scores"]] == [4, 6]
    assert facts["validation"]["photos"] == 4
    assert facts["facts"]["adversaries in the bank"] == 8  # twelve, but for the four that are held back
    features = json.loads((home / "run" / "finished" / "tiny-features" / "run.json").read_text())
    assert features["kind"] == "feature-net"
    assert features["steps"] == 9


class Clock:
    """A clock that moves on by a second whenever it is read."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        self.now += 1
        return self.now


@pytest.mark.parametrize("seconds", [8, 14])
def test_stopped_in_time_it_goes_on_to_the_same_bits(home: Path, monkeypatch: pytest.MonkeyPatch, seconds: int) -> None:
    assert bare_run(home, "straight") == 0
    clock = Clock()
    monkeypatch.setattr("training.loop.time", clock)
    monkeypatch.setattr("training.banks.time", clock)
    monkeypatch.setattr("training.bare.time", clock)
    parts = 0
    while not (home / "parts" / "finished" / "tiny-purifier" / "run.json").is_file():
        assert bare_run(home, "parts", "--minutes", seconds / 60) == 0
        parts += 1
        assert parts < 20
    assert parts > 1
    for name in ("tiny-features", "tiny-purifier"):
        assert same(*(weights(home / run / "finished" / name) for run in ("straight", "parts")))


def test_a_finished_plan_has_nothing_left_but_to_be_handed_out(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bare_run(home, "run")

    def refuse(*_: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(bare, "prepare", refuse)
    assert bare_run(home, "run", "--out", home / "out") == 0
    assert same(weights(home / "out" / "tiny-purifier"), weights(home / "run" / "finished" / "tiny-purifier"))
    assert (home / "out" / "tiny-features" / "run.json").is_file()


def test_what_a_stage_builds_on_counts_for_its_run(home: Path) -> None:
    bare_run(home, "run")
    text = (home / "features.toml").read_text()
    (home / "features.toml").write_text(text.replace("learning_rate = 1e-3", "learning_rate = 2e-3"))
    plan(home, "features.toml", "purifier.toml")
    bare_run(home, "other")
    assert not same(*(weights(home / run / "finished" / "tiny-purifier") for run in ("run", "other")))


def test_the_plan_brings_what_no_stage_of_it_trains(home: Path) -> None:
    made = read_plan(home / "plan" / "plan.json")
    assert [(stage.kind, stage.name) for stage in made.stages] == [
        ("feature-net", "tiny-features"),
        ("purifier", "tiny-purifier"),
    ]
    assert list(made.models) == ["tiny-judge"]
    images = torch.rand(2, 3, 16, 16)
    at_home = ModelStore(home / "store").load("tiny-judge").module(images)
    assert torch.allclose(made.models["tiny-judge"].module(images), at_home, atol=1e-2)
    assert made.models["tiny-judge"].identity == ModelStore(home / "store").card("tiny-judge").sha256


def test_a_plan_out_of_order_or_twice_the_same_is_refused(home: Path) -> None:
    with pytest.raises(RecipeError, match="'tiny-features', which is not trained before it"):
        plan(home, "purifier.toml", "features.toml")
    with pytest.raises(RecipeError, match="two stages are called 'tiny-features'"):
        plan(home, "features.toml", "features.toml")
    with pytest.raises(RecipeError, match="'segnet_basic' is none that a plan trains"):
        nrp_train("plan", "segmenter", "--output", home / "plan.json")


def test_a_plan_that_lost_something_is_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = home / "plan" / "plan-models" / "tiny-judge.safetensors"
    data = model.read_bytes()
    model.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert bare_run(home, "run") == 1
    assert "not what the plan was written with" in capsys.readouterr().err
    model.unlink()
    with pytest.raises(RecipeError, match="copy the folder beside the plan"):
        read_plan(home / "plan" / "plan.json")
    (home / "plan" / "plan.json").write_text("{}")
    with pytest.raises(RecipeError, match="no plan"):
        read_plan(home / "plan" / "plan.json")


def test_weights_too_large_to_be_given_back_are_refused_before_training(home: Path) -> None:
    text = (home / "purifier.toml").read_text()
    begin, rest = text.split("[arguments]")
    (home / "purifier.toml").write_text(begin.replace("nrp_lite", "nrp") + rest[rest.index("[modes]") :])
    plan(home, "features.toml", "purifier.toml")
    place = Place(torch.device("cpu"), home / "run", quiet=True)
    order = bare.Order(read_plan(home / "plan" / "plan.json"), home / "none", place)
    with pytest.raises(RunError, match=r"'tiny-purifier' take 31\.\d MiB .* at most 16"):
        bare.run_plan(order)
    fits = torch.nn.Linear(LARGEST // 2 - 1000, 1, bias=False)
    require_small("fits", fits)


def test_a_folder_without_an_outcome_is_not_published(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"weights\.safetensors and run\.json"):
        read_finished(tmp_path)


def test_too_few_photos_are_refused(home: Path, photos: Path) -> None:
    nrp_train("pack", photos, "--output", home / "pack.safetensors", "--side", 24, "--limit", 6, "--quiet")
    place = Place(torch.device("cpu"), home / "run", quiet=True)
    order = bare.Order(read_plan(home / "plan" / "plan.json"), home / "pack.safetensors", place)
    with pytest.raises(DataError, match="6 photos, fewer than the 8"):
        bare.run_plan(order)
