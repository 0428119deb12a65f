from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor, nn

from model_store.inference import InferenceMode, PurifierDraws
from robustness.adversaries import white_box
from robustness.attacks.attack import Knowledge
from robustness.attacks.single_step import FGSM
from robustness.defences import Defence, Jpeg, NoDefence, Purification
from robustness.judgement import Bench, attacked, clean_trial, judge
from robustness.observations import CLEAN
from robustness.seeds import derive_seed
from robustness.victims.classification import Classifier

Victims = tuple[Classifier, ...]


@dataclass(frozen=True)
class Spy(Defence):
    """Adds noise of each image's own seed, and writes down what it was asked."""

    asked: list[list[int]]
    count: int = 2

    def __repr__(self) -> str:
        return f"Spy(count={self.count})"

    @property
    def name(self) -> str:
        return "spy"

    @property
    def differentiable(self) -> bool:
        return True

    @property
    def draw_count(self) -> int:
        return self.count

    def __call__(self, images: Tensor) -> Tensor:
        return images

    def draws(self, images: Tensor, seeds: Sequence[int]) -> Tensor:
        self.asked.append(list(seeds))
        noise = [torch.randn(self.count, *images.shape[1:], generator=torch.Generator().manual_seed(s)) for s in seeds]
        return (images.unsqueeze(1) + 0.1 * torch.stack(noise)).clamp(0, 1)


def with_batch(bench: Bench, batch: int, seed: int = 0) -> Bench:
    return replace(bench, conditions=replace(bench.conditions, batch=batch, seed=seed))


def test_clean_photos_are_judged_as_they_are(bench: Bench, victims: Victims) -> None:
    first, second = judge(bench, clean_trial(bench, victims), NoDefence())
    assert (first.victim, second.victim) == ("victim-a", "victim-b")
    assert first.scenario == CLEAN
    assert (first.defence, first.role) == ("none", "none")
    images, labels = bench.examples.pixels / 255, bench.examples.truths["labels"]
    for seen, victim in zip((first, second), victims, strict=True):
        expected = victim.logits(images).argmax(1) == labels
        assert torch.equal(seen.correct, expected)
        assert seen.score.percent == pytest.approx(100 * float(expected.double().mean()))
        torch.testing.assert_close(seen.answers["log_probabilities"], victim.logits(images).log_softmax(1))


def test_what_was_judged_is_not_judged_again(bench: Bench, victims: Victims) -> None:
    spy = Spy([])
    before = judge(bench, clean_trial(bench, victims), spy)
    calls = len(spy.asked)
    after = judge(bench, clean_trial(bench, victims), spy)
    assert len(spy.asked) == calls > 0
    for one, other in zip(before, after, strict=True):
        assert torch.equal(one.answers["log_probabilities"], other.answers["log_probabilities"])
        assert one.score.percent == other.score.percent


@pytest.mark.parametrize("change", ["seed", "precision", "photos", "victims", "defence"])
def test_anything_else_is_judged_anew(bench: Bench, victims: Victims, change: str) -> None:
    spy = Spy([])
    judge(bench, clean_trial(bench, victims), spy)
    calls = len(spy.asked)
    other = {
        "seed": with_batch(bench, 5, seed=1),
        "precision": replace(bench, conditions=replace(bench.conditions, precision="bfloat16")),
        "photos": replace(bench, examples=bench.examples.first(11)),
    }.get(change, bench)
    who = victims[:1] if change == "victims" else victims
    judge(other, clean_trial(other, who), Spy(spy.asked, 3) if change == "defence" else spy)
    assert len(spy.asked) > calls


def test_chunks_of_any_size_give_the_same_answers(bench: Bench, victims: Victims) -> None:
    answers, chunks = [], []
    for batch in (1, 5, 100):
        spy = Spy([])
        there = replace(with_batch(bench, batch), cache=replace(bench.cache, root=bench.cache.root / f"{batch}"))
        answers.append([o.answers["log_probabilities"] for o in judge(there, clean_trial(there, victims), spy)])
        chunks.append([len(seeds) for seeds in spy.asked])
    assert chunks == [[1] * 12, [2] * 6, [12]]  # image copies in flight, two of an image
    for other in answers[1:]:
        for one, found in zip(answers[0], other, strict=True):
            torch.testing.assert_close(found, one, atol=1e-5, rtol=0)


