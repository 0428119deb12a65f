from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from model_store.architectures import build
from model_store.card import Card, Origin
from model_store.errors import UnavailableModelError, UnknownModelError
from model_store.store import ModelStore
from robustness.conditions import Conditions
from robustness.defences import BASELINES, NoDefence
from robustness.errors import PhotoFolderError, VictimError
from robustness.progress import Progress
from robustness.suite.assembly import Wanted, assemble, source_name, versions
from robustness.suite.session import Session
from robustness.suite.sizes import QUICK

CONDITIONS = Conditions(0, 6, torch.device("cpu"))


@pytest.fixture
def wanted(data: Path, tmp_path: Path) -> Wanted:
    return Wanted(
        models=(),
        purifiers=("noisy",),
        modes=("default", "static"),
        surrogate="features",
        data=(data,),
        limit=9,
        aware_limit=None,
        scene_limit=None,
        selection_fraction=0.0,
        output=tmp_path / "out",
        command="nrp evaluate --suite quick",
    )


@pytest.fixture
def scenes(store: ModelStore, tmp_path: Path) -> Path:
    """One scene in CamVid's layout, and a segmenter for it in the store."""
    for folder, image in (("images", Image.new("RGB", (24, 16))), ("labels", Image.new("L", (24, 16), 3))):
        (tmp_path / "roads" / "test" / folder).mkdir(parents=True)
        image.save(tmp_path / "roads" / "test" / folder / "0.png")
    shape = {"classes": 11, "width": 4}
    card = Card(name="roads", summary="s", task="segmenter", architecture="segnet_basic", arguments=shape)
    card = card.model_copy(update={"labels": tuple(f"{n}" for n in range(11)), "recipe": {"size": [16, 24]}})
    store.publish(card, build("segnet_basic", shape))
    return tmp_path / "roads"


def assembled(wanted: Wanted, store: ModelStore) -> Session:
    return assemble(wanted, store, CONDITIONS, wanted.output / "cache", Progress(quiet=True))


def test_every_victim_of_the_store_that_there_is_data_for_takes_part(wanted: Wanted, store: ModelStore) -> None:
    session = assembled(wanted, store)
    (arena,) = session.arenas.values()
    assert [victim.name for victim in arena.victims] == ["victim-a", "victim-b"]
    assert len(arena.bench.examples) == 9
    assert arena.bench.cache.root == wanted.output / "cache"
    assert session.defences == (NoDefence(), *BASELINES)
    assert [(p.mode_name, p.weights) for p in session.purified] == [
        (mode, store.card("noisy").sha256) for mode in ("heavy", "static")
    ]
    assert session.surrogate.name == "features"
    recorder = session.recorder
    assert (recorder.folder, recorder.suite) == (wanted.output / "rows", "quick")
    assert recorder.command == "nrp evaluate --suite quick"


def test_a_limit_cuts_the_photos_of_those_who_know_too(wanted: Wanted, store: ModelStore) -> None:
    assert assembled(wanted, store).sizes == replace(QUICK, photos=9, aware_photos=9)


def test_those_who_know_get_a_limit_of_their_own_and_never_more_photos_than_the_others(
    wanted: Wanted, store: ModelStore
) -> None:
    assert assembled(replace(wanted, aware_limit=4), store).sizes == replace(QUICK, photos=9, aware_photos=4)
    assert assembled(replace(wanted, aware_limit=40), store).sizes == replace(QUICK, photos=9, aware_photos=9)


def test_scenes_get_a_limit_of_their_own(wanted: Wanted, store: ModelStore) -> None:
    limited = replace(QUICK, photos=9, aware_photos=9, scenes=1, aware_scenes=1)
    assert assembled(replace(wanted, scene_limit=1), store).sizes == limited


def test_each_task_has_an_arena_of_its_own(wanted: Wanted, store: ModelStore, scenes: Path) -> None:
    session = assembled(replace(wanted, data=(*wanted.data, scenes)), store)
    assert {task: [v.name for v in arena.victims] for task, arena in session.arenas.items()} == {
        "classification": ["victim-a", "victim-b"],
        "segmentation": ["roads"],
    }
    assert session.arenas["segmentation"].bench.examples.pixels.shape == (1, 3, 16, 24)


@pytest.mark.usefixtures("scenes")
def test_a_victim_without_data_is_left_out_unless_it_was_asked_for(wanted: Wanted, store: ModelStore) -> None:
    assert set(assembled(wanted, store).arenas) == {"classification"}
    with pytest.raises(VictimError, match="roads is for segmentation, but --data holds none for it"):
        assembled(replace(wanted, models=("victim-a", "roads")), store)


def test_networks_that_others_trained_take_part_only_where_they_are_named(wanted: Wanted, store: ModelStore) -> None:
    foreign = store.card("victim-b").model_copy(update={"origin": Origin(file="net.pth", package="a-package")})
    store.rewrite_card(foreign)
    assert [victim.name for victim in assembled(wanted, store).classifiers()] == ["victim-a"]
    with pytest.raises(UnavailableModelError, match="a-package"):
        assembled(replace(wanted, models=("victim-a", "victim-b")), store)


def test_named_victims_alone_take_part(wanted: Wanted, store: ModelStore) -> None:
    session = assembled(replace(wanted, models=("victim-b",)), store)
    assert [victim.name for victim in session.classifiers()] == ["victim-b"]


def test_several_purifiers_need_the_suite_that_compares_them(wanted: Wanted, store: ModelStore) -> None:
    with pytest.raises(VictimError, match=r"suite quick measures one purifier, not plain, noisy; .*--suite"):
        assembled(replace(wanted, purifiers=("plain", "noisy")), store)


def test_data_that_no_victim_is_for_is_said(wanted: Wanted, store: ModelStore, tmp_path: Path) -> None:
    (tmp_path / "cells" / "ImageSets" / "Main").mkdir(parents=True)
    with pytest.raises(VictimError, match="holds no victim for this data"):
        assembled(replace(wanted, data=(tmp_path / "cells",)), store)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"purifiers": ("victim-a",)}, VictimError, "victim-a is a classifier, not a purifier"),
        ({"modes": ("wild",)}, VictimError, "no mode 'wild'"),
        ({"surrogate": "victim-a"}, VictimError, "victim-a is no feature network"),
        ({"models": ("plain",)}, VictimError, "plain is a purifier"),
        ({"models": ("nobody",)}, UnknownModelError, "nobody"),
        ({"data": (Path("nowhere"),)}, PhotoFolderError, "no folder nowhere"),
        ({"limit": 99}, PhotoFolderError, "--limit 99"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(
    wanted: Wanted, store: ModelStore, changes: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        assembled(replace(wanted, **changes), store)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_versions_are_those_in_use() -> None:
    assert torch.__version__.startswith(versions()["torch"])
    assert set(versions()) >= {"python", "torchvision", "numpy", "pillow", "scikit-image"}


@pytest.mark.parametrize(
    ("root", "name"), [("a/imagenette/val", "imagenette/val"), ("a/camvid", "camvid"), ("photos", "photos")]
)
def test_data_is_called_by_its_folder_and_a_split_by_its_data_too(root: str, name: str) -> None:
    assert source_name(Path(root)) == name
