from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor, nn

from model_store.inference import STATIC, InferenceMode, PurifierDraws
from robustness.adaptive import AwareKnowledge, Method, Passage, aware, straight_through
from robustness.attacks.attack import Knowledge
from robustness.attacks.pgd import PGD
from robustness.defences import BitDepth, Defence, Jpeg, NoDefence, Purification
from robustness.errors import AttackError
from robustness.judgement import Bench, attacked, judge
from robustness.victims.classification import Classifier
from robustness.victims.segmentation import Segmenter

NOISY = InferenceMode(noise_std=0.02, draws=3)
METHODS: tuple[Method, ...] = ("BPDA", "full-gradient", "BPDA-substitute")


class Wavy(nn.Module):
    """A purifier with a gradient far from the identity's; pixels in [0.3, 0.7] stay in [0,1]."""

    def forward(self, images: Tensor) -> Tensor:
        return images.roll(1, dims=-1) + 0.1 * torch.sin(12 * images)


@dataclass(frozen=True)
class Recorded(Defence):
    """Changes nothing, and writes down the seeds it was given."""

    seeds: list[int] = field(default_factory=list, repr=False)

    @property
    def name(self) -> str:
        return "recorded"

    @property
    def differentiable(self) -> bool:
        return True

    def __call__(self, images: Tensor) -> Tensor:
        return images

    def draws(self, images: Tensor, seeds: Sequence[int]) -> Tensor:
        self.seeds.extend(seeds)
        return images.unsqueeze(1)


def images(count: int = 2) -> Tensor:
    """In [0.3, 0.7], so that nothing is clamped."""
    return 0.3 + 0.4 * torch.rand(count, 3, 16, 16, generator=generator())


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def purification(mode: InferenceMode, module: nn.Module | None = None) -> Purification:
    return Purification("mode", mode, "0" * 64, PurifierDraws(module or Wavy(), mode))


def passage(method: Method, defence: Defence) -> Passage:
    return Passage(defence, method, purification(STATIC) if method == "BPDA-substitute" else None)


@pytest.fixture
def victim(victims: tuple[Classifier, ...]) -> Classifier:
    return victims[0]


def test_straight_through_gives_the_values_of_one_and_the_gradient_of_the_other() -> None:
    begin = images().requires_grad_(True)
    defended = Jpeg(20)(begin.detach())
    through = straight_through(defended, begin)
    assert torch.equal(through.detach(), defended)
    weights = torch.randn(begin.shape, generator=generator())
    (gradient,) = torch.autograd.grad((through * weights).sum(), begin)
    assert torch.equal(gradient, weights)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_looks_at_what_the_defence_really_gives(method: Method) -> None:
    defence = purification(NOISY)
    seeds = torch.randint(2**62, (2,), generator=generator(3)).tolist()
    found = passage(method, defence)(images(), generator(3))
    torch.testing.assert_close(found, defence.draws(images(), seeds))
    assert found.shape == (2, 3, 3, 16, 16)


def test_bpda_goes_back_as_if_there_were_no_defence() -> None:
    begin = images().requires_grad_(True)
    weights = torch.randn(2, 3, 3, 16, 16, generator=generator())
    (gradient,) = torch.autograd.grad((passage("BPDA", purification(NOISY))(begin, generator()) * weights).sum(), begin)
    torch.testing.assert_close(gradient, weights.sum(1))


def test_bpda_through_jpeg_gives_the_victims_gradient_at_the_compressed_image(victim: Classifier) -> None:
    truths = {"labels": torch.tensor([0, 1])}
    known = AwareKnowledge(victim, Passage(Jpeg(20), "BPDA"))(truths, generator())
    assert known.loss is not None
    begin = images().requires_grad_(True)
    (gradient,) = torch.autograd.grad(known.loss(begin).sum(), begin)
    there = Jpeg(20)(begin.detach()).requires_grad_(True)
    (expected,) = torch.autograd.grad(victim.loss(there.unsqueeze(1), truths).sum(), there)
    torch.testing.assert_close(gradient, expected)
    assert gradient.abs().max() > 0


def test_a_substitute_is_gone_back_through_in_the_defences_place() -> None:
    begin = images().requires_grad_(True)
    weights = torch.randn(2, 1, 3, 16, 16, generator=generator())
    (gradient,) = torch.autograd.grad((passage("BPDA-substitute", Jpeg(20))(begin, generator()) * weights).sum(), begin)
    (expected,) = torch.autograd.grad((purification(STATIC)(begin) * weights[:, 0]).sum(), begin)
    torch.testing.assert_close(gradient, expected)
    assert not torch.allclose(gradient, weights[:, 0])