def test_every_photo_draws_from_a_seed_of_its_own(bench: Bench, victims: Victims) -> None:
    spy = Spy([])
    judge(bench, clean_trial(bench, victims), spy)
    seeds = [seed for asked in spy.asked for seed in asked]
    assert seeds == [derive_seed(0, "defence", place) for place in range(12)]
    assert len(set(seeds)) == 12
    judge(with_batch(bench, 5, seed=1), clean_trial(bench, victims), spy)
    assert not set(seeds) & {seed for asked in spy.asked[6:] for seed in asked}


def test_both_victims_see_the_same_draws(bench: Bench, victims: Victims) -> None:
    twin = replace(victims[0], name="twin")
    one, other = judge(bench, clean_trial(bench, (victims[0], twin)), Spy([]))
    assert torch.equal(one.answers["log_probabilities"], other.answers["log_probabilities"])


def test_attacked_photos_are_made_once_and_judged_as_attacked(
    bench: Bench, victims: Victims, monkeypatch: pytest.MonkeyPatch
) -> None:
    threat = white_box(FGSM(16), victims[0])
    trial = attacked(bench, threat, victims[:1])
    assert trial.scenario == threat.scenario
    assert trial.examples.names == bench.examples.names
    assert 0 < (trial.examples.pixels.int() - bench.examples.pixels.int()).abs().max() <= 16
    (clean,) = judge(bench, clean_trial(bench, victims[:1]), NoDefence())
    (hit,) = judge(bench, trial, NoDefence())
    assert hit.score.percent < clean.score.percent

    def refuse(*_: object) -> None:
        raise AssertionError("attacked again")

    monkeypatch.setattr("robustness.judgement.craft", refuse)
    again = attacked(bench, threat, victims[:1])
    assert torch.equal(again.examples.pixels, trial.examples.pixels)
    assert torch.equal(again.blind, trial.blind)
    with pytest.raises(AssertionError, match="attacked again"):
        attacked(bench, white_box(FGSM(8), victims[0]), victims[:1])


def test_photos_attacked_differently_are_not_confused(bench: Bench, victims: Victims) -> None:
    weak, strong = (attacked(bench, white_box(FGSM(eps), victims[0]), victims[:1]) for eps in (1, 16))
    (one,), (other,) = judge(bench, weak, Jpeg(75)), judge(bench, strong, Jpeg(75))
    assert not torch.equal(one.answers["log_probabilities"], other.answers["log_probabilities"])


def test_purifiers_of_other_weights_or_modes_are_judged_apart(bench: Bench, victims: Victims) -> None:
    modes = (InferenceMode(noise_std=0.3), InferenceMode(noise_std=0.1))
    found = []
    for weights, mode in (("a", modes[0]), ("a", modes[1]), ("b", modes[0])):
        purifier = Purification("heavy", mode, weights * 64, PurifierDraws(nn.Identity(), mode))
        judge(bench, clean_trial(bench, victims), purifier)
        found.append(len(list(bench.cache.root.iterdir())))
    assert found == [1, 2, 3]


def test_an_attack_that_was_killed_goes_on_behind_the_batches_it_had(bench: Bench, victims: Victims) -> None:
    @dataclass(frozen=True)
    class Dies(FGSM):
        """Fails on its second batch, once."""

        def __repr__(self) -> str:
            return "dies"

        def __call__(self, images: Tensor, knowledge: Knowledge, generator: torch.Generator) -> Tensor:
            calls.append(len(images))
            if len(calls) == 2:
                raise KeyboardInterrupt
            return super().__call__(images, knowledge, generator)

    calls: list[int] = []
    threat = white_box(Dies(8), victims[0])
    with pytest.raises(KeyboardInterrupt):
        attacked(bench, threat, victims[:1])
    found = attacked(bench, threat, victims[:1])
    assert calls == [5, 5, 5, 2]
    assert torch.equal(found.examples.pixels, attacked(bench, white_box(FGSM(8), victims[0]), victims).examples.pixels)
    assert len(list(bench.cache.root.iterdir())) == 2  # the batches went into the whole
