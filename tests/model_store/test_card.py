from __future__ import annotations

from collections.abc import Callable

import pytest
from pydantic import ValidationError

from model_store.card import Card, Figure, Inference, InputConvention, Source
from model_store.inference import STANDARD_MODES, InferenceMode
from model_store.store import card_text

FULL = Card(
    name="full-1.0_x",
    summary="every field set",
    task="purifier",
    architecture="nrp_resg",
    arguments={"blocks": 2, "features": 4},
    precision="float16",
    sha256="0" * 64,
    input=InputConvention(short_side=144, crop=128),
    labels=("a", "b"),
    inference=Inference(default="heavy", modes={**STANDARD_MODES, "heavy": InferenceMode(noise_std=0.3, draws=4)}),
    training_data=(Source(name="photos", images=3, terms="CC-BY-4.0"),),
    licence="MIT",
    recipe={"steps": 10, "nested": {"eps": [4, 8]}},
    code_revision="abc",
    figures=(
        Figure(name="clean", value=0.5, unit="share", count=10, interval=(0.4, 0.6), command="nrp evaluate", seed=1),
    ),
    limits=("none known",),
)


def test_a_full_card_survives_the_way_through_its_file() -> None:
    assert Card.model_validate_json(card_text(FULL)) == FULL


def test_a_card_file_ends_in_a_line_break() -> None:
    assert card_text(FULL).endswith("}\n")


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/b", ".hidden", "", "A", "x" * 64, "a b", "x\n", "-x"])
def test_a_name_that_could_leave_the_store_or_hide_in_it_is_refused(name: str, make_card: Callable[..., Card]) -> None:
    with pytest.raises(ValidationError, match="name"):
        make_card(name)


@pytest.mark.parametrize(
    "change",
    [
        {"task": "poet"},
        {"precision": "int8"},
        {"sha256": "abc"},
        {"unheard_of": 1},
        {"inference": {"default": "static", "modes": {"static": {"noise_std": 2.0}}}},
        {"figures": [{"name": "x", "value": 1, "unit": "", "count": 0, "command": "", "seed": 0}]},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_card_against_its_schema_is_refused(change: dict[str, object], make_card: Callable[..., Card]) -> None:
    with pytest.raises(ValidationError, match=next(iter(change))):
        make_card(**change)


def test_a_default_mode_that_is_not_among_the_modes_is_refused() -> None:
    with pytest.raises(ValidationError, match="'heavy' is not among the modes: static, published"):
        Inference(default="heavy", modes=dict(STANDARD_MODES))


def test_a_card_cannot_be_changed_in_place() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        FULL.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    "change",
    [{"layout": "NHWC"}, {"colour": "BGR"}, {"high": 255.0}, {"low": -1.0}, {"mean": (1, 2, 3)}, {"std": (1, 1, 1)}],
    ids=str,
)
def test_only_our_own_convention_is_plain(change: dict[str, object]) -> None:
    assert InputConvention(short_side=9, crop=8, stretch=True).plain
    assert not InputConvention.model_validate(change).plain


@pytest.mark.parametrize(
    "change", [{"layout": "CHW"}, {"colour": "grey"}, {"mean": (1, 2)}, {"std": (1, 0, 1)}], ids=str
)
def test_a_convention_that_nothing_can_follow_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(change))):
        InputConvention.model_validate(change)


def test_an_output_that_nothing_reads_is_refused(make_card: Callable[..., Card]) -> None:
    with pytest.raises(ValidationError, match="output"):
        make_card(output="boxes")
