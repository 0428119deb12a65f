"""The purifier's training: what is in a batch, what its options do, and that a resumed run does the same arithmetic."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model_store.architectures import build
from model_store.architectures.vgg_features import VGG16Features
from model_store.pixels import to_8bit, to_bytes
from training.banks import Bank
from training.batches import Part, parts_of
from training.ensemble import Ensemble, Member
from training.errors import DataError, RecipeError
from training.parallel import ALONE, Workers
from training.photos import Photos
from training.purifier import PurifierTraining
from training.purifier_recipe import AdaptiveRecipe, AdversaryRecipe, PurifierRecipe

CPU = torch.device("cpu")
ARGUMENTS: Mapping[str, Any] = {"widths": [8, 8], "encoder": [1, 1], "decoder": [1]}
QUIET: Mapping[str, Any] = {"noise_high": 0.0}
EVERYTHING: Mapping[str, Any] = {
    "batch": 8,
    "adversary_share": 0.25,
    "clean_share": 0.125,
    "noise_low": 0.02,
    "noise_share": 0.5,
    "jpeg_share": 0.5,
    "pixel_norm": "root",
    "prediction_weight": 0.1,
    "members_per_step": 1,
    "adversarial_from": 0.0,
    "adversaries": AdversaryRecipe(
        source="online",
        kinds=("ssp", "prediction", "momentum", "diverse", "single-step"),
        eps_low=1,
        eps_high=16,
        iterations=2,
        precision="float32",
    ),
    "adaptive": AdaptiveRecipe(share=0.375, begins=0.2, iterations=2),
}


def recipe(**changes: Any) -> PurifierRecipe:
    facts: dict[str, Any] = {
        "name": "tiny",
        "summary": "tiny",
        "architecture": "nrp_lite",
        "arguments": dict(ARGUMENTS),
        "feature_network": "vgg",
        "steps": 5,
        "side": 24,
        "crop": 16,
        "batch": 4,
        "learning_rate": 1e-3,
        "precision": "float32",
        "adversaries": AdversaryRecipe(side=24, iterations=2),
    }
    return PurifierRecipe(**(facts | changes))


@cache
def photos() -> Photos:
    coarse = torch.rand(12, 3, 4, 4, generator=torch.Generator().manual_seed(5))
    smooth = to_bytes(F.interpolate(coarse, size=(24, 24), mode="bicubic"))
    return Photos(smooth, torch.zeros(12, dtype=torch.long), ("all",), "a test's")


@cache
def bank() -> Bank:
    pixels = photos().pixels
    return Bank(torch.stack([pixels, pixels.bitwise_xor(7)], dim=1), 2.0)


def ensemble() -> Ensemble:
    torch.manual_seed(0)
    features = VGG16Features(4, width=0.0625)
    classifier = build("resnet_small", {"classes": 4, "widths": [4, 8], "blocks": 1})
    return Ensemble((Member("vgg", "a", features), Member("resnet", "b", classifier)))


def training(workers: Workers = ALONE, initial: Mapping[str, Tensor] | None = None, **changes: Any) -> PurifierTraining:
    asked = recipe(**changes)
    given = bank() if asked.uses_bank else Bank.empty(16)
    return PurifierTraining(asked, photos(), given, ensemble(), CPU, workers=workers, initial=initial)


def weights(work: PurifierTraining) -> Tensor:
    return torch.cat([value.flatten() for value in work.average.state_dict().values()])


def moved(work: PurifierTraining, number: int = 0) -> Tensor:
    """How far each image of a batch is from its target, in levels: (N,)."""
    seen, target = work.batch(number)
    return (seen - target).abs().flatten(1).amax(1) * 255


@pytest.mark.parametrize("stop", [1, 3])
def test_a_resumed_run_with_every_option_gives_the_same_bits(stop: int) -> None:
    straight, first, second = (training(**EVERYTHING) for _ in range(3))
    losses = [straight.step(number) for number in range(5)]
    for number in range(stop):
        first.step(number)
    second.restore(copy.deepcopy(first.state()))
    again = [second.step(number) for number in range(stop, 5)]
    assert again == losses[stop:]
    assert torch.equal(weights(second), weights(straight))
    assert {"pixel", "prediction", "critic", "adversarial"} <= set(losses[-1])


def test_each_part_gets_its_share() -> None:
    asked = recipe(**EVERYTHING)
    counts = {part: int((parts_of(asked, 4) == part).sum()) for part in Part}
    assert counts == {Part.UNAWARE: 2, Part.ADAPTIVE: 3, Part.CLEAN: 1, Part.READY: 2}
    assert int((parts_of(asked, 0) == Part.ADAPTIVE).sum()) == 0


def test_the_clean_share_is_seen_as_it_is() -> None:
    work = training(
        batch=8, adversary_share=0.5, clean_share=0.25, noise_low=0.1, jpeg_share=1.0, jpeg_quality=(10, 20)
    )
    for number in range(3):
        distances = moved(work, number)
        assert int((distances == 0).sum()) == 2
        assert distances[distances > 0].min() > 5


def test_without_corruption_only_the_attacked_differ_and_within_budget() -> None:
    online = AdversaryRecipe(source="online", eps=(8.0,), iterations=2)
    work = training(batch=8, adversary_share=0.5, adversaries=online, **QUIET)
    seen, target = work.batch(0)
    distances = moved(work)
    assert sorted(distances.round().tolist()) == [0, 0, 0, 0, 8, 8, 8, 8]
    attacked = distances > 0
    torch.testing.assert_close(seen[attacked], to_8bit(seen[attacked]))
    torch.testing.assert_close(target[attacked], to_8bit(target[attacked]))


def test_adaptive_adversaries_depend_on_the_purifier_as_it_is() -> None:
    options = {**QUIET, "adversary_share": 0.0, "adaptive": AdaptiveRecipe(share=0.5, iterations=2)}
    work = training(**options)
    before = work.batch(0)[0]
    assert torch.equal(before, work.batch(0)[0])
    assert (moved(work) > 0).sum() == 2
    for parameter in work.purifier.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    after = work.batch(0)[0]
    assert not torch.equal(before, after)
    assert torch.equal(before[moved(work) == 0], after[moved(work) == 0])


def test_adaptive_adversaries_hurt_a_trained_purifier_more_than_unaware_ones() -> None:
    unaware = AdversaryRecipe(source="online", kinds=("prediction",), eps=(16.0,), iterations=4, precision="float32")
    shared: dict[str, Any] = {"batch": 12, "crop": 24, "adversaries": unaware, "steps": 15, "learning_rate": 1e-2}
    work = training(adversary_share=1.0, noise_high=0.1, **shared)
    for number in range(15):
        work.step(number)
    harm = {}
    adaptive = AdaptiveRecipe(share=1.0, iterations=4, step_share=0.25, start="corner")
    for name, shares in (("unaware", {"adversary_share": 1.0}), ("adaptive", {"adversary_share": 0.0})):
        options = {**shared, **shares, **({"adaptive": adaptive} if name == "adaptive" else {})}
        other = training(noise_high=0.1, **options)
        other.purifier.load_state_dict(work.purifier.state_dict())
        found = []
        for number in (0, 1):
            seen, target = other.batch(number)
            member = other.ensemble.members[number]
            with torch.no_grad():
                answers = (member.logits(images).log_softmax(1) for images in (other.purifier(seen), target))
                found.append(F.kl_div(*answers, log_target=True, reduction="batchmean").item())
        harm[name] = sum(found)
    assert harm["adaptive"] > 1.1 * harm["unaware"]


def test_the_purifier_can_still_learn_after_an_attack_through_it() -> None:
    work = training(**EVERYTHING)
    work.batch(4)
    assert all(parameter.requires_grad for parameter in work.purifier.parameters())
    assert all(parameter.grad is None for parameter in work.purifier.parameters())


def test_the_ensemble_stays_as_it_was() -> None:
    work = training(**EVERYTHING)
    before = [copy.deepcopy(member.module.state_dict()) for member in work.ensemble.members]
    for number in range(5):
        work.step(number)
    for member, state in zip(work.ensemble.members, before, strict=True):
        assert all(torch.equal(value, state[name]) for name, value in member.module.state_dict().items())
        assert all(parameter.grad is None for parameter in member.module.parameters())


class Unconnected(Workers):
    """A worker that takes its share of a batch and has nobody to average gradients with."""

    def wrap(self, module: nn.Module) -> nn.Module:
        return module


def test_two_workers_see_what_one_does() -> None:
    # Without JPEG: in an attack through it, what batches of 3 and of 2 compute 1e-7 apart may be rounded levels apart.
    options = {**EVERYTHING, "jpeg_share": 0.0}
    alone = training(**options)
    shared = [training(Unconnected(rank, 2), **options) for rank in (0, 1)]
    for number in range(5):
        for whole, *parts in zip(alone.batch(number), *(work.batch(number) for work in shared), strict=True):
            together = torch.cat(parts)
            assert together.shape == whole.shape
            assert ((together - whole).abs() > 1e-6).float().mean() < 1e-3


def test_it_starts_from_given_weights() -> None:
    given = build("nrp_lite", dict(ARGUMENTS)).state_dict()
    work = training(initial={name: value.half() for name, value in given.items()})
    for name, value in work.average.state_dict().items():
        assert torch.equal(value, given[name].half().float())
    with pytest.raises(RecipeError, match="is no nrp_lite like this"):
        training(initial=build("nrp_lite").state_dict())


def test_too_few_photos_or_adversaries_are_refused() -> None:
    with pytest.raises(DataError, match="a batch takes 13 photos and there are 12"):
        training(batch=13, adversary_share=0.0)
    with pytest.raises(DataError, match="a batch takes 13 adversaries and there are 12"):
        training(batch=13, adversary_share=1.0)


def test_pictures_show_the_batch_and_leave_the_training_as_it_was() -> None:
    watched, unwatched = training(**EVERYTHING), training(**EVERYTHING)
    for number in range(3):
        watched.step(number)
        pictures = watched.images(number)
        unwatched.step(number)
    assert list(pictures) == ["seen", "purified", "target"]
    assert {tuple(images.shape) for images in pictures.values()} == {(8, 3, 16, 16)}
    assert watched.candidate() is watched.average
    assert torch.equal(weights(watched), weights(unwatched))


def test_facts_tell_how_many_adversaries_a_second() -> None:
    facts = training().facts()
    assert facts == {"adversaries in the bank": 12, "adversaries per second, bank": 6.0}
    work = training(**EVERYTHING)
    assert work.facts() == {}
    for number in range(3):
        work.step(number)
    assert work.facts()["adversaries, online"] == 6
    assert work.facts()["adversaries, adaptive"] == 6
    assert all(value > 0 for value in work.facts().values())


def test_compiled_runs_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[object] = []
    monkeypatch.setattr(torch, "compile", lambda module: compiled.append(module) or module)
    training()
    assert compiled == []
    work = training(compiled=True)
    assert work.purifier in compiled
    assert all(member.module in compiled for member in work.ensemble.members)


def test_training_lowers_the_loss_with_every_option() -> None:
    work = training(**{**EVERYTHING, "steps": 20, "learning_rate": 5e-3})
    seen, target = work.batch(4)
    before = (work.average(seen) - target).abs().mean()
    for number in range(20):
        work.step(number)
    assert (work.average(seen) - target).abs().mean() < 0.8 * before
