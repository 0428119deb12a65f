from __future__ import annotations

import importlib
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from model_store.inference import STATIC, InferenceMode
from robustness.errors import EvaluationError

MODULE = "robustness.adapters.art_preprocessor"


def adapter() -> Any:
    pytest.importorskip("art")
    return importlib.import_module(MODULE).PurifierPreprocessor


def preprocessor(purifier: nn.Module, mode: InferenceMode = STATIC, **settings: Any) -> Any:
    return adapter()(purifier, mode, **settings)


def classifier(module: nn.Module, *defences: Any) -> Any:
    return pytest.importorskip("art.estimators.classification").PyTorchClassifier(
        model=module,
        loss=nn.CrossEntropyLoss(),
        input_shape=(3, 8, 8),
        nb_classes=4,
        clip_values=(0.0, 1.0),
        preprocessing_defences=list(defences),
        device_type="cpu",
    )


def pgd(estimator: Any, toy: Any) -> Any:
    attacks = pytest.importorskip("art.attacks.evasion.projected_gradient_descent.projected_gradient_descent_pytorch")
    attack = attacks.ProjectedGradientDescentPyTorch(
        estimator, eps=16 / 255, eps_step=4 / 255, max_iter=6, verbose=False
    )
    return attack.generate(toy.images.numpy(), toy.labels.numpy())


def gradient(estimator: Any, toy: Any) -> Any:
    return estimator.loss_gradient(toy.images.numpy(), np.eye(4, dtype=np.float32)[toy.labels.numpy()])


def accuracy(estimator: Any, images: Any, toy: Any) -> float:
    return float((estimator.predict(images).argmax(1) == toy.labels.numpy()).mean())


@pytest.mark.parametrize("way", ["exact", "identity"])
def test_arts_pgd_breaks_a_differentiable_purifier_both_ways(
    toy: Any, blur: nn.Module, colours: nn.Module, way: str
) -> None:
    estimator = classifier(colours, preprocessor(blur, gradient=way))
    found = pgd(estimator, toy)
    assert not toy.outside(torch.from_numpy(found), 16)
    assert accuracy(estimator, toy.images.numpy(), toy) == 1
    assert accuracy(estimator, found, toy) < 0.3


def test_bpda_breaks_a_purifier_without_a_gradient(toy: Any, rounding: nn.Module, colours: nn.Module) -> None:
    plain, bpda = (classifier(colours, preprocessor(rounding, gradient=way)) for way in ("exact", "identity"))
    images = toy.images.numpy()
    assert not gradient(plain, toy).any()
    assert gradient(bpda, toy).any()
    assert (pgd(plain, toy) == images).all()
    assert accuracy(bpda, images, toy) == 1
    assert accuracy(bpda, pgd(bpda, toy), toy) < 0.3


def test_arts_own_substitute_gradient_would_not_have_done(toy: Any, rounding: nn.Module, colours: nn.Module) -> None:
    """What makes ``forward`` carry the gradient: ART's attacks never ask for ``estimate_forward``."""

    def substitute(self: Any, images: Any, labels: Any = None) -> Any:
        return images

    estimated = type("Estimated", (adapter(),), {"estimate_forward": substitute})
    estimator = classifier(colours, estimated(rounding, gradient="exact"))
    assert not gradient(estimator, toy).any()


def test_the_numpy_path_gets_the_same_gradient(toy: Any, rounding: nn.Module) -> None:
    images, weights = toy.images.numpy(), np.random.default_rng(0).normal(size=toy.images.shape).astype(np.float32)
    assert (preprocessor(rounding, gradient="identity").estimate_gradient(images, weights) == weights).all()
    assert not preprocessor(rounding).estimate_gradient(images, weights).any()


def test_values_are_the_purifiers_whatever_the_gradient(toy: Any, blur: nn.Module) -> None:
    expected = blur(toy.images)
    for way in ("exact", "identity"):
        found, labels = preprocessor(blur, gradient=way)(toy.images.numpy(), toy.labels.numpy())
        assert np.array_equal(found, expected.numpy())
        assert np.array_equal(labels, toy.labels.numpy())


def test_randomised_modes_draw_from_the_seed(toy: Any, blur: nn.Module) -> None:
    noisy, images = InferenceMode(noise_std=0.1, draws=2), toy.images.numpy()
    first, _ = preprocessor(blur, noisy, seed=1)(images)
    assert np.array_equal(preprocessor(blur, noisy, seed=1)(images)[0], first)
    assert not np.array_equal(preprocessor(blur, noisy, seed=2)(images)[0], first)
    assert not np.array_equal(preprocessor(blur, noisy)(images)[0], preprocessor(blur, noisy)(images)[0])


def test_it_predicts_but_does_not_fit_unless_asked(blur: nn.Module) -> None:
    assert (preprocessor(blur).apply_fit, preprocessor(blur).apply_predict) == (False, True)
    assert preprocessor(blur, apply_fit=True).apply_fit


def test_another_gradient_is_refused(blur: nn.Module) -> None:
    with pytest.raises(EvaluationError, match="exact, identity"):
        preprocessor(blur, gradient="none")
    with pytest.raises(EvaluationError, match="exact, identity"):
        preprocessor(blur).set_params(gradient="none")


def test_without_art_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    monkeypatch.setitem(sys.modules, "art.defences.preprocessor.preprocessor", None)
    with pytest.raises(EvaluationError, match=r"install the extra: pip install -e \"\.\[art\]\""):
        importlib.import_module(MODULE)
