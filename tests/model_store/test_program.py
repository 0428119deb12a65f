from __future__ import annotations

import argparse
import io
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from model_store.card import Card
from model_store.commands import configure_models, run_models
from model_store.errors import IncompatibleWeightsError, InvalidCardError, NrpError, TamperedWeightsError
from model_store.program import PROGRAMS, Program
from model_store.store import CARD, WEIGHTS, ModelStore, card_text

FREE = {"images": {0: torch.export.Dim("n"), 2: torch.export.Dim("h"), 3: torch.export.Dim("w")}}


class Shades(nn.Module):
    """Three logits a pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(3, 3, 1)
        self.drop = nn.Dropout(0.9)

    def forward(self, images: Tensor) -> Any:
        return self.drop(self.mix(images))


def torchscript(network: nn.Module) -> bytes:
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.jit.save(torch.jit.script(network), out)
    return out.getvalue()


def exported(network: nn.Module, batch: int = 1, dynamic: Any = None) -> bytes:
    out = io.BytesIO()
    torch.export.save(torch.export.export(network.eval(), (torch.rand(batch, 3, 6, 8),), dynamic_shapes=dynamic), out)
    return out.getvalue()


@pytest.fixture
def shades() -> Shades:
    torch.manual_seed(0)
    return Shades()


@pytest.fixture
def program_card(make_card: Callable[..., Card]) -> Callable[..., Card]:
    def make(architecture: str, **changes: Any) -> Card:
        facts = {"task": "segmenter", "labels": ("a", "b", "c"), "arguments": {}} | changes
        return make_card(name="shades", architecture=architecture, **facts)

    return make


def test_a_torchscript_program_answers_as_its_network_in_evaluation_mode(
    store: ModelStore, program_card: Callable[..., Card], shades: Shades
) -> None:
    data = torchscript(shades.train())
    card = store.publish_program(program_card("torchscript"), data)
    assert (store.root / "shades" / "program.pt").read_bytes() == data
    loaded = store.load("shades")
    assert loaded.card == card == store.verify("shades")
    images = torch.rand(2, 3, 5, 7)
    assert torch.equal(loaded.module.eval()(images), shades.eval()(images))
    assert not any(parameter.requires_grad for parameter in loaded.module.parameters())
    assert isinstance(loaded.module, Program)
    assert (loaded.module.size, loaded.module.single) == (None, False)


def test_an_exported_program_of_free_size_takes_any_batch(
    store: ModelStore, program_card: Callable[..., Card], shades: Shades
) -> None:
    store.publish_program(program_card("exported"), exported(shades, 2, FREE))
    module = store.load("shades").module.eval()
    assert (module.size, module.single) == (None, False)
    images = torch.rand(3, 3, 9, 11)
    assert torch.allclose(module(images), shades.eval()(images))


def test_an_exported_program_of_one_size_says_so_and_takes_a_batch_in_turns(
    store: ModelStore, program_card: Callable[..., Card], shades: Shades
) -> None:
    store.publish_program(program_card("exported"), exported(shades))
    module = store.load("shades").module
    assert (module.size, module.single) == ((6, 8), True)
    images = torch.rand(3, 3, 6, 8)
    assert torch.allclose(module(images), shades.eval()(images))


def test_lists_of_detections_are_put_together_too() -> None:
    module = Program(lambda image: [{"boxes": image.mean()}], single=True)  # type: ignore[arg-type]
    images = torch.rand(2, 3, 4, 4)
    assert [float(found["boxes"]) for found in module(images)] == pytest.approx(images.mean(dim=(1, 2, 3)).tolist())


def test_a_program_whose_bytes_changed_is_not_read(
    store: ModelStore, program_card: Callable[..., Card], shades: Shades, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.publish_program(program_card("torchscript"), torchscript(shades))
    path = store.root / "shades" / "program.pt"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    monkeypatch.setattr(torch.jit, "load", lambda *_, **__: pytest.fail("read before its hash was verified"))
    with pytest.raises(TamperedWeightsError, match=r"program\.pt"):
        store.load("shades")


@pytest.mark.parametrize("architecture", sorted(PROGRAMS))
def test_bytes_that_are_no_program_are_refused_in_one_line(
    store: ModelStore, program_card: Callable[..., Card], architecture: str
) -> None:
    with pytest.raises(IncompatibleWeightsError, match=f"no {architecture} program") as failure:
        store.publish_program(program_card(architecture), b"nonsense")
    assert "\n" not in str(failure.value)
    assert store.names() == []


def test_a_program_of_a_fixed_batch_of_several_is_refused(
    store: ModelStore, program_card: Callable[..., Card], shades: Shades
) -> None:
    with pytest.raises(IncompatibleWeightsError, match="exactly 2 images"):
        store.publish_program(program_card("exported"), exported(shades, 2))


@pytest.mark.parametrize(("changes", "named"), [({"task": "purifier"}, "purifier"), ({"labels": ()}, "no classes")])
def test_a_card_that_no_program_can_have_is_refused(
    store: ModelStore, program_card: Callable[..., Card], shades: Shades, changes: dict[str, Any], named: str
) -> None:
    with pytest.raises(InvalidCardError, match=named):
        store.publish_program(program_card("torchscript", **changes), torchscript(shades))


def test_another_program_than_the_card_s_is_not_published(
    store: ModelStore, program_card: Callable[..., Card], shades: Shades
) -> None:
    with pytest.raises(TamperedWeightsError, match="shades"):
        store.publish_program(program_card("torchscript", sha256="0" * 64), torchscript(shades))


def test_a_program_is_not_published_as_weights(
    store: ModelStore, program_card: Callable[..., Card], shades: Shades
) -> None:
    with pytest.raises(InvalidCardError, match="as the file"):
        store.publish(program_card("torchscript"), shades)


def command(*words: object) -> Any:
    parser = argparse.ArgumentParser()
    configure_models(parser)
    return run_models(parser.parse_args([str(word) for word in words]))


def test_publish_fills_the_hash_in_and_list_shows_the_program(
    store: ModelStore,
    program_card: Callable[..., Card],
    shades: Shades,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "from" / "shades"
    folder.mkdir(parents=True)
    (folder / CARD).write_text(card_text(program_card("torchscript")))
    with pytest.raises(NrpError, match="put the program there"):
        command("publish", folder, "--store", store.root)
    (folder / "program.pt").write_bytes(torchscript(shades))
    assert command("publish", folder, "--store", store.root) == 0
    assert len(store.card("shades").sha256) == 64
    assert not (store.root / "shades" / WEIGHTS).exists()
    capsys.readouterr()
    assert command("list", "--store", store.root, "--json") == 0
    (facts,) = json.loads(capsys.readouterr().out)
    assert facts["parameters"] is None
    assert facts["bytes"] == (folder / "program.pt").stat().st_size
    assert command("list", "--store", store.root) == 0
    assert command("verify", "shades", "--store", store.root) == 0
