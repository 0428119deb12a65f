"""A drawn data set in the layout of the NeurIPS 2017 photos, and tiny networks of a thousand classes to judge on it."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from model_store.architectures import build
from model_store.card import Card, InputConvention
from model_store.pixels import bytes_to_image, to_bytes
from model_store.store import ModelStore
from robustness.aware.plan import AwarePlan
from robustness.commands import configure_evaluate, run_evaluate
from robustness.datasets.nips17 import COLUMNS, read_nips17
from robustness.progress import Progress
from robustness.suite.imagenet import assembly, commands
from robustness.suite.imagenet.plan import REHEARSAL, Line, Plan

CONVENTION = InputConvention(short_side=16, crop=16)
NETWORK = {"classes": 1000, "widths": [4, 4], "blocks": 1}
NAMES = ("net-a", "net-b", "net-c")
PHOTOS = 3
TINY = replace(
    REHEARSAL,
    white=(Line("FGSM", (4, 8), seen_eps=(4,)), Line("MI-FGSM", (4,), share=0.5)),
    transfer=("MI-FGSM",),
    ssp_iterations=1,
    fff_iterations=1,
    layers=(("features", ("features.1", "features.3")),),
    layer_iterations=1,
    counts=(1, 2),
    aware=AwarePlan(
        photos=2,
        steps=2,
        eot=2,
        decisions=2,
        few=1,
        eot_curve=(1, 2),
        square_photos=1,
        square_queries=2,
        square_draws=1,
    ),
)


@pytest.fixture
def real_store(store: ModelStore) -> ModelStore:
    """The usual tiny store, and three networks of a thousand classes."""
    for seed, name in enumerate(NAMES):
        card = Card(
            name=name,
            summary="a network",
            task="classifier",
            architecture="resnet_small",
            arguments=NETWORK,
            input=CONVENTION,
            labels=tuple(f"class {number}" for number in range(1000)),
            recipe={"folders": [f"n{number:08d}" for number in range(1000)]},
        )
        torch.manual_seed(seed)
        store.publish(card, build("resnet_small", NETWORK).eval())
    return store


@pytest.fixture
def nips17(real_store: ModelStore, tmp_path: Path) -> Path:
    """Drawn photos whose true class is what the first network says of them, so that there is something to lose."""
    root = tmp_path / "nips17"
    (root / "images").mkdir(parents=True)
    generator = torch.Generator().manual_seed(1)
    for number in range(PHOTOS):
        coarse = torch.rand(1, 3, 6, 6, generator=generator)
        drawn = torch.nn.functional.interpolate(coarse, size=(299, 299), mode="bilinear")[0]
        bytes_to_image(to_bytes(drawn)).save(root / "images" / f"photo{number}.webp", lossless=True)
    write_table(root, [1] * PHOTOS)
    examples = read_nips17(root, CONVENTION, Progress(quiet=True))
    said = real_store.load(NAMES[0]).module(examples.pixels / 255).argmax(1).tolist()
    labels = {name: label + 1 for name, label in zip(examples.names, said, strict=True)}
    write_table(root, [labels[f"photo{number}"] for number in range(PHOTOS)])
    return root


def write_table(root: Path, labels: list[int]) -> None:
    with (root / "images.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        for number, label in enumerate(labels):
            values = (f"photo{number}", label, label % 1000 + 1, "CC BY", f"Author {number}", f"page/{number}")
            table.writerow(dict(zip(COLUMNS, values, strict=True)))


Run = Callable[..., int]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, nips17: Path, real_store: ModelStore, tmp_path: Path) -> Run:
    """`nrp evaluate --suite imagenet` on the drawn photos and the tiny networks, with what more is said."""

    def planned(photos: int | None, aware: int | None, scenes: int | None) -> Plan:
        return TINY.limited(photos or 2, aware, scenes)

    monkeypatch.setattr(assembly, "CONVENTION", CONVENTION)
    monkeypatch.setattr(commands, "plan_for", planned)

    def evaluate(*words: str) -> int:
        parser = argparse.ArgumentParser()
        configure_evaluate(parser)
        usual = ["--suite", "imagenet", "--data", str(nips17), "--store", str(real_store.root), "--device", "cpu"]
        usual += ["--model", "net-a,net-b", "--seen", "net-c", "--purifier", "noisy,plain", "--surrogate", "features"]
        usual += ["--precision", "float32", "--output", str(tmp_path / "out"), "--results", str(tmp_path / "results")]
        return run_evaluate(parser.parse_args([*usual, *words]))

    return evaluate
