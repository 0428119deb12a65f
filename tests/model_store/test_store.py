from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from model_store.architectures import build
from model_store.card import Card, Figure, InputConvention
from model_store.errors import (
    IncompatibleWeightsError,
    InvalidCardError,
    ModelExistsError,
    NrpError,
    TamperedWeightsError,
    UnknownArchitectureError,
    UnknownModelError,
)
from model_store.store import CARD, WEIGHTS, ModelStore, card_text

MakeCard = Callable[..., Card]


@pytest.fixture
def published(store: ModelStore, small: nn.Module, make_card: MakeCard) -> Card:
    return store.publish(make_card(), small)


def write_state(store: ModelStore, card: Card, data: bytes) -> None:
    """Put other weights in place and vouch for them, as a publisher with another idea of the network would."""
    (store.root / card.name / WEIGHTS).write_bytes(data)
    vouched = card.model_copy(update={"sha256": hashlib.sha256(data).hexdigest()})
    (store.root / card.name / CARD).write_text(card_text(vouched))


def test_a_store_that_does_not_exist_yet_is_empty(store: ModelStore) -> None:
    assert store.names() == []
    assert store.cards() == []


def test_the_published_card_names_the_hash_of_the_file_beside_it(store: ModelStore, published: Card) -> None:
    data = (store.root / "small" / WEIGHTS).read_bytes()
    assert published.sha256 == hashlib.sha256(data).hexdigest()
    assert store.card("small") == published
    assert store.cards() == [published]


def test_float16_weights_come_back_as_float32_of_half_precision(
    store: ModelStore, small: nn.Module, make_card: MakeCard
) -> None:
    store.publish(make_card(precision="float16"), small)
    loaded = store.load("small").module.state_dict()
    for name, tensor in small.state_dict().items():
        assert loaded[name].dtype == torch.float32
        assert torch.equal(loaded[name], tensor.half().float())
    full = sum(tensor.numel() for tensor in loaded.values()) * 4
    assert (store.root / "small" / WEIGHTS).stat().st_size < 0.7 * full + 4096


def test_an_unknown_name_is_told_the_known_ones(store: ModelStore, published: Card) -> None:
    with pytest.raises(UnknownModelError, match="there are: small"):
        store.load("large")


@pytest.mark.parametrize("position", [0, 20, -1])
def test_one_changed_byte_is_tampering(store: ModelStore, published: Card, position: int) -> None:
    path = store.root / "small" / WEIGHTS
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)
    with pytest.raises(TamperedWeightsError, match="sha256"):
        store.verify("small")


def test_truncated_weights_are_tampering(store: ModelStore, published: Card) -> None:
    path = store.root / "small" / WEIGHTS
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(TamperedWeightsError, match="restore or publish it again"):
        store.load("small")


def test_missing_weights_are_tampering_and_the_model_stays_listed(store: ModelStore, published: Card) -> None:
    (store.root / "small" / WEIGHTS).unlink()
    assert store.names() == ["small"]
    with pytest.raises(TamperedWeightsError, match="No such file"):
        store.load("small")


@pytest.mark.parametrize("keep", [0, 4, 100])
def test_vouched_bytes_that_are_no_safetensors_are_refused(store: ModelStore, published: Card, keep: int) -> None:
    write_state(store, published, (store.root / "small" / WEIGHTS).read_bytes()[:keep])
    with pytest.raises(IncompatibleWeightsError, match="not a safetensors file"):
        store.load("small")


def extra(state: dict[str, Any]) -> None:
    state["conv_middle.bias"] = torch.zeros(3)


def missing(state: dict[str, Any]) -> None:
    del state["conv_last.bias"]


def misshaped(state: dict[str, Any]) -> None:
    state["conv_first.bias"] = torch.zeros(5)


