from __future__ import annotations

import hashlib
import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from model_store.errors import IncompatibleWeightsError, InvalidCardError, ModelExistsError
from model_store.foreign import import_state, infer
from model_store.inference import PUBLISHED
from model_store.store import WEIGHTS, ModelStore

State = dict[str, Tensor]


def random_state(shapes: dict[str, tuple[int, int]]) -> State:
    """Weights and biases of 3x3 convolutions, outputs and inputs by name."""
    state: State = {}
    for name, (outputs, inputs) in shapes.items():
        state[f"{name}.weight"] = torch.randn(outputs, inputs, 3, 3) / (3 * inputs**0.5)
        state[f"{name}.bias"] = torch.randn(outputs) * 0.1
    return state


def nrp_state(blocks: int = 2, features: int = 8, growth: int = 4) -> State:
    shapes = {"conv_first": (features, 3), "trunk_conv": (3, features)}
    for block in range(blocks):
        for dense in (1, 2, 3):
            for conv in range(5):
                outputs = features if conv == 4 else growth
                shapes[f"RRDB_trunk.{block}.RDB{dense}.conv{conv + 1}"] = (outputs, features + conv * growth)
    return random_state(shapes)


def resg_state(blocks: int = 2, features: int = 8) -> State:
    shapes = {"conv_first": (features, 3), "conv_last": (3, features)}
    for block in range(blocks):
        for conv in (1, 2):
            shapes[f"recon_trunk.{block}.conv{conv}"] = (features, features)
    return random_state(shapes)


def conv(state: State, name: str, x: Tensor) -> Tensor:
    return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=1)


def nrp_forward(state: State, images: Tensor, blocks: int = 2) -> Tensor:
    """The published forward pass, written a second time: on the state dict alone."""
    x = conv(state, "conv_first", images)
    for block in range(blocks):
        before_block = x
        for dense in (1, 2, 3):
            name = f"RRDB_trunk.{block}.RDB{dense}"
            x1 = F.leaky_relu(conv(state, f"{name}.conv1", x), 0.2)
            x2 = F.leaky_relu(conv(state, f"{name}.conv2", torch.cat((x, x1), 1)), 0.2)
            x3 = F.leaky_relu(conv(state, f"{name}.conv3", torch.cat((x, x1, x2), 1)), 0.2)
            x4 = F.leaky_relu(conv(state, f"{name}.conv4", torch.cat((x, x1, x2, x3), 1)), 0.2)
            x = conv(state, f"{name}.conv5", torch.cat((x, x1, x2, x3, x4), 1)) * 0.2 + x
        x = x * 0.2 + before_block
    return conv(state, "trunk_conv", x)


def resg_forward(state: State, images: Tensor, blocks: int = 2) -> Tensor:
    x = F.leaky_relu(conv(state, "conv_first", images), 0.1)
    for block in range(blocks):
        inner = F.relu(conv(state, f"recon_trunk.{block}.conv1", x))
        x = x + conv(state, f"recon_trunk.{block}.conv2", inner)
    return conv(state, "conv_last", x)


def saved(tmp_path: Path, content: object, name: str = "NRP.pth") -> Path:
    path = tmp_path / name
    torch.save(content, path)
    return path


def test_imported_nrp_weights_answer_as_the_published_network(tmp_path: Path, store: ModelStore) -> None:
    state = nrp_state()
    card = import_state(saved(tmp_path, state), store, "theirs")
    assert (card.architecture, card.arguments) == ("nrp", {"blocks": 2, "features": 8, "growth": 4})
    images = torch.rand(2, 3, 9, 7)
    torch.testing.assert_close(store.load("theirs").module(images), nrp_forward(state, images))


def test_imported_resg_weights_answer_as_the_published_network(tmp_path: Path, store: ModelStore) -> None:
    state = resg_state()
    card = import_state(saved(tmp_path, state), store, "theirs")
    assert (card.architecture, card.arguments) == ("nrp_resg", {"blocks": 2, "features": 8})
    images = torch.rand(2, 3, 9, 7)
    torch.testing.assert_close(store.load("theirs").module(images), resg_forward(state, images))


