"""Certified accuracy: the certificates of many photos, behind a purifier and without one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model_store.card import Card, Figure
from model_store.certification import ABSTAIN, Certificate, Smoothing, certificate, prediction, sample_counts
from model_store.inference import seeded
from robustness.defences import Defence, Purification, Role
from robustness.judgement import Bench, clean_trial, judge
from robustness.results.cells import grid
from robustness.results.certified import CERTIFIED, METRICS, TABLE
from robustness.results.row import Row
from robustness.scores import Score, accuracy
from robustness.seeds import derive_seed
from robustness.victims.classification import Classifier

SUITE = "certified"


@dataclass(frozen=True)
class Certified:
    """What ``defence`` before ``victim`` has of the same photos.

    ``natural`` is accuracy without noise, ``smoothed`` that of the most frequent answer under noise, ``abstentions``
    the share that has no certificate, ``certified`` the accuracy that is left at each radius.
    """

    defence: str
    role: Role
    victim: str
    natural: Score
    smoothed: Score
    abstentions: Score
    certified: tuple[tuple[float, Score], ...]

    @property
    def scores(self) -> tuple[tuple[str, float | None, Score], ...]:
        """Metric, radius and score, in the order in which they are shown."""
        plain = zip(METRICS, (self.natural, self.smoothed, self.abstentions), strict=True)
        return (*((m, None, score) for m, score in plain), *((CERTIFIED, r, score) for r, score in self.certified))


def measure_certified(
    bench: Bench, victim: Classifier, defence: Defence, smoothing: Smoothing, radii: Sequence[float]
) -> Certified:
    """Certify every photo of the bench; each is kept in the cache, so a killed run goes on where it was."""
    (natural,) = judge(bench, clean_trial(bench, (victim,)), defence)
    labels = bench.examples.truths["labels"]
    chosen, counts = _counts(bench, victim, defence, smoothing)
    found = [certificate(*pair, smoothing.sigma, smoothing.alpha) for pair in zip(chosen, counts, strict=True)]
    answers = torch.tensor([prediction(each, smoothing.alpha) for each in counts])
    return Certified(
        defence=defence.name,
        role=defence.role,
        victim=victim.name,
        natural=natural.score,
        smoothed=accuracy(answers == labels),
        abstentions=accuracy(torch.tensor([each.label == ABSTAIN for each in found])),
        certified=tuple((radius, certified_accuracy(found, labels, radius)) for radius in radii),
    )


def certified_accuracy(found: Sequence[Certificate], labels: Tensor, radius: float) -> Score:
    """The share of photos whose certificate names the right label (N,) and reaches ``radius``."""
    held = [c.label == int(label) and c.radius >= radius for c, label in zip(found, labels, strict=True)]
    return accuracy(torch.tensor(held))


@torch.inference_mode()
def _counts(bench: Bench, victim: Classifier, defence: Defence, smoothing: Smoothing) -> tuple[Tensor, Tensor]:
    """The answers to the noisy copies that choose and to those that bound, each (N, classes)."""
    conditions, examples = bench.conditions, bench.examples

    def classify(noisy: Tensor) -> Tensor:
        images = noisy.contiguous(memory_format=torch.channels_last)
        with conditions.autocast():
            said = victim.answer(defence.draws(images, range(len(images))))
        return said["log_probabilities"].argmax(dim=1)

    bench.progress.begin(f"{defence.name}, noise std {smoothing.sigma:g} on {victim.name}")
    found = []
    with bench.progress.bar(len(examples)) as bar:
        for place in range(len(examples)):
            one = examples.part(slice(place, place + 1))

            def make(pixels: Tensor = one.pixels, place: int = place) -> dict[str, Tensor]:
                generator = seeded(derive_seed(conditions.seed, "certify", place))
                image, classes = conditions.floats(pixels)[0], len(victim.folders)
                rounds = (("chosen", smoothing.n0), ("counts", smoothing.n))
                return {
                    key: sample_counts(classify, image, smoothing, count, classes, generator) for key, count in rounds
                }

            fingerprint = {**_fingerprint(bench, victim, defence, smoothing), "image": one.digest, "place": place}
            label = f"certify sigma{smoothing.sigma:g} {victim.name} {defence.name} {place}"
            found.append(bench.cache.recall(label, fingerprint, make))
            bar.update(1)
    return torch.stack([each["chosen"] for each in found]), torch.stack([each["counts"] for each in found])


def _fingerprint(bench: Bench, victim: Classifier, defence: Defence, smoothing: Smoothing) -> dict[str, object]:
    conditions = bench.conditions
    return {
        "victim": victim.identity,
        "defence": repr(defence),
        "sigma": smoothing.sigma,
        "n0": smoothing.n0,
        "n": smoothing.n,
        "seed": conditions.seed,
        "precision": conditions.precision,
        "device": conditions.device.type,
    }


def certified_rows(found: Certified, smoothing: Smoothing, purification: Purification, shared: Row) -> list[Row]:
    """The page's rows; ``shared`` has what is the same in all of them."""
    settings = {
        "purifier": purification.purifier,
        "sigma": smoothing.sigma,
        "n0": smoothing.n0,
        "n": smoothing.n,
        "alpha": smoothing.alpha,
    }
    weights = {**shared.weights, **({purification.purifier: purification.weights} if found.role != "none" else {})}
    return [
        shared.model_copy(
            update={
                "table": TABLE,
                "series": f"sigma {smoothing.sigma:g}",
                "x": radius,
                "metric": metric,
                "defence": found.defence,
                "role": found.role,
                "percent": round(score.percent, 3),
                "interval": (round(score.interval[0], 3), round(score.interval[1], 3)),
                "count": score.count,
                "settings": settings,
                "weights": weights,
            }
        )
        for metric, radius, score in found.scores
    ]


