"""A checkpoint published while the service runs, and put in service without losing a request."""

from __future__ import annotations

import gc
import shutil
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from model_store.architectures import build
from model_store.card import Card, Inference
from model_store.inference import InferenceMode
from model_store.store import ModelStore

KEY = "a key of sixteen letters or more"
ARGUMENTS = {"widths": (8, 8), "encoder": (1, 1), "decoder": (1,)}


def until(condition: Any) -> None:
    give_up = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.002)


@pytest.fixture
def store(store_root: Path, tmp_path: Path) -> ModelStore:
    return ModelStore(shutil.copytree(store_root, tmp_path / "store"))


def publish(store: ModelStore, name: str, seed: int, **changes: Any) -> Card:
    """A purifier that really changes an image, each seed in its own way."""
    module = build("nrp_lite", ARGUMENTS)
    torch.manual_seed(seed)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.1)
    card = Card(name=name, summary="random", task="purifier", architecture="nrp_lite", arguments=ARGUMENTS, **changes)
    return store.publish(card, module, replace=True)


@pytest.fixture
def service(client_for: Any, store: ModelStore) -> Iterator[Callable[..., Any]]:
    def make(*engine_class: Any, **changes: Any) -> Any:
        return client_for(*engine_class, **{"model_store": store.root, "admin_key": KEY, **changes})

    return make


def activate(client: Any, name: str, key: str | None = KEY) -> Any:
    return client.post(f"/models/{name}/activate", headers={} if key is None else {"x-nrp-admin-key": key})


def info(client: Any) -> list[str]:
    return [line for line in client.get("/metrics").text.splitlines() if line.startswith("nrp_model_info{")]


def test_a_new_checkpoint_becomes_the_default_and_everything_says_so(
    service: Any, store: ModelStore, photo: Callable[..., Image.Image], file_of: Callable[..., bytes]
) -> None:
    client = service()
    before = client.get("/models").json()
    card = publish(store, "fresh", 1)
    answer = activate(client, "fresh")
    assert answer.status_code == 200, answer.text
    old = next(model["card"] for model in before["models"] if model["card"]["name"] == "plain")
    assert answer.json() == {
        "purifier": {"name": "fresh", "sha256": card.sha256},
        "before": {"name": "plain", "sha256": old["sha256"]},
    }
    listed = client.get("/models").json()
    assert listed["purifier"] == "fresh"
    assert [model["card"]["name"] for model in listed["models"]] == ["fresh", "noise", "plain", "tiny"]
    assert client.get("/models/fresh").json()["loaded"] is True
    purified = client.post("/purify", content=file_of(photo()))
    assert purified.headers["x-nrp-purifier"] == "fresh"
    assert int(purified.headers["x-nrp-linf"]) > 0
    assert len(info(client)) == 2
    assert any(f'name="fresh",sha256="{card.sha256}"' in line for line in info(client))
    until(lambda: client.get("/models/plain").json()["loaded"] is False)
    named = client.post("/purify?purifier=plain", content=file_of(photo()))
    assert (named.status_code, named.headers["x-nrp-linf"]) == (200, "0")


def test_what_was_published_again_under_the_same_name_is_loaded_again(
    service: Any, store: ModelStore, photo: Callable[..., Image.Image], file_of: Callable[..., bytes]
) -> None:
    first = publish(store, "fresh", 1)
    client = service(purifier="fresh")
    one = client.post("/purify", content=file_of(photo())).content
    second = publish(store, "fresh", 2)
    assert client.post("/purify", content=file_of(photo())).content == one
    assert activate(client, "fresh").json() == {
        "purifier": {"name": "fresh", "sha256": second.sha256},
        "before": {"name": "fresh", "sha256": first.sha256},
    }
    assert client.post("/purify", content=file_of(photo())).content != one
    assert client.get("/models/fresh").json()["card"]["sha256"] == second.sha256
    assert [first.sha256 in line for line in info(client)] == [False, False]
    assert sum(second.sha256 in line for line in info(client)) == 1


def test_another_that_was_published_again_is_loaded_again_when_asked_for(
    service: Any, store: ModelStore, photo: Callable[..., Image.Image], file_of: Callable[..., bytes]
) -> None:
    publish(store, "other", 1)
    client = service()
    one = client.post("/purify?purifier=other", content=file_of(photo())).content
    second = publish(store, "other", 2)
    activate(client, "noise")
    until(lambda: client.get("/models/other").json()["loaded"] is False)
    assert client.get("/models/other").json()["card"]["sha256"] == second.sha256
    assert client.post("/purify?purifier=other", content=file_of(photo())).content != one