def test_the_card_says_that_it_was_imported_and_from_what(tmp_path: Path, store: ModelStore) -> None:
    path = saved(tmp_path, nrp_state())
    card = import_state(path, store, "theirs", licence="ask them")
    assert store.verify("theirs") == card
    assert card.recipe == {"imported_from": "NRP.pth", "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    assert "no figure was measured" in card.limits[0]
    assert (card.figures, card.precision, card.task, card.licence) == ((), "float32", "purifier", "ask them")
    assert card.inference is not None
    assert card.inference.modes["published"] == PUBLISHED


@pytest.mark.parametrize("blocks", [16, 20, 23])
def test_the_block_count_is_read_from_the_file(blocks: int, tmp_path: Path, store: ModelStore) -> None:
    assert infer(nrp_state(blocks, 4, 2), "x").arguments == {"blocks": blocks, "features": 4, "growth": 2}
    card = import_state(saved(tmp_path, resg_state(blocks, 4)), store, "theirs")
    assert card.arguments == {"blocks": blocks, "features": 4}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state},
        lambda state: {"params": state, "epoch": 3},
        OrderedDict,
        lambda state: {f"module.{key}": value for key, value in state.items()},
        lambda state: {"state_dict": {f"module.{key}": value for key, value in state.items()}},
        lambda state: {key: value.double() for key, value in state.items()},
    ],
    ids=["state_dict", "params", "ordered", "module", "state_dict-module", "double"],
)
def test_the_usual_wrappings_are_taken_off(wrap: Any, tmp_path: Path, store: ModelStore) -> None:
    state = resg_state()
    import_state(saved(tmp_path, wrap(state)), store, "theirs")
    images = torch.rand(1, 3, 6, 6)
    torch.testing.assert_close(store.load("theirs").module(images), resg_forward(state, images))


def test_a_file_in_the_old_format_of_torch_is_read(tmp_path: Path, store: ModelStore) -> None:
    path = tmp_path / "old.pth"
    torch.save(resg_state(), path, _use_new_zipfile_serialization=False)
    assert import_state(path, store, "theirs").architecture == "nrp_resg"


class Malicious:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("plain_pickle", [False, True])
def test_a_pickle_that_would_run_code_is_refused_and_not_run(
    plain_pickle: bool, tmp_path: Path, store: ModelStore
) -> None:
    mark, path = tmp_path / "executed", tmp_path / "evil.pth"
    content = {**resg_state(), "conv_extra.bias": Malicious(mark)}
    if plain_pickle:
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path)
    with pytest.raises(IncompatibleWeightsError, match=r"evil\.pth .* was not unpickled") as refused:
        import_state(path, store, "theirs")
    assert "\n" not in str(refused.value)
    assert not mark.exists()
    assert store.names() == []


@pytest.mark.parametrize("content", [b"", b"\x00" * 50, b"not a checkpoint", b"PK\x03\x04" + b"\x00" * 100])
def test_a_file_that_is_no_checkpoint_is_refused_in_one_line(content: bytes, tmp_path: Path, store: ModelStore) -> None:
    path = tmp_path / "x.pth"
    path.write_bytes(content)
    with pytest.raises(IncompatibleWeightsError, match=r"x\.pth") as refused:
        import_state(path, store, "theirs")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_checkpoint_cut_short_is_refused(share: float, tmp_path: Path, store: ModelStore) -> None:
    path = saved(tmp_path, resg_state())
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(IncompatibleWeightsError, match=r"NRP\.pth"):
        import_state(path, store, "theirs")