def certified_figures(found: Iterable[Certified], smoothing: Smoothing, command: str, seed: int) -> tuple[Figure, ...]:
    """The figures for the purifier's card."""
    note = f"n0 {smoothing.n0}, n {smoothing.n}, alpha {smoothing.alpha:g}"
    return tuple(
        Figure(
            name=_name(each, smoothing, metric, radius),
            value=round(score.percent, 2),
            unit="%",
            count=score.count,
            interval=(round(score.interval[0], 2), round(score.interval[1], 2)),
            command=command,
            seed=seed,
            note=note,
        )
        for each in found
        for metric, radius, score in each.scores
    )


def _name(found: Certified, smoothing: Smoothing, metric: str, radius: float | None) -> str:
    behind = "undefended" if found.role == "none" else found.defence
    at = "" if radius is None else f" at L2 radius {radius:g}"
    noise = "" if metric == METRICS[0] else f", noise std {smoothing.sigma:g}"
    return f"{metric}{at}{noise}, {behind}, {found.victim}"


def with_figures(card: Card, figures: Sequence[Figure]) -> Card:
    """The card with ``figures`` added, those of the same name replaced, the others kept."""
    fresh = {figure.name for figure in figures}
    kept = [figure for figure in card.figures if figure.name not in fresh]
    return card.model_copy(update={"figures": (*kept, *figures)})


def certified_text(found: Sequence[Certified]) -> str:
    """A table for a person: one line a defence."""
    heads = ["natural", "smoothed", "abstained", *(f"radius {radius:g}" for radius, _ in found[0].certified)]
    lines = [
        (
            each.defence,
            *("{:.1f} ({:.1f}-{:.1f})".format(score.percent, *score.interval) for _, _, score in each.scores),
        )
        for each in found
    ]
    count, victim = found[0].natural.count, found[0].victim
    title = f"Certified accuracy in %, {victim} ({count} photos, 95 % interval)"
    return f"{title}\n{grid(('defence', *heads), lines)}"
