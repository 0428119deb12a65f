from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from model_store.card import Card, Inference
from model_store.certification import Smoothing, certify
from model_store.inference import STATIC, InferenceMode, PurifierDraws, seeded
from model_store.pixels import fit, image_to_bytes, to_float
from model_store.store import ModelStore
from service.certification import Certification
from service.certify_order import certifiable, copy_weight, make_certify_order, own_sigma
from service.engine import Engine
from service.errors import DeadlineExceededError, InvalidParameterError
from service.options import ClassifyQuery
from service.settings import Settings
from tests.service.certificates import SIDE, BrightEngine, expected
from tests.service.scenes import SceneEngine

PICTURE = Path(__file__).parent / "golf-ball-adversarial.png"
GREY = Image.new("RGB", (SIDE, SIDE), (128, 128, 128))


@pytest.fixture
def begun(settings_for: Callable[..., Settings]) -> Callable[..., tuple[Engine, Certification]]:
    """An engine, and a certification that it has not been asked about yet."""

    def make(**changes: Any) -> tuple[Engine, Certification]:
        settings = settings_for(**{"smoothing_purifier": "noise", "batch_pixels": 8 * SIDE * SIDE, **changes})
        engine = BrightEngine(settings)
        order = make_certify_order(engine, settings, ClassifyQuery(certify=True, n0=10, n=50, seed=3))
        return engine, Certification(image_to_bytes(GREY), order)

    return make


class Broken(nn.Module):
    """Cannot be run."""

    def forward(self, images: Tensor) -> Tensor:
        raise AssertionError(images.shape)


def test_the_purifier_is_the_same_from_the_first_copy_to_the_last(begun: Any) -> None:
    engine, certification = begun()
    certification.advance(engine)
    engine._loaded["noise"] = Broken()  # as an activation in between puts other weights in service
    while not certification.finished:
        certification.advance(engine)
    assert certification.certificate().radius == expected(GREY, 3, 10, 50).radius


def test_chunks_are_of_one_run_and_never_mix_the_copies_that_choose_with_those_that_bound(begun: Any) -> None:
    engine, certification = begun()
    seen = []
    while not certification.finished:
        certification.advance(engine)
        seen.append(certification.done)
    assert seen == [8, 10, 18, 26, 34, 42, 50, 58, 60]


def test_who_is_abandoned_stops_before_the_next_run_and_a_second_try_sees_the_same_noise(begun: Any) -> None:
    engine, certification = begun()
    certification.abandoned.set()
    with pytest.raises(DeadlineExceededError):
        certification.advance(engine)
    assert certification.done == 0
    certification.abandoned.clear()
    while not certification.finished:
        certification.advance(engine)
    assert certification.certificate().counts.tolist() == expected(GREY, 3, 10, 50).counts.tolist()


def test_a_small_image_counts_for_what_the_classifier_makes_of_it(begun: Any, settings_for: Any) -> None:
    settings = settings_for(smoothing_purifier="noise")
    order = make_certify_order(Engine(settings), settings, ClassifyQuery(certify=True))
    assert copy_weight(order, 4, 4) == SIDE * SIDE  # the classifier's crop
    assert copy_weight(order, 100, 50) == 5000


@pytest.mark.parametrize(
    ("mode", "sigma"),
    [
        (InferenceMode(noise_std=0.25, draws=4), 0.25),
        (InferenceMode(), None),
        (InferenceMode(noise_std=0.25, jpeg=20), None),
        (InferenceMode(noise_std=0.05, ball=16), None),
    ],
)
def test_sigma_is_the_card_s_where_its_noise_is_plain(mode: InferenceMode, sigma: float | None) -> None:
    inference = Inference(default="own", modes={"own": mode})
    card = Card(name="x", summary="x", task="purifier", architecture="identity", inference=inference)
    assert own_sigma(card) == sigma
    assert own_sigma(card.model_copy(update={"inference": None})) is None


def test_the_shipped_smoothing_purifier_says_its_sigma() -> None:
    assert own_sigma(ModelStore().card(Settings().smoothing_purifier)) == 0.25


def test_only_a_classifier_that_runs_here_is_certifiable(settings_for: Any) -> None:
    engine = SceneEngine(settings_for())
    with pytest.raises(InvalidParameterError, match=r"certify: .* \(NRP_CLASSIFIER\)"):
        certifiable(engine.downstream("segmenter"))


@pytest.mark.slow
def test_the_shipped_models_certify_a_photo_as_evaluation_does() -> None:
    settings = Settings(device="cpu", precision="float32", purifier="nrp-smoothing", classifier="imagenette-resnet")
    engine = Engine(settings, tasks=["classifier"])
    order = make_certify_order(engine, settings, ClassifyQuery(certify=True, n0=4, n=24, seed=0))
    with Image.open(PICTURE) as photo:
        pixels = image_to_bytes(photo.convert("RGB").resize((128, 128)))
    certification = Certification(pixels, order)
    while not certification.finished:
        certification.advance(engine)
    purifier = PurifierDraws(ModelStore().load("nrp-smoothing").module, STATIC)
    classifier = ModelStore().load(settings.classifier)

    def classify(noisy: Tensor) -> Any:
        purified = purifier.draws(noisy, range(len(noisy)))[:, 0]
        return classifier.module(fit(purified, classifier.card.input)).argmax(dim=1)

    with torch.inference_mode():
        wanted = certify(classify, to_float(pixels), Smoothing(0.25, 4, 24, batch=14), 10, seeded(0))
    found = certification.certificate()
    assert order.model.labels[found.label] == "golf ball"
    assert found.counts.tolist() == wanted.counts.tolist()
    assert (found.label, found.radius) == (wanted.label, wanted.radius)