@pytest.mark.parametrize("missing", ["nowhere.pth", "."])
def test_a_path_that_is_no_file_is_refused(missing: str, tmp_path: Path, store: ModelStore) -> None:
    with pytest.raises(IncompatibleWeightsError, match="check the path"):
        import_state(tmp_path / missing, store, "theirs")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([1, 2], "a list, not a state dict"),
        (torch.zeros(3), "a Tensor, not a state dict"),
        ({}, "nothing, not a state dict"),
        ({"epoch": 3}, "entry 'epoch' is a int"),
        ({0: torch.zeros(3)}, "entry 0 "),
        ({"fc.weight": torch.zeros(3, 3)}, r"neither RRDB_trunk.* but fc\.weight"),
    ],
)
def test_a_file_of_something_else_is_told_what_it_holds(
    content: object, said: str, tmp_path: Path, store: ModelStore
) -> None:
    with pytest.raises(IncompatibleWeightsError, match=said):
        import_state(saved(tmp_path, content), store, "theirs")


def without(state: State, *keys: str) -> State:
    return {key: value for key, value in state.items() if key not in keys and not key.startswith(keys)}


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (without(resg_state(3), "recon_trunk.1."), "recon_trunk lacks block 1 of 3"),
        (without(nrp_state(), "conv_first.weight"), r"lacks the convolution conv_first\.weight"),
        (without(nrp_state(), "RRDB_trunk.0.RDB1.conv1.weight"), r"lacks the convolution RRDB_trunk\.0\.RDB1"),
        (without(resg_state(), "conv_last.bias"), r"conv_last\.bias"),
        ({**resg_state(), "conv_middle.bias": torch.zeros(3)}, r"conv_middle\.bias"),
        ({**resg_state(), "conv_last.bias": torch.zeros(4)}, r"conv_last\.bias"),
        ({**resg_state(), "conv_first.weight": torch.zeros(())}, r"lacks the convolution conv_first\.weight"),
        ({**resg_state(), "recon_trunk.999999.conv1.bias": torch.zeros(8)}, "recon_trunk lacks block 2 of 1000000"),
    ],
    ids=range(8),
)
def test_wrong_names_and_shapes_are_refused_by_name(state: State, said: str, tmp_path: Path, store: ModelStore) -> None:
    with pytest.raises(IncompatibleWeightsError, match=said) as refused:
        import_state(saved(tmp_path, state), store, "theirs")
    assert "\n" not in str(refused.value)
    assert store.names() == []


def test_an_architecture_named_by_the_caller_must_be_the_files(tmp_path: Path, store: ModelStore) -> None:
    path = saved(tmp_path, resg_state())
    with pytest.raises(IncompatibleWeightsError, match=r"NRP\.pth holds nrp_resg, not nrp$"):
        import_state(path, store, "theirs", "nrp")
    assert import_state(path, store, "theirs", "nrp_resg").architecture == "nrp_resg"


@pytest.mark.parametrize("name", ["../x", "NRP", ""])
def test_a_name_that_no_model_can_have_is_refused(name: str, tmp_path: Path, store: ModelStore) -> None:
    with pytest.raises(InvalidCardError, match="cannot name a model"):
        import_state(saved(tmp_path, resg_state()), store, name)
    assert [path.name for path in tmp_path.iterdir()] == ["NRP.pth"]


def test_importing_over_a_model_needs_leave(tmp_path: Path, store: ModelStore) -> None:
    import_state(saved(tmp_path, resg_state()), store, "theirs")
    with pytest.raises(ModelExistsError, match="--replace"):
        import_state(saved(tmp_path, nrp_state()), store, "theirs")
    assert import_state(saved(tmp_path, nrp_state()), store, "theirs", replace=True).architecture == "nrp"


def test_what_is_kept_is_safetensors_and_nothing_that_unpickles(tmp_path: Path, store: ModelStore) -> None:
    import_state(saved(tmp_path, resg_state()), store, "theirs")
    assert sorted(path.name for path in (store.root / "theirs").iterdir()) == ["card.json", WEIGHTS]
