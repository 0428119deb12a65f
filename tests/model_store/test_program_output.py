"""What programs give: probabilities are never taken for logits, in whichever format the program is saved."""

from __future__ import annotations

import argparse
import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from model_store.card import Card, InputConvention
from model_store.commands import configure_models, run_models
from model_store.errors import IncompatibleWeightsError, InvalidCardError, NrpError
from model_store.program_output import read_output
from model_store.store import ModelStore

CASES = Path(__file__).parents[2] / ".." / "shared" / "cases" / "onnx-softmax"
SIZE = (6, 8)


class Levels(nn.Module):
    """A linear layer on the mean of each channel, and what ``last`` makes of it."""

    def __init__(self, last: nn.Module, outputs: int = 3) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.linear = nn.Linear(3, outputs)
        self.last = last

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.last(4 * self.linear(images.mean(dim=(2, 3))))
        return found


def torchscript(network: nn.Module) -> bytes:
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.jit.save(torch.jit.script(network), out)
    return out.getvalue()


def exported(network: nn.Module) -> bytes:
    out = io.BytesIO()
    torch.export.save(torch.export.export(network, (torch.rand(1, 3, *SIZE),)), out)
    return out.getvalue()


def onnx(network: nn.Module) -> bytes:
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(network, (torch.rand(1, 3, *SIZE),), out, dynamo=False)
    return out.getvalue()


SAVED: dict[str, Callable[[nn.Module], bytes]] = {"torchscript": torchscript, "exported": exported, "onnx": onnx}


@pytest.fixture(params=sorted(SAVED))
def architecture(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def card(make_card: Callable[..., Card], architecture: str) -> Callable[..., Card]:
    def make(**changes: Any) -> Card:
        facts = {"task": "classifier", "labels": ("a", "b", "c"), "arguments": {}} | changes
        return make_card(name="levels", architecture=architecture, input=InputConvention(short_side=8, crop=8), **facts)

    return make


def loaded(store: ModelStore, card: Card, network: nn.Module) -> Any:
    store.publish_program(card, SAVED[card.architecture](network.eval()), replace=True)
    return store.load(card.name).module


def test_logits_pass_as_they_are(store: ModelStore, card: Callable[..., Card]) -> None:
    network = Levels(nn.Identity())
    images = torch.rand(2, 3, *SIZE)
    torch.testing.assert_close(loaded(store, card(), network)(images), network(images))


def test_probabilities_that_the_card_does_not_state_are_refused_with_what_to_add(
    store: ModelStore, card: Callable[..., Card]
) -> None:
    with pytest.raises(IncompatibleWeightsError, match='add "output": "probabilities" to its card') as failure:
        loaded(store, card(), Levels(nn.Softmax(dim=1)))
    assert "\n" not in str(failure.value)
    assert store.names() == []


def test_stated_probabilities_come_back_from_softmax_as_they_are(store: ModelStore, card: Callable[..., Card]) -> None:
    network = Levels(nn.Softmax(dim=1))
    images = torch.rand(2, 3, *SIZE)
    found = loaded(store, card(output="probabilities"), network)(images)
    torch.testing.assert_close(found.softmax(dim=1), network(images))


def test_one_sigmoid_is_the_probability_of_the_second_label(store: ModelStore, card: Callable[..., Card]) -> None:
    network = Levels(nn.Sigmoid(), outputs=1)
    images = torch.rand(2, 3, *SIZE)
    found = loaded(store, card(output="sigmoid", labels=("no", "yes")), network)(images).softmax(dim=1)
    torch.testing.assert_close(found, torch.cat([1 - network(images), network(images)], dim=1))


def test_values_between_0_and_1_that_do_not_add_up_to_1_are_refused_unless_stated(
    store: ModelStore, card: Callable[..., Card]
) -> None:
    network = Levels(nn.Sigmoid())
    with pytest.raises(IncompatibleWeightsError, match=r'add "output": "logits".*independent probabilities'):
        loaded(store, card(), network)
    images = torch.rand(2, 3, *SIZE)
    torch.testing.assert_close(loaded(store, card(output="logits"), network)(images), network(images))


@pytest.mark.parametrize(
    ("output", "last", "outputs", "labels"),
    [
        ("probabilities", nn.Identity(), 3, ("a", "b", "c")),
        ("probabilities", nn.Sigmoid(), 3, ("a", "b", "c")),
        ("sigmoid", nn.Identity(), 1, ("no", "yes")),
    ],
)
def test_a_card_that_states_what_the_program_does_not_give_is_refused(
    store: ModelStore, card: Callable[..., Card], output: str, last: nn.Module, outputs: int, labels: tuple[str, ...]
) -> None:
    with pytest.raises(IncompatibleWeightsError, match=f"states output: {output}, but the program gives values from"):
        loaded(store, card(output=output, labels=labels), Levels(last, outputs))


@pytest.mark.parametrize("output", [None, "logits", "probabilities"])
def test_another_number_of_columns_than_labels_is_refused_when_it_is_published(
    store: ModelStore, card: Callable[..., Card], output: str | None
) -> None:
    with pytest.raises(IncompatibleWeightsError, match="of 2 labels"):
        loaded(store, card(output=output, labels=("a", "b")), Levels(nn.Identity()))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"labels": ("only",)}, "one label always says that.*output: sigmoid"),
        ({"output": "sigmoid"}, "second of two labels; it has 3"),
        ({"output": "fastestdet"}, "a classifier has no output 'fastestdet'; known: logits, probabilities, sigmoid"),
        ({"output": "logits", "task": "detector"}, "a detector has no output 'logits'; known: fastestdet"),
    ],
)
def test_a_card_whose_output_makes_no_sense_is_refused(
    store: ModelStore, card: Callable[..., Card], changes: dict[str, Any], named: str
) -> None:
    with pytest.raises(InvalidCardError, match=named):
        loaded(store, card(**changes), Levels(nn.Identity()))