@pytest.mark.parametrize(
    ("change", "named"), [(extra, "conv_middle.bias"), (missing, "conv_last.bias"), (misshaped, "conv_first.bias")]
)
def test_weights_that_do_not_fit_are_refused_by_name_in_one_line(
    change: Callable[[dict[str, Any]], None], named: str, store: ModelStore, published: Card, small: nn.Module
) -> None:
    state = dict(small.state_dict())
    change(state)
    write_state(store, published, safetensors.torch.save(state))
    with pytest.raises(IncompatibleWeightsError, match=named) as refused:
        store.load("small")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "JSON"),
        ("{", "JSON"),
        ("[]", "object"),
        ('{"name": "small"}', "summary: Field required"),
        ("\udcff", "JSON"),
    ],
)
def test_a_broken_card_is_refused_and_its_first_fault_named(
    text: str, said: str, store: ModelStore, published: Card
) -> None:
    (store.root / "small" / CARD).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(InvalidCardError, match=said) as refused:
        store.card("small")
    assert "\n" not in str(refused.value)


def test_a_card_of_another_model_is_refused(store: ModelStore, published: Card) -> None:
    shutil.copytree(store.root / "small", store.root / "copied")
    with pytest.raises(InvalidCardError, match="card is of 'small', folder is 'copied'"):
        store.card("copied")


def test_a_card_of_an_unknown_architecture_is_refused(store: ModelStore, published: Card) -> None:
    unknown = published.model_copy(update={"architecture": "nrp_huge"})
    (store.root / "small" / CARD).write_text(card_text(unknown))
    with pytest.raises(UnknownArchitectureError, match="nrp_huge"):
        store.load("small")


def test_a_card_whose_task_is_not_its_architectures_is_refused(store: ModelStore, published: Card) -> None:
    (store.root / "small" / CARD).write_text(card_text(published.model_copy(update={"task": "classifier"})))
    with pytest.raises(InvalidCardError, match="nrp_resg is a purifier, not a classifier"):
        store.load("small")


@pytest.mark.parametrize("labels", [("a", "b"), ("a", "b", "c", "d")])
def test_labels_of_the_wrong_number_are_refused(
    store: ModelStore, make_card: MakeCard, labels: tuple[str, ...]
) -> None:
    shape = {"classes": 3, "widths": (4,), "blocks": 1}
    card = make_card("guesses", task="classifier", architecture="resnet_small", arguments=shape, labels=labels)
    store.publish(card, build("resnet_small", shape))
    with pytest.raises(InvalidCardError, match=f"'guesses': {len(labels)} labels for a network of 3 classes; correct"):
        store.load("guesses")


def test_an_unfinished_publication_is_not_listed(store: ModelStore, published: Card) -> None:
    shutil.copytree(store.root / "small", store.root / ".publishing-x")
    (store.root / "half").mkdir()
    shutil.copy(store.root / "small" / WEIGHTS, store.root / "half" / WEIGHTS)
    assert store.names() == ["small"]
    with pytest.raises(UnknownModelError):
        store.load(".publishing-x")


