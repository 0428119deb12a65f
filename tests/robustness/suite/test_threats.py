from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from model_store.architectures import build
from model_store.card import Card
from robustness.attacks.ssp import SSP
from robustness.attacks.universal import Universal
from robustness.judgement import attacked
from robustness.suite.session import Arena, Session
from robustness.suite.threats import fooling_noise, generated, named, transfers, unknowable, white_boxes


def publish_perturber(session: Session, name: str) -> None:
    arguments = {"width": 4, "blocks": 1}
    card = Card(name=name, summary="s", task="perturber", architecture="cda_generator", arguments=arguments)
    session.store.publish(card, build("cda_generator", arguments))


def noise_of(session: Session, arena: Arena, eps: float) -> torch.Tensor:
    attack = fooling_noise(session, arena, eps).attack
    assert isinstance(attack, Universal)
    return attack.noise


def test_ssp_has_the_suites_iterations_and_others_their_own(session: Session) -> None:
    ssp = named(session, "SSP", 8)
    assert isinstance(ssp, SSP)
    assert (ssp.iterations, ssp.eps) == (2, 8)
    assert named(session, "PGD-10 targeted", 4).name == "PGD-10 targeted"


def test_every_victim_meets_every_attack_at_every_budget(session: Session) -> None:
    sizes = replace(session.sizes, eps=(2, 16), white=("FGSM", "PGD-10 untargeted"))
    made = list(white_boxes(replace(session, sizes=sizes), session.classifiers()))
    assert len(made) == 2 * 2 * 2
    assert [threat.scenario.eps for _, threat in made] == [2] * 4 + [16] * 4
    assert all((threat.target, threat.identity) == (victim.name, victim.identity) for victim, threat in made)
    assert len({(victim.name, threat.attack) for victim, threat in made}) == 8


def test_transfers_follow_the_surrogate(session: Session, photos: Arena) -> None:
    sizes = replace(session.sizes, eps=(2, 16), transfer=("DIM", "SSP"))
    made = list(transfers(replace(session, sizes=sizes), photos))
    assert [(t.attack.name, t.scenario.eps) for t in made] == [
        ("DIM", 2),
        ("SSP (iterations 2)", 2),
        ("DIM", 16),
        ("SSP (iterations 2)", 16),
    ]
    assert {(t.scenario.attacker, t.scenario.surrogate) for t in made} == {("transfer", "features")}


def test_a_surrogate_of_other_classes_follows_no_label(session: Session, photos: Arena) -> None:
    stranger = replace(session.surrogate, folders=("n00000009",))
    wider = replace(session, surrogate=stranger, sizes=replace(session.sizes, transfer=("DIM", "FSA", "SSP")))
    assert unknowable(wider, photos) == ("DIM",)
    assert {t.attack.name for t in transfers(wider, photos)} == {"FSA", "SSP (iterations 2)"}


def test_cda_is_left_out_where_the_store_has_no_generator(session: Session, photos: Arena) -> None:
    sizes = replace(session.sizes, transfer=("CDA", "SSP"))
    assert [t.attack.name for t in transfers(replace(session, sizes=sizes), photos)] == ["SSP (iterations 2)"]
    publish_perturber(session, "cda-camvid")
    (cda, _) = transfers(replace(session, sizes=sizes), photos)
    assert (cda.attack.name, cda.attack.eps) == ("CDA camvid", 8)
    assert cda.scenario.surrogate == "cda-camvid"
    assert cda.identity == session.store.card("cda-camvid").sha256
    publish_perturber(session, "cda-imagenette")
    assert {threat.target for threat in generated(session, 4)} == {"cda-imagenette", "cda-camvid"}


def test_cda_and_fff_can_be_made_and_keep_their_budget(session: Session, photos: Arena) -> None:
    publish_perturber(session, "cda-imagenette")
    sizes = replace(session.sizes, transfer=("CDA", "FFF"), fff_iterations=3)
    for threat in transfers(replace(session, sizes=sizes), photos):
        trial = attacked(photos.bench, threat, photos.victims)
        moved = (trial.examples.pixels.int() - photos.bench.examples.pixels.int()).abs()
        assert 0 < moved.max() <= 8
        assert not trial.broken.any()
        assert not trial.blind.any()


def test_fooling_noise_is_made_once_for_its_size_and_surrogate(
    session: Session, photos: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = replace(session, sizes=replace(session.sizes, fff_iterations=3))
    threat = fooling_noise(few, photos, 8)
    assert (threat.attack.name, threat.target, threat.identity) == ("FFF", "features", session.surrogate.identity)
    first = noise_of(few, photos, 8)
    assert first.shape == (1, 3, 16, 16)
    assert 7 / 255 < first.abs().max() <= 8 / 255 + 1e-6
    largest = noise_of(few, photos, 16)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("made again")

    monkeypatch.setattr("robustness.suite.threats.fast_feature_fool", refuse)
    assert torch.equal(noise_of(few, photos, 8), first)
    torch.testing.assert_close(noise_of(few, photos, 2), largest / 8)
    more = replace(session, sizes=replace(session.sizes, fff_iterations=4))
    other = replace(few, surrogate=replace(session.surrogate, identity="x" * 64))
    for changed in (more, other):
        with pytest.raises(AssertionError, match="made again"):
            fooling_noise(changed, photos, 8)


def test_more_iterations_excite_the_surrogate_more(session: Session, photos: Arena) -> None:
    def evoked(iterations: int) -> float:
        few = replace(session, sizes=replace(session.sizes, fff_iterations=iterations))
        noise = noise_of(few, photos, 16)
        grey = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
        layers = session.surrogate.activations(grey + noise)
        return float(torch.stack([layer.abs().mean().log() for layer in layers]).sum())

    assert evoked(30) > evoked(1) + 0.1