def test_the_old_weights_are_freed_once_their_requests_have_ended(
    service: Any, store: ModelStore, gated_engine: Any, photo: Callable[..., Image.Image], file_of: Callable[..., bytes]
) -> None:
    publish(store, "first", 1)
    client = service(gated_engine, purifier="first")
    engine = client.state.engine
    old = weakref.ref(engine._loaded["first"])
    waiting = [client.sending("POST", "/purify", content=file_of(photo()))]
    assert engine.entered.wait(10)
    waiting += [client.sending("POST", "/purify", content=file_of(photo())) for _ in range(3)]
    until(lambda: client.state.batcher.depth == 3)
    publish(store, "second", 2)
    shutil.rmtree(store.root / "first")  # those in the queue must not need it
    activating = client.sending("POST", "/models/second/activate", headers={"x-nrp-admin-key": KEY})
    engine.gate.set()
    assert activating.result(30).status_code == 200
    answers = [answer.result(30) for answer in waiting]
    assert [(a.status_code, a.headers["x-nrp-purifier"]) for a in answers] == [(200, "first")] * 4
    assert len({answer.content for answer in answers}) == 1
    until(lambda: "first" not in engine.loaded)
    gc.collect()
    assert old() is None


def test_a_stream_of_requests_loses_none_and_each_has_one_model_s_answer(
    service: Any,
    store: ModelStore,
    photo: Callable[..., Image.Image],
    file_of: Callable[..., bytes],
    image_of: Callable[[bytes], Image.Image],
) -> None:
    publish(store, "a", 1)
    client = service(purifier="a")
    files = [file_of(photo(16 + 8 * (n % 2), 16, n)) for n in range(4)]

    def levels(answer: Any) -> Any:
        assert answer.status_code == 200
        return np.asarray(image_of(answer.content)).astype(int)

    def alone() -> list[Any]:
        return [levels(client.post("/purify", content=data)) for data in files]

    def stream() -> list[Any]:
        return [client.sending("POST", "/purify", content=files[n % 4]) for n in range(12)]

    truths, sent = [alone()], stream()
    for name, seed in (("a", 2), ("b", 3)):
        publish(store, name, seed)
        assert activate(client, name).status_code == 200
        sent += stream()
        truths.append(alone())
    for place, answer in enumerate(sent):
        got = levels(answer.result(60))
        # A batch may round one level otherwise than an image alone; two models differ by far more.
        assert sum(np.abs(got - truth[place % 4]).max() <= 1 for truth in truths) == 1


class _Unfit:
    """Ways in which a checkpoint can be bad, each with what is said of it."""

    @staticmethod
    def tampered(store: ModelStore) -> None:
        publish(store, "bad", 1)
        path = store.root / "bad" / "weights.safetensors"
        path.write_bytes(path.read_bytes()[:-1] + b"!")

    @staticmethod
    def incompatible(store: ModelStore) -> None:
        card = publish(store, "bad", 1)
        store.rewrite_card(card.model_copy(update={"arguments": {**ARGUMENTS, "widths": (8, 16)}}))

    @staticmethod
    def unknown_architecture(store: ModelStore) -> None:
        card = publish(store, "bad", 1)
        store.rewrite_card(card.model_copy(update={"architecture": "no_such"}))

    @staticmethod
    def no_card(store: ModelStore) -> None:
        publish(store, "bad", 1)
        (store.root / "bad" / "card.json").write_text("{")

    @staticmethod
    def not_finite(store: ModelStore) -> None:
        module = build("nrp_lite", ARGUMENTS)
        for parameter in module.parameters():
            nn.init.constant_(parameter, float("nan"))
        card = Card(name="bad", summary="", task="purifier", architecture="nrp_lite", arguments=ARGUMENTS)
        store.publish(card, module)

    @staticmethod
    def classifier(store: ModelStore) -> None:
        shutil.copytree(store.root / "tiny", store.root / "bad")
        path = store.root / "bad" / "card.json"
        path.write_text(path.read_text().replace('"name": "tiny"', '"name": "bad"'))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_Unfit.tampered, "sha256"),
        (_Unfit.incompatible, "do not fit"),
        (_Unfit.unknown_architecture, "architecture"),
        (_Unfit.no_card, "card"),
        (_Unfit.not_finite, "NonFiniteOutputError"),
        (_Unfit.classifier, "no purifier"),
    ],
)
def test_a_bad_checkpoint_leaves_the_old_one_serving(
    service: Any,
    store: ModelStore,
    photo: Callable[..., Image.Image],
    file_of: Callable[..., bytes],
    spoil: Callable[[ModelStore], None],
    said: str,
) -> None:
    client = service()
    served = client.get("/models").json()
    spoil(store)
    answer = activate(client, "bad")
    assert answer.status_code == 409, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert said in answer.json()["detail"]
    assert str(store.root) not in answer.text
    assert client.get("/models").json() == served
    assert client.post("/purify", content=file_of(photo())).headers["x-nrp-purifier"] == "plain"
    assert client.get("/health/ready").status_code == 200