def test_a_publication_that_fails_leaves_what_was_there(
    store: ModelStore, published: Card, make_card: MakeCard, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        store.publish(make_card(), build("nrp_resg", {"blocks": 2, "features": 4}), replace=True)
    assert [path.name for path in store.root.iterdir()] == ["small"]
    assert store.verify("small") == published


def test_publishing_over_a_model_needs_leave(store: ModelStore, published: Card, make_card: MakeCard) -> None:
    other = build("nrp_resg", {"blocks": 2, "features": 4})
    with pytest.raises(ModelExistsError, match="--replace"):
        store.publish(make_card(), other)
    assert store.verify("small") == published
    replaced = store.publish(make_card(), other, replace=True)
    assert replaced.sha256 != published.sha256
    assert store.verify("small") == replaced
    assert [path.name for path in store.root.iterdir()] == ["small"]


def race(store: ModelStore, make_card: MakeCard, *, replace: bool, publishers: int = 6) -> list[Card | NrpError]:
    start = Barrier(publishers)

    def publish(number: int) -> Card | NrpError:
        module = build("nrp_resg", {"blocks": 2, "features": 4})
        start.wait()
        try:
            return store.publish(make_card(summary=str(number)), module, replace=replace)
        except NrpError as error:
            return error

    with ThreadPoolExecutor(publishers) as pool:
        return list(pool.map(publish, range(publishers)))


@pytest.mark.parametrize("attempt", range(3))
def test_of_many_publishing_one_name_at_once_one_wins(attempt: int, store: ModelStore, make_card: MakeCard) -> None:
    outcomes = race(store, make_card, replace=False)
    cards = [outcome for outcome in outcomes if isinstance(outcome, Card)]
    assert [store.verify("small")] == cards
    assert sum(isinstance(outcome, ModelExistsError) for outcome in outcomes) == len(outcomes) - 1
    assert [path.name for path in store.root.iterdir()] == ["small"]


@pytest.mark.parametrize("attempt", range(3))
def test_of_many_replacing_one_name_at_once_the_last_stays_whole(
    attempt: int, store: ModelStore, make_card: MakeCard
) -> None:
    outcomes = race(store, make_card, replace=True)
    assert store.verify("small") in outcomes
    assert all(isinstance(outcome, Card) for outcome in outcomes)
    assert [path.name for path in store.root.iterdir()] == ["small"]


@pytest.mark.parametrize("name", ["../x", "/x", "..", ".", "small/../small", ""])
def test_a_name_that_leaves_the_store_is_refused(
    name: str, store: ModelStore, published: Card, small: nn.Module
) -> None:
    with pytest.raises(UnknownModelError):
        store.load(name)
    with pytest.raises(InvalidCardError, match="name"):
        store.publish(published.model_copy(update={"name": name}), small)
    assert [path.name for path in store.root.parent.iterdir()] == ["store"]


def figure(value: float) -> Figure:
    return Figure(name="clean", value=value, unit="share", count=10, command="nrp evaluate", seed=0)


def test_rewriting_a_card_changes_its_figures_and_not_its_weights(store: ModelStore, published: Card) -> None:
    measured = published.model_copy(update={"figures": (figure(0.5),)})
    store.rewrite_card(measured)
    assert store.verify("small") == measured
    assert sorted(path.name for path in (store.root / "small").iterdir()) == sorted([CARD, WEIGHTS])


def test_a_card_of_other_weights_cannot_be_written(store: ModelStore, published: Card) -> None:
    with pytest.raises(InvalidCardError, match="other weights"):
        store.rewrite_card(published.model_copy(update={"sha256": "0" * 64}))
    assert store.card("small") == published


def test_a_card_that_could_not_be_read_back_is_not_written(store: ModelStore, published: Card) -> None:
    with pytest.raises(InvalidCardError, match=r"figures\.0\.value"):
        store.rewrite_card(published.model_copy(update={"figures": (figure(float("nan")),)}))
    assert store.card("small") == published


def test_an_empty_store_says_that_there_are_none(tmp_path: Path) -> None:
    with pytest.raises(UnknownModelError, match="there are: none"):
        ModelStore(tmp_path).load("small")


def test_a_store_can_be_moved(store: ModelStore, published: Card, tmp_path: Path) -> None:
    store.root.rename(tmp_path / "moved")
    assert ModelStore(tmp_path / "moved").verify("small") == published


@pytest.mark.parametrize("change", [{"output": "logits"}, {"input": InputConvention(layout="NHWC")}])
def test_what_only_programs_may_ask_for_is_refused_of_weights(
    store: ModelStore, published: Card, change: dict[str, Any]
) -> None:
    store.rewrite_card(published.model_copy(update=change))
    with pytest.raises(InvalidCardError, match=r"leave output, .* to programs"):
        store.load(published.name)
