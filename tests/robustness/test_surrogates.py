from __future__ import annotations

from pathlib import Path

import pytest
import torch

from model_store.architectures import build
from model_store.card import Card, InputConvention
from model_store.devices import computes_in_bfloat16
from model_store.errors import UnavailableModelError, UnknownModelError
from model_store.store import ModelStore
from robustness.adversaries import craft
from robustness.attacks.ascent import random_start
from robustness.attacks.iterative import IFGSM
from robustness.attacks.scattering import FSA
from robustness.attacks.ssp import SSP
from robustness.attacks.universal import fast_feature_fool, response
from robustness.datasets.nips17 import is_nips17, read_nips17
from robustness.errors import AttackError, VictimError
from robustness.features import read_layers
from robustness.judgement import Bench
from robustness.progress import Progress
from robustness.surrogates import Ensemble, Surrogate, load_surrogate
from robustness.victims.classification import load_classifiers

CPU = torch.device("cpu")
NIPS17 = Path(__file__).parents[3] / "shared" / "data" / "nips17"
BOTH = "features,victim-a:stages.0"


@pytest.fixture
def deep(store: ModelStore) -> ModelStore:
    """The store with a headless trunk of five blocks in it, as the shipped vgg16-hed is."""
    torch.manual_seed(4)
    shape = {"classes": None, "width": 0.0625, "blocks": 5}
    card = Card(name="deep", summary="s", task="feature-network", architecture="vgg16_conv3_3", arguments=shape)
    store.publish(card, build("vgg16_conv3_3", shape))
    return store


def shipped(name: str) -> Surrogate:
    """A surrogate of the shipped store; skips where its weights are not installed."""
    try:
        return load_surrogate(ModelStore(), name, CPU)
    except UnavailableModelError as missing:
        pytest.skip(str(missing))


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


def test_its_norms_are_folded_and_every_layer_gives_what_the_stored_network_gives(store: ModelStore) -> None:
    stored = store.load("victim-a").module
    convolutions = [name for name, part in stored.named_modules() if isinstance(part, torch.nn.Conv2d)]
    images = torch.rand(2, 3, 16, 16)
    for layer in ("stages.0", convolutions[0]):
        surrogate = load_surrogate(store, "victim-a", CPU, layer)
        left = [name for name, part in surrogate.module.named_modules() if isinstance(part, torch.nn.BatchNorm2d)]
        assert len(left) == (layer in convolutions)  # the norm behind a convolution that is read stays
        wanted = read_layers(stored, (layer, *convolutions), images)
        found = [surrogate.features(images), *surrogate.activations(images)]
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(surrogate.logits(images), stored(images), rtol=1e-4, atol=1e-5)


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


def test_a_trunk_is_read_beyond_conv3_3_by_its_layers_names(deep: ModelStore) -> None:
    images = torch.rand(1, 3, 32, 32)
    found = load_surrogate(deep, "deep", CPU)
    assert found.features(images).shape == (1, 16, 8, 8)
    last = load_surrogate(deep, "deep:features.29", CPU)
    assert last.features(images).shape == (1, 32, 2, 2)
    assert last.identity == load_surrogate(deep, "deep", CPU, "features.29").identity != found.identity
    excited = found.activations(images)
    assert [layer.shape[1] for layer in excited] == [4, 4, 8, 8, 16, 16, 16, 32, 32, 32, 32, 32, 32]
    torch.testing.assert_close(excited[6], found.features(images))
    torch.testing.assert_close(excited[-1], last.features(images))


def test_fff_and_fsa_follow_a_network_without_a_head(deep: ModelStore) -> None:
    surrogate = load_surrogate(deep, "deep", CPU)
    generator = torch.Generator().manual_seed(0)
    noise = fast_feature_fool(surrogate.activations, (32, 32), 10, 20, generator=generator)
    start = (torch.rand((1, 3, 32, 32), generator=torch.Generator().manual_seed(0)) * 2 - 1) * 10 / 255
    colour = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    assert response(surrogate.activations, colour + noise) > response(surrogate.activations, colour + start)
    images = torch.rand(3, 3, 32, 32)
    known = surrogate.learn({}, torch.Generator())
    with pytest.raises(AttackError, match="FSA needs logits"):
        FSA(8)(images, known, torch.Generator())
    attack = FSA(8, space="features", rounds=20)
    assert attack.name == "FSA (rounds 20, space features)"
    found = attack(images, known, torch.Generator().manual_seed(1))
    begin = random_start(images, 8, "uniform", torch.Generator().manual_seed(1))
    pooled = [surrogate.features(seen).mean((2, 3)) for seen in (images, begin, found)]
    start_angle, angle = (torch.cosine_similarity(pooled[0], moved).mean() for moved in pooled[1:])
    assert angle < start_angle