def test_a_bad_checkpoint_under_the_default_s_own_name_leaves_the_loaded_weights(
    service: Any, store: ModelStore, photo: Callable[..., Image.Image], file_of: Callable[..., bytes]
) -> None:
    first = publish(store, "bad", 1)
    client = service(purifier="bad")
    one = client.post("/purify", content=file_of(photo())).content
    shutil.rmtree(store.root / "bad")
    _Unfit.not_finite(store)
    assert activate(client, "bad").status_code == 409
    assert client.post("/purify", content=file_of(photo())).content == one
    assert client.get("/models/bad").json()["card"]["sha256"] == first.sha256


def test_the_mode_of_the_new_card_is_the_default_from_then_on(
    service: Any, store: ModelStore, photo: Callable[..., Image.Image], file_of: Callable[..., bytes]
) -> None:
    client = service()
    modes = {"noisy": InferenceMode(noise_std=0.2, draws=2)}
    publish(store, "plain", 1, inference=Inference(default="noisy", modes=modes))
    activate(client, "plain")
    answer = client.post("/purify", content=file_of(photo()), headers={"accept": "application/json"}).json()
    assert (answer["mode"]["name"], answer["mode"]["draws"]) == ("noisy", 2)


def test_there_and_back_again(
    service: Any, photo: Callable[..., Image.Image], file_of: Callable[..., bytes], image_of: Any
) -> None:
    client = service()
    for name in ("noise", "plain", "noise", "plain"):
        assert activate(client, name).json()["purifier"]["name"] == name
    until(lambda: client.get("/models/noise").json()["loaded"] is False)
    assert client.get("/models/plain").json()["loaded"] is True
    image = photo()
    back = image_of(client.post("/purify", content=file_of(image)).content)
    assert np.array_equal(np.asarray(back), np.asarray(image))


def test_a_name_that_is_not_in_the_store_is_unknown(service: Any) -> None:
    client = service()
    for name in ("nope", "..", ".hidden"):
        assert activate(client, name).status_code == 404


@pytest.mark.parametrize("given", [None, "", KEY[:-1], KEY + "x", "ü" * 20])
def test_without_the_right_key_nothing_happens(service: Any, given: str | None) -> None:
    client = service()
    headers = {} if given is None else {"x-nrp-admin-key": given.encode("latin-1")}
    answer = client.post("/models/noise/activate", headers=headers)
    assert answer.status_code == 403
    assert KEY not in answer.text
    assert client.get("/models").json()["purifier"] == "plain"


@pytest.mark.parametrize("given", [None, KEY])
def test_without_the_setting_the_route_is_off_and_names_it(service: Any, given: str | None) -> None:
    client = service(admin_key=None)
    answer = activate(client, "noise", given)
    assert answer.status_code == 403
    assert "NRP_ADMIN_KEY" in answer.json()["detail"]
    assert client.get("/models").json()["purifier"] == "plain"


def test_the_key_stays_out_of_what_is_printed(service: Any) -> None:
    assert KEY not in repr(service().state.settings)


def test_once_the_engine_has_stopped_a_change_is_refused(service: Any) -> None:
    client = service()
    client.state.batcher._lanes[0].thread.stop()
    assert activate(client, "noise").status_code == 503
    assert client.get("/models").json()["purifier"] == "plain"