class Broken(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        raise RuntimeError(f"no\nanswer to {images.ndim} dimensions")


def test_a_program_that_fails_is_refused_in_one_line(store: ModelStore, make_card: Callable[..., Card]) -> None:
    card = make_card(name="levels", architecture="torchscript", task="segmenter", labels=("a", "b"), arguments={})
    with pytest.raises(IncompatibleWeightsError, match=r"fails on an image of 64x64: .*no answer") as failure:
        store.publish_program(card, torchscript(Broken()))
    assert "\n" not in str(failure.value)


def test_a_segmenter_s_probabilities_are_seen_too(store: ModelStore, make_card: Callable[..., Card]) -> None:
    network = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Softmax(dim=1))
    card = make_card(name="levels", architecture="torchscript", task="segmenter", labels=("a", "b"), arguments={})
    with pytest.raises(IncompatibleWeightsError, match="gives probabilities"):
        store.publish_program(card, torchscript(network))
    store.publish_program(card.model_copy(update={"output": "probabilities"}), torchscript(network))
    images = torch.rand(1, 3, 4, 4)
    torch.testing.assert_close(store.load("levels").module(images).softmax(dim=1), network(images))


def test_probabilities_of_0_and_1_stay_finite_and_gradients_pass() -> None:
    certain = torch.tensor([[0.0, 1.0], [0.25, 0.75]], requires_grad=True)
    found = read_output(certain, "probabilities", (1, 1))
    assert found.isfinite().all()
    torch.testing.assert_close(found.softmax(dim=1), certain)
    (gradient,) = torch.autograd.grad(found[1].sum(), certain)
    assert gradient[1].tolist() == pytest.approx([4, 4 / 3])
    one = read_output(torch.tensor([[0.0], [1.0]]), "sigmoid", (1, 1))
    torch.testing.assert_close(one.softmax(dim=1), torch.eye(2))


@pytest.mark.skipif(not CASES.is_dir(), reason="no shared/cases/onnx-softmax")
def test_the_case_of_a_program_that_ends_in_softmax(store: ModelStore, tmp_path: Path) -> None:
    """The same network with and without softmax answers the same, once the card says which it is."""

    def publish(folder: Path) -> None:
        parser = argparse.ArgumentParser()
        configure_models(parser)
        run_models(parser.parse_args(["publish", str(folder), "--store", str(store.root)]))

    publish(CASES / "logits")
    with pytest.raises(NrpError, match='"output": "probabilities"'):
        publish(CASES / "probs")
    folder = tmp_path / "probs"
    folder.mkdir()
    (folder / "program.onnx").write_bytes((CASES / "probs" / "program.onnx").read_bytes())
    text = (CASES / "probs" / "card.json").read_text()
    (folder / "card.json").write_text(text.rstrip()[:-1] + ', "output": "probabilities"}')
    publish(folder)
    images = torch.rand(2, 3, 64, 64)
    answers = [store.load(name).module(images).softmax(dim=1) for name in ("logits", "probs")]
    torch.testing.assert_close(answers[0], answers[1], atol=1e-4, rtol=0)