@pytest.mark.parametrize("mode", [STATIC, NOISY])
def test_the_full_gradient_is_the_slope_that_small_steps_measure(mode: InferenceMode) -> None:
    weights = torch.randn(2, mode.draws, 3, 16, 16, generator=generator())
    way = torch.randn(2, 3, 16, 16, generator=generator(1)).sign()

    def height(where: Tensor) -> Tensor:
        return (passage("full-gradient", purification(mode))(where, generator(9)).double() * weights).sum()

    begin = images().requires_grad_(True)
    (gradient,) = torch.autograd.grad(height(begin), begin)
    step = 2e-3
    measured = (height(images() + step * way) - height(images() - step * way)) / (2 * step)
    torch.testing.assert_close((gradient * way).sum().double(), measured, rtol=0.01, atol=0.05)
    assert not torch.allclose(gradient, weights.sum(1), atol=0.1)


def test_the_full_gradient_reaches_an_attacker_through_victim_and_purifier(victim: Classifier) -> None:
    truths = {"labels": torch.tensor([0, 1])}
    way = torch.randn(2, 3, 16, 16, generator=generator(1))

    def loss(where: Tensor) -> Tensor:
        known = AwareKnowledge(victim, passage("full-gradient", purification(NOISY)))(truths, generator())
        assert known.loss is not None
        return known.loss(where).sum()

    begin = images().requires_grad_(True)
    (gradient,) = torch.autograd.grad(loss(begin), begin)
    step = 1e-4  # few kinks of the victim's ReLUs lie so near
    with torch.no_grad():
        measured = (loss(images() + step * way) - loss(images() - step * way)) / (2 * step)
    assert (gradient * way).sum().item() == pytest.approx(measured.item(), rel=0.05, abs=0.02)
    assert gradient.abs().max() > 0


@pytest.mark.parametrize("method", METHODS)
def test_noise_is_fresh_at_each_step_and_a_static_mode_has_none(method: Method) -> None:
    draws, source = passage(method, purification(NOISY)), generator()
    assert not torch.equal(draws(images(), source), draws(images(), source))
    still, source = passage(method, purification(STATIC)), generator()
    assert torch.equal(still(images(), source), still(images(), source))


def test_the_same_noise_is_drawn_for_a_whole_search(victim: Classifier) -> None:
    defence = purification(NOISY)
    labels = {"labels": torch.zeros(2, dtype=torch.int64)}
    for same in (False, True):
        threat = aware(PGD(8), defence, victim, "BPDA", eot=2, same_noise=same)
        logits = threat.learn(labels, generator()).logits
        assert logits is not None
        assert torch.equal(logits(images()), logits(images())) is same
    fresh, still = (aware(PGD(8), defence, victim, "BPDA", same_noise=same) for same in (False, True))
    assert fresh.identity != still.identity


def test_the_attacker_averages_over_as_many_draws_as_it_is_told(victim: Classifier) -> None:
    def drawn(mode: InferenceMode, eot: int) -> tuple[int, str]:
        threat = aware(PGD(4), purification(mode), victim, "BPDA", eot=eot)
        assert isinstance(threat.learn, AwareKnowledge)
        return threat.learn.passage(images(), generator()).shape[1], threat.attack.name

    assert drawn(NOISY, 1) == (1, "BPDA PGD-10 untargeted")
    assert drawn(NOISY, 4) == (4, "BPDA PGD-10 untargeted EOT-4")
    assert drawn(STATIC, 9) == (1, "BPDA PGD-10 untargeted")


def test_more_draws_give_a_steadier_gradient(victim: Classifier) -> None:
    mode = InferenceMode(noise_std=0.1)
    truths = {"labels": torch.tensor([0, 1])}

    def spread(eot: int) -> float:
        gradients = []
        for seed in range(8):
            threat = aware(PGD(4), purification(mode, nn.Identity()), victim, "full-gradient", eot=eot)
            loss = threat.learn(truths, generator(seed)).loss
            assert loss is not None
            begin = images().requires_grad_(True)
            gradients.append(torch.autograd.grad(loss(begin).sum(), begin)[0])
        return float(torch.stack(gradients).std(0).mean())

    assert spread(16) < 0.6 * spread(1)


