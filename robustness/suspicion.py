"""Suspicion observed: how far a purifier moves images, and what classifiers say of each before and after."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model_store.calibration import Scale
from model_store.pixels import fit, image_to_bytes, to_bytes
from model_store.suspicion import jensen_shannon_bits, residual
from robustness.cache import Tensors
from robustness.datasets.photos import PhotoFile, open_photo
from robustness.defences import Purification
from robustness.judgement import Bench, Trial
from robustness.observations import Scenario
from robustness.seeds import derive_seed
from robustness.victims.classification import Classifier

# Photos as files come: nothing is brought to the classifier's size before it is purified, as in the service.
AS_FILES = Scenario("clean, files as they are", 0, "none")


@dataclass(frozen=True)
class Sighting:
    """What one victim and the purifier make of N images: ``residual_rms`` in levels of 255 and ``prediction_shift``
    in bits, both (N,) float64, and whether the victim is right of the image as it came (``original``) and as it was
    purified (``purified``), both (N,) bool."""

    scenario: Scenario
    victim: str
    residual_rms: Tensor
    prediction_shift: Tensor
    original: Tensor
    purified: Tensor

    def __len__(self) -> int:
        return len(self.residual_rms)

    def first(self, count: int) -> Sighting:
        """That of the first ``count`` images."""
        kept = (part[:count] for part in (self.residual_rms, self.prediction_shift, self.original, self.purified))
        return Sighting(self.scenario, self.victim, *kept)

    def scores(self, scale: Scale) -> Tensor:
        """Calibrated scores (N,) float64; of the residual alone where that is all that ``scale`` has."""
        shifts = [None] * len(self) if scale.prediction_shift is None else self.prediction_shift.tolist()
        pairs = zip(self.residual_rms.tolist(), shifts, strict=True)
        return torch.tensor([scale.score(rms, shift) for rms, shift in pairs], dtype=torch.float64)


def sightings(bench: Bench, trial: Trial, purification: Purification) -> list[Sighting]:
    """One for each victim of the trial, all classifiers; kept in the cache."""
    bench.progress.begin(f"{purification.name} watched, {trial.title}")
    conditions, pixels = bench.conditions, trial.examples.pixels
    victims = tuple(victim for victim in trial.victims if isinstance(victim, Classifier))

    def make() -> Tensors:
        chunk, found = max(1, conditions.batch // purification.draw_count), []
        with bench.progress.bar(len(pixels)) as bar:
            for start in range(0, len(pixels), chunk):
                images = conditions.floats(pixels[start : start + chunk])
                found.append(_seen(bench, purification, victims, images, start, lambda versions, _: versions))
                bar.update(len(images))
        return {key: torch.cat([part[key] for part in found]) for key in found[0]}

    label = f"sighting {trial.scenario.attack} eps{trial.scenario.eps} {purification.name}"
    found = bench.cache.recall(label, _fingerprint(bench, dict(trial.fingerprint), victims, purification), make)
    return _read(found, trial.scenario, victims, trial.examples.truths["labels"])


def file_sightings(
    bench: Bench, files: Sequence[PhotoFile], victims: Sequence[Classifier], purification: Purification
) -> list[Sighting]:
    """The same of photo files at their own sizes: purified first, brought to the classifier's size then."""
    bench.progress.begin(f"{purification.name} watched, {AS_FILES.attack}")

    def make() -> Tensors:
        found = []
        with bench.progress.bar(len(files)) as bar:
            for place, file in enumerate(files):
                images = bench.conditions.floats(image_to_bytes(open_photo(file.path)).unsqueeze(0))
                found.append(_seen(bench, purification, victims, images, place, _fitted))
                bar.update(1)
        return {key: torch.cat([part[key] for part in found]) for key in found[0]}

    made_from: dict[str, object] = {"files": [file.name for file in files]}
    found = bench.cache.recall(
        f"sighting files {purification.name}", _fingerprint(bench, made_from, victims, purification), make
    )
    return _read(found, AS_FILES, victims, torch.tensor([file.label for file in files]))


@torch.inference_mode()
def _seen(
    bench: Bench,
    purification: Purification,
    victims: Sequence[Classifier],
    images: Tensor,
    start: int,
    prepare: Callable[[Tensor, Classifier], Tensor],
) -> Tensors:
    """Residuals and log-probabilities of images (N, 3, H, W), the first of which is number ``start`` of its set."""
    conditions = bench.conditions
    # The attacker draws from seeds of another purpose, so it cannot know these.
    seeds = [derive_seed(conditions.seed, "defence", start + place) for place in range(len(images))]
    with conditions.autocast():
        versions = purification.draws(images, seeds).float()
        said = {}
        for place, victim in enumerate(victims):
            said[f"{place}.before"] = victim.log_probabilities(prepare(images.unsqueeze(1), victim)).double().cpu()
            said[f"{place}.after"] = victim.log_probabilities(prepare(versions, victim)).double().cpu()
    before, after = to_bytes(images).cpu(), to_bytes(versions.mean(dim=1)).cpu()
    moved = [residual(*pair)[1] for pair in zip(before, after, strict=True)]
    return {"residual_rms": torch.tensor(moved, dtype=torch.float64), **said}


def _fitted(versions: Tensor, victim: Classifier) -> Tensor:
    """Versions (N, D, 3, H, W) at the size that ``victim`` takes."""
    fitted = fit(versions.flatten(0, 1), victim.convention)
    return fitted.view(*versions.shape[:2], *fitted.shape[1:])


def _fingerprint(
    bench: Bench, made_from: dict[str, object], victims: Sequence[Classifier], purification: Purification
) -> dict[str, object]:
    conditions = bench.conditions
    return {
        "trial": made_from,
        "defence": repr(purification),
        "victims": [victim.identity for victim in victims],
        "seed": conditions.seed,
        "precision": conditions.precision,
        "device": conditions.device.type,
    }


def _read(found: Tensors, scenario: Scenario, victims: Sequence[Classifier], labels: Tensor) -> list[Sighting]:
    sighted = []
    for place, victim in enumerate(victims):
        before, after = found[f"{place}.before"], found[f"{place}.after"]
        shift = jensen_shannon_bits(before.exp(), after.exp())
        right = (said.argmax(dim=1) == labels for said in (before, after))
        sighted.append(Sighting(scenario, victim.name, found["residual_rms"], shift, *right))
    return sighted
