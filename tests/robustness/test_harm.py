from __future__ import annotations

import math

import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor, nn

from model_store.architectures import build
from model_store.card import InputConvention
from model_store.inference import STATIC, InferenceMode, PurifierDraws
from model_store.pixels import to_8bit, to_float
from robustness.conditions import Conditions
from robustness.defences import Purification
from robustness.errors import EvaluationError, VictimError
from robustness.examples import Examples, Truths
from robustness.harm import measure_cost, measure_harm
from robustness.scores import Score
from robustness.victims.classification import Classifier
from robustness.victims.victim import Answers, Victim

CONDITIONS = Conditions(seed=0, batch=4, device=torch.device("cpu"))


class Darken(nn.Module):
    """A purifier that takes a tenth of the light away."""

    def forward(self, images: Tensor) -> Tensor:
        return images * 0.9


class BrightOrDark(nn.Module):
    """Logits of two classes: brighter than 0.45 on average, or not."""

    def forward(self, images: Tensor) -> Tensor:
        light = images.flatten(1).mean(dim=1) - 0.45
        return 100 * torch.stack([light, -light], dim=1)


class Mute(Victim):
    """A victim that gives no class."""

    def loss(self, versions: Tensor, truths: Truths) -> Tensor:
        raise NotImplementedError

    def answer(self, versions: Tensor) -> Answers:
        return {"boxes": versions.flatten(1)[:, :4]}

    def score(self, answers: Answers, truths: Truths) -> Score:
        raise NotImplementedError


@pytest.fixture
def examples() -> Examples:
    """Ten flat images with a little texture: grey levels 0.2 to 0.8."""
    generator = torch.Generator().manual_seed(0)
    levels = torch.linspace(0.2, 0.8, 10).view(-1, 1, 1, 1)
    noise = torch.rand(10, 3, 16, 16, generator=generator) * 0.1 - 0.05
    pixels = ((levels + noise) * 255).round().to(torch.uint8)
    return Examples(pixels, {"labels": torch.zeros(10, dtype=torch.int64)}, tuple(f"{n}.png" for n in range(10)))


@pytest.fixture
def victim() -> Classifier:
    return Classifier("bright", "none", BrightOrDark(), InputConvention(short_side=16, crop=16), ("bright", "dark"))


def behind(purifier: nn.Module, mode: InferenceMode = STATIC) -> Purification:
    return Purification("made-up", mode, "none", PurifierDraws(purifier, mode))


def test_what_changes_nothing_harms_nothing(examples: Examples, victim: Classifier) -> None:
    (harm,) = measure_harm(behind(build("identity")), examples, [victim], CONDITIONS)
    assert math.isinf(harm.psnr_db)
    assert harm.ssim == pytest.approx(1.0)
    assert (harm.agreement_percent, harm.count, harm.victim) == (100.0, 10, "bright")
    assert harm.defence == behind(build("identity")).name


def test_harm_is_what_scikit_image_measures(examples: Examples, victim: Classifier) -> None:
    (harm,) = measure_harm(behind(Darken()), examples, [victim], CONDITIONS)
    before = to_float(examples.pixels)
    after = to_8bit(before * 0.9)
    assert harm.psnr_db == pytest.approx(peak_signal_noise_ratio(before.numpy(), after.numpy(), data_range=1.0))
    likeness = [
        structural_similarity(one, two, data_range=1.0, channel_axis=0)
        for one, two in zip(before.numpy(), after.numpy(), strict=True)
    ]
    assert harm.ssim == pytest.approx(sum(likeness) / 10)
    light = before.flatten(1).mean(dim=1)
    same = (light > 0.45) == (light * 0.9 > 0.45)
    assert 0 < int(same.sum()) < 10
    assert harm.agreement_percent == 10 * int(same.sum())


def test_one_untouched_image_does_not_make_the_harm_vanish(examples: Examples, victim: Classifier) -> None:
    black = Examples(examples.pixels.clone(), examples.truths, examples.names)
    black.pixels[0] = 0
    (harm,) = measure_harm(behind(Darken()), black, [victim], CONDITIONS)
    assert math.isfinite(harm.psnr_db)


def test_noise_is_seeded_by_the_run_and_batches_do_not_matter(examples: Examples, victim: Classifier) -> None:
    noisy = behind(build("identity"), InferenceMode(noise_std=0.2, draws=2))
    harms = [
        measure_harm(noisy, examples, [victim], Conditions(seed=seed, batch=batch, device=torch.device("cpu")))[0]
        for seed, batch in ((0, 2), (0, 20), (1, 20))
    ]
    assert harms[0] == harms[1]
    assert harms[0].psnr_db != harms[2].psnr_db
    assert 10 < harms[0].psnr_db < 25


def test_harm_needs_images_and_a_classifier(examples: Examples, victim: Classifier) -> None:
    identity = behind(build("identity"))
    with pytest.raises(EvaluationError, match="at least one image"):
        measure_harm(identity, examples.first(0), [victim], CONDITIONS)
    small = Examples(examples.pixels[..., :6, :6].contiguous(), examples.truths, examples.names)
    with pytest.raises(EvaluationError, match="7 pixels"):
        measure_harm(identity, small, [victim], CONDITIONS)
    with pytest.raises(VictimError, match="mute is no classifier"):
        measure_harm(identity, examples, [Mute("mute", "none", nn.Identity())], CONDITIONS)


class Counting(nn.Module):
    """A purifier that notes the shapes it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.seen: list[tuple[int, ...]] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(tuple(images.shape))
        return images * self.weight


def test_cost_is_the_median_after_a_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    counting = Counting()
    # Two runs to warm up, then 4 ms, 1 s (a hiccup) and 6 ms for two images each.
    ticks = iter([0.0, 9.0, 9.0, 18.0, 20.0, 20.004, 30.0, 31.0, 40.0, 40.006])
    monkeypatch.setattr("robustness.cost.time.perf_counter", lambda: next(ticks))
    cost = measure_cost(behind(counting, InferenceMode(noise_std=0.1, draws=3)), 8, 3, batch=2)
    assert cost.milliseconds == pytest.approx(3.0)
    assert counting.seen == [(6, 3, 8, 8)] * 5
    assert (cost.size, cost.batch, cost.device, cost.threads) == (8, 2, "cpu", torch.get_num_threads())


def test_cost_is_real_time() -> None:
    assert 0 < measure_cost(behind(build("identity")), 8, 3).milliseconds < 1000


def test_cost_of_nothing_is_refused() -> None:
    with pytest.raises(EvaluationError, match="raise the numbers"):
        measure_cost(behind(build("identity")), 8, 0)
