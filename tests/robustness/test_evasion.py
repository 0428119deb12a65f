from __future__ import annotations

import pytest
import torch

from model_store.inference import InferenceMode, PurifierDraws
from model_store.pixels import to_float
from robustness.attacks.pgd import PGD
from robustness.defences import Purification
from robustness.evasion import ENOUGH, Hiding, evading
from robustness.judgement import Bench, attacked
from robustness.suspicion import sightings
from robustness.victims.classification import Classifier


class Darker(torch.nn.Module):
    """Darkens what is bright, so that brighter images move farther."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images - 0.3 * images.square()


@pytest.fixture
def purification() -> Purification:
    mode = InferenceMode(noise_std=0.02, draws=2)
    return Purification("noisy", mode, "0" * 64, PurifierDraws(Darker(), mode), "darker")


def hiding(weight: float, aim: str = "both answers") -> Hiding:
    return Hiding(weight, aim, residual_rms=5.0, prediction_shift=0.05)  # type: ignore[arg-type]


def test_the_more_the_report_weighs_the_less_it_sees(
    bench: Bench, victims: tuple[Classifier, ...], purification: Purification
) -> None:
    found = []
    for weight in (0.0, 50.0):
        threat = evading(PGD(16, iterations=8), purification, victims[0], hiding(weight))
        trial = attacked(bench, threat, victims[:1])
        assert not bool(trial.broken.any())
        (sighting,) = sightings(bench, trial, purification)
        found.append(sighting)
    bold, shy = found
    assert float(shy.residual_rms.mean()) < float(bold.residual_rms.mean())
    assert int(bold.original.sum()) < int(shy.original.sum())


def test_fooling_counts_no_further_than_enough(
    bench: Bench, victims: tuple[Classifier, ...], purification: Purification
) -> None:
    images, truths = to_float(bench.examples.pixels), {"labels": (bench.examples.truths["labels"] + 1) % 3}
    for aim, most in (("both answers", 2 * ENOUGH), ("original", ENOUGH)):
        threat = evading(PGD(8), purification, victims[0], hiding(0.0, aim))
        loss = threat.learn(truths, torch.Generator().manual_seed(0)).loss
        assert loss is not None
        values = loss(images)
        assert values.shape == (len(images),)
        assert float(values.max()) <= most
        assert f"hiding x0, {aim}" in threat.attack.name


def test_attempts_that_hide_differently_are_not_taken_for_each_other(
    victims: tuple[Classifier, ...], purification: Purification
) -> None:
    several = (hiding(1.0), hiding(2.0), hiding(1.0, "original"), Hiding(1.0, "both answers", 6.0, 0.05))
    identities = {evading(PGD(8), purification, victims[0], each).identity for each in several}
    assert len(identities) == 4
