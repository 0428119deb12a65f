from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Protocol

import pytest
import torch
from torch import Tensor, nn

from model_store.store import ModelStore
from robustness.adversaries import Keep, Threat, craft
from robustness.cache import Cache, Tensors
from robustness.conditions import Conditions
from robustness.defences import BitDepth, Defence, Jpeg, NoDefence
from robustness.evaluation import purifications
from robustness.examples import Examples
from robustness.judgement import Bench
from robustness.progress import Progress
from robustness.results.row import Task
from robustness.suite.recorder import Recorder
from robustness.suite.session import Arena, Session
from robustness.suite.sizes import QUICK
from robustness.surrogates import Surrogate
from robustness.victims.classification import Classifier
from robustness.victims.segmentation import Segmenter

CPU = torch.device("cpu")
TINY = replace(
    QUICK,
    eps=(8,),
    photos=9,
    aware_photos=6,
    aware_eps=(8,),
    aware_steps=2,
    scenes=2,
    scene_eps=(8, 16),
    aware_scenes=2,
    white=("FGSM",),
    transfer=("SSP",),
    ssp_iterations=2,
)


class MakeSession(Protocol):
    """Builds a session of the two tiny victims; keywords change its sizes."""

    def __call__(self, **sizes: object) -> Session: ...


class Brightness(nn.Module):
    """Logits (N, 2, H, W): dark or bright, from the pixel alone."""

    def forward(self, images: Tensor) -> Tensor:
        level = 20 * (images.mean(1) - 0.5)
        return torch.stack([-level, level], dim=1)


@pytest.fixture
def conditions() -> Conditions:
    return Conditions(0, 6, CPU)


@pytest.fixture
def recorder(tmp_path: Path, conditions: Conditions) -> Recorder:
    return Recorder("quick", tmp_path / "rows", "nrp evaluate --suite quick", conditions, {"torch": "2"})


@pytest.fixture
def photos(examples: Examples, victims: tuple[Classifier, ...], conditions: Conditions, tmp_path: Path) -> Arena:
    """Nine photos and both classifiers."""
    bench = Bench(examples.first(9), conditions, Cache(tmp_path / "cache"), Progress(quiet=True))
    return Arena("classification", bench, victims)


@pytest.fixture
def scenes(conditions: Conditions, tmp_path: Path) -> Arena:
    """Three scenes whose left half is dark and whose right half is bright, with noise."""
    level = torch.full((3, 3, 16, 16), 0.44)
    level[..., 8:] = 0.56
    noise = 0.02 * torch.randn(level.shape, generator=torch.Generator().manual_seed(3))
    mask = torch.zeros(3, 16, 16, dtype=torch.int64)
    mask[..., 8:] = 1
    examples = Examples(((level + noise) * 255).to(torch.uint8), {"mask": mask}, ("0", "1", "2"))
    bench = Bench(examples, conditions, Cache(tmp_path / "cache"), Progress(quiet=True))
    return Arena(
        "segmentation", bench, (Segmenter("by-brightness", "1" * 64, Brightness(), ("dark", "bright"), (16, 16)),)
    )


@pytest.fixture
def make_session(
    store: ModelStore, photos: Arena, scenes: Arena, surrogate: Surrogate, recorder: Recorder
) -> MakeSession:
    def make(**sizes: object) -> Session:
        arenas: dict[Task, Arena] = {"classification": photos, "segmentation": scenes}
        defences: tuple[Defence, ...] = (NoDefence(), Jpeg(20), BitDepth(4))
        purified = purifications(store.load("noisy"), ("default", "static"), CPU)
        return Session(replace(TINY, **sizes), store, arenas, defences, purified, surrogate, recorder)  # type: ignore[arg-type]

    return make


@pytest.fixture
def session(make_session: MakeSession) -> Session:
    return make_session()


@pytest.fixture
def attacks_run(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The attacks that were really made, in order, each with the number of its images."""
    made: list[tuple[str, int]] = []

    def counted(threat: Threat, examples: Examples, conditions: Conditions, progress: Progress, keep: Keep) -> Tensors:
        made.append((threat.attack.name, len(examples)))
        return craft(threat, examples, conditions, progress, keep)

    monkeypatch.setattr("robustness.judgement.craft", counted)
    return made