def test_another_purifier_mode_method_or_eot_is_another_identity(victim: Classifier) -> None:
    modes = (NOISY, NOISY.model_copy(update={"noise_std": 0.2}), STATIC)
    identities = {
        aware(PGD(4), purification(mode), victim, method, eot=eot).identity
        for mode in modes
        for eot in (1, 2)
        for method in ("BPDA", "full-gradient")
    }
    assert len(identities) == 2 * 5  # a static purifier has nothing to average over
    substitutes = (purification(STATIC), purification(NOISY))
    others = {aware(PGD(4), Jpeg(20), victim, "BPDA-substitute", substitute=s).identity for s in substitutes}
    assert len(others) == 2


def test_an_aware_threat_is_the_same_attack_by_someone_who_knows(victim: Classifier) -> None:
    threat = aware(PGD(4, iterations=7), Jpeg(20), victim, "BPDA")
    assert threat.scenario.attacker == "aware"
    assert (threat.scenario.attack, threat.scenario.eps) == ("BPDA PGD-7 untargeted", 4)
    known = Knowledge(loss=lambda x: x.square().flatten(1).sum(1))
    expected = PGD(4, iterations=7)(images(), known, generator())
    assert torch.equal(threat.attack(images(), known, generator()), expected)


@pytest.mark.parametrize("defence", [Jpeg(20), BitDepth(4)])
def test_a_gradient_that_is_not_there_is_refused(victim: Classifier, defence: Defence) -> None:
    with pytest.raises(AttackError, match=f"{defence.name} has no gradient of its own; attack it by BPDA"):
        aware(PGD(4), defence, victim, "full-gradient")
    with pytest.raises(AttackError, match=f"{defence.name} cannot stand in"):
        aware(PGD(4), Jpeg(75), victim, "BPDA-substitute", substitute=defence)


def test_a_substitute_is_needed_by_its_method_alone(victim: Classifier) -> None:
    with pytest.raises(AttackError, match="needs a substitute"):
        aware(PGD(4), Jpeg(20), victim, "BPDA-substitute")
    with pytest.raises(AttackError, match="needs a substitute"):
        aware(PGD(4), Jpeg(20), victim, "BPDA", substitute=NoDefence())


def test_a_targeted_attacker_lowers_the_loss_of_a_wrong_class_through_the_defence(victim: Classifier) -> None:
    truths = {"labels": torch.tensor([0, 1, 2, 0])}
    known = AwareKnowledge(victim, Passage(NoDefence(), "BPDA"))(truths, generator())
    assert known.targeted_loss is not None
    assert known.logits is not None
    begin = images(4)
    said = known.logits(begin)
    torch.testing.assert_close(said, victim.logits(begin).log_softmax(1))
    aimed = (said - known.targeted_loss(begin).unsqueeze(1)).abs().argmin(1)
    assert (aimed != truths["labels"]).all()


def test_who_attacks_a_segmenter_has_its_loss_alone() -> None:
    module = nn.Conv2d(3, 2, 1)
    segmenter = Segmenter("scenes", "0" * 64, module, ("sky", "road"), (16, 16))
    truths = {"mask": torch.zeros(2, 16, 16, dtype=torch.int64)}
    known = AwareKnowledge(segmenter, Passage(NoDefence(), "BPDA"))(truths, generator())
    assert known.loss is not None
    torch.testing.assert_close(known.loss(images()), segmenter.loss(images().unsqueeze(1), truths))
    assert (known.targeted_loss, known.logits, known.labels) == (None, None, None)


def test_the_attackers_seeds_are_never_the_defences(bench: Bench, victim: Classifier) -> None:
    defence = Recorded()
    trial = attacked(bench, aware(PGD(4, iterations=3), defence, victim, "full-gradient"), (victim,))
    attackers = list(defence.seeds)
    assert len(attackers) == len(set(attackers)) == 3 * 12
    judge(bench, trial, defence)
    judged = defence.seeds[len(attackers) :]
    assert len(judged) == 12
    assert not set(attackers) & set(judged)


def test_knowing_the_defence_is_worth_something(bench: Bench, victim: Classifier) -> None:
    """Against a purifier that moves every pixel, the full gradient is the stronger attack."""
    defence = purification(STATIC)
    left = []
    for method in ("BPDA", "full-gradient"):
        trial = attacked(bench, aware(PGD(8, iterations=5), defence, victim, method), (victim,))
        (seen,) = judge(bench, trial, defence)
        labels = bench.examples.truths["labels"]
        left.append(float(seen.answers["log_probabilities"][torch.arange(12), labels].mean()))
    assert left[1] < left[0]
