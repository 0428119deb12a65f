from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from model_store.pixels import fit, image_to_bytes, to_float
from model_store.store import ModelStore


def test_labels_are_those_of_the_classifier_itself(
    client: Any, photo: Callable[..., Image.Image], file_of: Callable[..., bytes], store_root: Path
) -> None:
    image = photo(40, 30)
    answer = client.post("/classify-robust?compare=true&top_k=3", content=file_of(image)).json()
    loaded = ModelStore(store_root).load("tiny")
    batch = fit(to_float(image_to_bytes(image)).unsqueeze(0), loaded.card.input)
    wanted = loaded.module(batch).softmax(dim=1)[0]
    for kind in ("predictions", "undefended"):
        probabilities = [p["probability"] for p in answer[kind]]
        assert probabilities == sorted(probabilities, reverse=True)
        assert sum(probabilities) == pytest.approx(1, abs=1e-5)
        for prediction in answer[kind]:
            assert prediction["label"] == loaded.card.labels[prediction["index"]]
            assert prediction["probability"] == pytest.approx(wanted[prediction["index"]].item(), abs=1e-4)
    assert answer["model"] == "tiny"
    assert answer["purifier"] == "plain"
    assert answer["suspicion"]["prediction_shift"] == pytest.approx(0, abs=1e-6)
    assert set(answer["timings_ms"]) == {"decode", "queue", "purify", "downstream", "encode"}


def test_without_compare_the_undefended_answer_is_left_out(
    client: Any, photo: Callable[..., Image.Image], file_of: Callable[..., bytes]
) -> None:
    answer = client.post("/classify-robust?top_k=1&model=tiny", content=file_of(photo())).json()
    assert answer["undefended"] is None
    assert len(answer["predictions"]) == 1


def test_probabilities_are_averaged_over_the_draws(
    client: Any, photo: Callable[..., Image.Image], file_of: Callable[..., bytes], store_root: Path
) -> None:
    image = photo(16, 16)
    answer = client.post("/classify-robust?mode=noisy&seed=3&samples=2&top_k=3", content=file_of(image)).json()
    loaded = ModelStore(store_root).load("tiny")
    generator = torch.Generator().manual_seed(3)
    original = to_float(image_to_bytes(image))
    draws = torch.stack([original + 0.1 * torch.randn(original.shape, generator=generator) for _ in range(2)])
    wanted = loaded.module(fit(draws.clamp(0, 1), loaded.card.input)).softmax(dim=1).mean(dim=0)
    for prediction in answer["predictions"]:
        assert prediction["probability"] == pytest.approx(wanted[prediction["index"]].item(), abs=1e-4)
    assert answer["mode"]["draws"] == 2
    assert answer["suspicion"]["prediction_shift"] > 0


def test_the_same_seed_gives_the_same_answer(
    client: Any, photo: Callable[..., Image.Image], file_of: Callable[..., bytes]
) -> None:
    data = file_of(photo())
    first, second = (client.post("/classify-robust?mode=noisy&seed=8", content=data).json() for _ in range(2))
    assert first["predictions"] == second["predictions"]
    assert first["request_id"] != second["request_id"]


def test_a_sliver_is_classified_without_being_blown_up(
    client: Any, photo: Callable[..., Image.Image], file_of: Callable[..., bytes]
) -> None:
    assert client.post("/classify-robust", content=file_of(photo(5000, 2))).status_code == 200


def test_an_accept_without_json_is_refused(
    client: Any, photo: Callable[..., Image.Image], file_of: Callable[..., bytes]
) -> None:
    answer = client.post("/classify-robust", content=file_of(photo()), headers={"accept": "image/png"})
    assert answer.status_code == 406