def test_several_networks_are_attacked_at_once_whatever_the_scale_of_each(store: ModelStore) -> None:
    both = load_surrogate(store, BOTH, CPU)
    assert isinstance(both, Ensemble)
    first, second = both.members
    images = torch.rand(3, 3, 16, 16)
    known = both.learn({"labels": torch.tensor([0, 1, 2])}, torch.Generator())
    assert (known.loss, known.logits, known.labels) == (None, None, None)
    assert known.features is not None
    maps = known.features(images)
    torch.testing.assert_close(maps[0], first.features(images))
    torch.testing.assert_close(maps[1], second.features(images))
    assert len(both.activations(images)) == len(first.activations(images)) + len(second.activations(images))
    assert both.features(images).shape == (3, maps[0].shape[1] + maps[1].shape[1])
    loud = Ensemble("b", "i", both.module, both.features, both.activations, members=(first, _louder(second)))
    seed = torch.Generator().manual_seed
    quiet_found = SSP(8, iterations=3)(images, known, seed(0))
    loud_found = SSP(8, iterations=3)(images, loud.learn({}, seed(0)), seed(0))
    assert (quiet_found != loud_found).float().mean() < 0.02  # the sign of a gradient of about zero may turn
    alone = SSP(8, iterations=3)(images, second.learn({}, seed(0)), seed(0))
    assert (quiet_found != alone).float().mean() > 0.05


def _louder(surrogate: Surrogate) -> Surrogate:
    """The same network, its features a thousand times as large."""

    def features(images: torch.Tensor) -> torch.Tensor:
        return 1000 * surrogate.features(images)

    return Surrogate(surrogate.name, surrogate.identity, surrogate.module, features, surrogate.activations)


def test_an_ensembles_identity_and_faults_are_its_members(store: ModelStore) -> None:
    both = load_surrogate(store, BOTH, CPU)
    assert isinstance(both, Ensemble)
    assert both.name == BOTH
    assert all(member.identity in both.identity for member in both.members)
    assert both.threat(SSP(8)).scenario.surrogate == BOTH
    with pytest.raises(VictimError, match=r"victim-a is no feature network.*layer"):
        load_surrogate(store, "features,victim-a", CPU)
    with pytest.raises(VictimError, match="NAME:LAYER for each"):
        load_surrogate(store, BOTH, CPU, "stages.0")


def test_torchvisions_own_network_has_five_blocks_and_no_other_is_taken(
    store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = build("vgg16_conv3_3", {"classes": None, "blocks": 5}).state_dict()
    state["classifier.0.weight"] = torch.zeros(1)
    monkeypatch.setattr("robustness.surrogates.read_official", lambda *_: state)
    found = load_surrogate(store, "torchvision:vgg16:features.22", CPU)
    assert found.features(torch.rand(1, 3, 16, 16)).shape == (1, 512, 2, 2)
    assert found.identity.startswith("vgg16-")
    assert load_surrogate(store, "torchvision:vgg16", CPU).identity.endswith(".pth features")
    with pytest.raises(VictimError, match="torchvision:resnet50 is no surrogate; name torchvision:vgg16"):
        load_surrogate(store, "torchvision:resnet50", CPU, "layer1")


def test_the_shipped_surrogates_give_the_papers_layer_and_lite0s_stages() -> None:
    images = torch.rand(1, 3, 64, 64)
    trunk = shipped("vgg16-hed")
    torch.testing.assert_close(trunk.features(images), trunk.module.extract(images))  # type: ignore[operator]
    both = shipped("vgg16-hed,efficientnet-lite0:network.blocks.2")
    known = both.learn({}, torch.Generator())
    assert known.features is not None
    assert [tuple(each.shape[1:]) for each in known.features(images)] == [(256, 16, 16), (40, 8, 8)]


@pytest.mark.slow
@pytest.mark.skipif(not is_nips17(NIPS17), reason="the NeurIPS 2017 photos are not here")
def test_ten_steps_on_vgg_harm_strangers_more_than_random_corners_do() -> None:
    trunk = shipped("vgg16-hed")
    convention = InputConvention(short_side=256, crop=224)
    try:
        victims = load_classifiers(ModelStore(), ["efficientnet-lite1", "squeezenet"], CPU, convention)
    except UnavailableModelError as missing:
        pytest.skip(str(missing))
    examples = read_nips17(NIPS17, convention, Progress(quiet=True), limit=8)
    images, seed = examples.pixels / 255, torch.Generator().manual_seed
    with torch.autocast("cpu", torch.bfloat16, enabled=computes_in_bfloat16(CPU)):
        found = SSP(16, step=4, iterations=10)(images, trunk.learn({}, seed(0)), seed(0))
    noised = random_start(images, 16, "corner", seed(0))
    for victim in victims:
        harmed, shaken = (-victim.loss(seen.unsqueeze(1), examples.truths).mean() for seen in (found, noised))
        assert harmed < shaken - 0.3, victim.name  # the mean log-probability of the truth
    right = [
        sum(victim.score(victim.answer(seen.unsqueeze(1)), examples.truths).percent for victim in victims)
        for seen in (found, noised)
    ]
    assert right[0] < right[1]
