from __future__ import annotations

import pytest
import torch

from model_store.architectures import build
from model_store.card import Card
from model_store.errors import UnknownModelError
from model_store.store import ModelStore
from robustness.adversaries import craft
from robustness.attacks.iterative import IFGSM
from robustness.attacks.ssp import SSP
from robustness.errors import AttackError, VictimError
from robustness.judgement import Bench
from robustness.surrogates import Surrogate, load_surrogate

CPU = torch.device("cpu")


def test_a_feature_network_gives_its_own_features_and_excites_its_own_layers(surrogate: Surrogate) -> None:
    module = surrogate.module
    images = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(surrogate.features(images), module.extract(images))  # type: ignore[operator]
    torch.testing.assert_close(surrogate.logits(images), module(images))
    excited = surrogate.activations(images)
    assert [layer.shape[1] for layer in excited] == [4, 4, 8, 8, 16, 16, 16]  # the trunk's seven, not the head's
    assert all(layer.min() == 0 for layer in excited)  # after the ReLU: what it removes excites nothing


def test_a_layer_of_a_classifier_is_read_where_it_is_named(store: ModelStore) -> None:
    surrogate = load_surrogate(store, "victim-a", CPU, "stages.0")
    seen: list[torch.Tensor] = []
    images = torch.rand(2, 3, 16, 16)
    with surrogate.module.get_submodule("stages.0").register_forward_hook(lambda _, __, out: seen.append(out)):
        surrogate.module(images)
    torch.testing.assert_close(surrogate.features(images), seen[0])
    assert len(surrogate.activations(images)) == sum(isinstance(m, torch.nn.Conv2d) for m in surrogate.module.modules())


def test_weights_and_layer_are_its_identity(store: ModelStore) -> None:
    sha256 = store.card("victim-a").sha256
    found = {load_surrogate(store, "victim-a", CPU, layer).identity for layer in ("stem", "stages.0")}
    assert len(found) == 2
    assert all(sha256 in identity for identity in found)
    assert store.card("features").sha256 in load_surrogate(store, "features", CPU).identity


def test_what_has_no_features_to_follow_is_refused(store: ModelStore) -> None:
    with pytest.raises(VictimError, match=r"victim-a is no feature network.*layer"):
        load_surrogate(store, "victim-a", CPU)
    with pytest.raises(VictimError, match="no layer 'nowhere'"):
        load_surrogate(store, "victim-a", CPU, "nowhere")
    with pytest.raises(UnknownModelError, match="nobody"):
        load_surrogate(store, "nobody", CPU)


def test_photos_tell_it_labels_and_scenes_do_not(surrogate: Surrogate) -> None:
    images = torch.rand(3, 3, 16, 16)
    labels = torch.tensor([0, 2, 1])
    known = surrogate.learn({"labels": labels}, torch.Generator())
    assert known.loss is not None
    expected = -surrogate.logits(images).log_softmax(1)[torch.arange(3), labels]
    torch.testing.assert_close(known.loss(images), expected)
    assert known.labels is labels
    boxes = {"boxes": torch.zeros(3, 2, 4), "labels": torch.zeros(3, 2, dtype=torch.int64)}
    for truths in (boxes, {"mask": torch.zeros(3, 16, 16, dtype=torch.int64)}):
        blind = surrogate.learn(truths, torch.Generator())
        assert (blind.loss, blind.logits, blind.labels) == (None, None, None)
        assert blind.features is not None
        assert blind.activations is not None


def test_its_threats_are_transfers_that_name_it(surrogate: Surrogate, bench: Bench) -> None:
    threat = surrogate.threat(SSP(16, iterations=3))
    assert threat.scenario.attacker == "transfer"
    assert threat.scenario.surrogate == "features"
    found = craft(threat, bench.examples, bench.conditions, bench.progress)
    images = bench.examples.pixels / 255
    moved = (surrogate.features(found["pixels"] / 255) - surrogate.features(images)).square().mean()
    noise = (torch.rand(images.shape) > 0.5).float() * 2 - 1
    noised = ((images + 16 / 255 * noise).clamp(0, 1) * 255).round() / 255
    assert moved > (surrogate.features(noised) - surrogate.features(images)).square().mean()
    assert not found["blind"].any()


def test_an_attack_by_labels_on_scenes_says_what_it_lacks(surrogate: Surrogate) -> None:
    known = surrogate.learn({"mask": torch.zeros(1, 16, 16, dtype=torch.int64)}, torch.Generator())
    with pytest.raises(AttackError, match="I-FGSM needs a loss"):
        IFGSM(8)(torch.rand(1, 3, 16, 16), known, torch.Generator())


def test_a_feature_network_without_a_head_still_gives_features(store: ModelStore) -> None:
    shape = {"classes": None, "width": 0.0625}
    card = Card(name="trunk", summary="s", task="feature-network", architecture="vgg16_conv3_3", arguments=shape)
    store.publish(card, build("vgg16_conv3_3", shape))
    known = load_surrogate(store, "trunk", CPU).learn({"labels": torch.tensor([0])}, torch.Generator())
    assert known.features is not None
    assert (known.loss, known.logits) == (None, None)
