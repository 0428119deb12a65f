from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from model_store.architectures import build
from model_store.card import Card, InputConvention
from model_store.errors import UnknownModelError
from model_store.store import ModelStore
from robustness.datasets.camvid import CLASSES
from robustness.errors import PhotoFolderError, VictimError
from robustness.progress import Progress
from robustness.victims.classification import Classifier
from robustness.victims.detection import Detector
from robustness.victims.loading import Selection, load_victim, read_examples, task_of
from robustness.victims.segmentation import Segmenter

CPU = torch.device("cpu")
QUIET = Progress(quiet=True)
ALL = Selection(None, 0.0, "rest", 0)


def segmenter(name: str = "scenes", size: tuple[int, int] = (8, 12)) -> Segmenter:
    return Segmenter(name, "0" * 64, nn.Identity(), CLASSES, size)


@pytest.fixture
def camvid(tmp_path: Path) -> Path:
    for folder, image in (("images", Image.new("RGB", (24, 16))), ("labels", Image.new("L", (24, 16), 3))):
        (tmp_path / "camvid" / "test" / folder).mkdir(parents=True)
        image.save(tmp_path / "camvid" / "test" / folder / "0.png")
    return tmp_path / "camvid"


def test_a_card_tells_which_kind_of_victim_it_is(store: ModelStore) -> None:
    shape = {"classes": 11, "width": 4}
    card = Card(
        name="scenes",
        summary="s",
        task="segmenter",
        architecture="segnet_basic",
        arguments=shape,
        labels=tuple(f"{n}" for n in range(11)),
        recipe={"size": [16, 24]},
    )
    store.publish(card, build("segnet_basic", shape))
    found = [load_victim(store, name, CPU) for name in ("victim-a", "scenes")]
    assert [type(victim) for victim in found] == [Classifier, Segmenter]
    assert [task_of(victim) for victim in found] == ["classification", "segmentation"]
    assert task_of(Detector("cells", "0" * 64, nn.Identity(), ("a",), (8, 8))) == "detection"
    assert [victim.identity for victim in found] == [store.card(victim.name).sha256 for victim in found]


@pytest.mark.parametrize(("name", "task"), [("plain", "purifier"), ("features", "feature-network")])
def test_what_is_nothing_to_judge_is_refused(store: ModelStore, name: str, task: str) -> None:
    with pytest.raises(VictimError, match=f"{name} is a {task}; name classifiers, segmenters or detectors"):
        load_victim(store, name, CPU)
    with pytest.raises(UnknownModelError, match="nobody"):
        load_victim(store, "nobody", CPU)


def test_photos_come_at_the_classifiers_size(victims: tuple[Classifier, ...], data: Path) -> None:
    found = read_examples(data, victims, ALL, QUIET)
    assert found.pixels.shape == (12, 3, 16, 16)
    assert found.truths["labels"].bincount().tolist() == [4, 4, 4]


def test_photos_may_lie_in_the_val_of_the_folder(victims: tuple[Classifier, ...], data: Path) -> None:
    own = read_examples(data, victims, ALL, QUIET)
    assert read_examples(data.parent, victims, ALL, QUIET).digest == own.digest


def test_class_folders_of_any_name_are_read_for_a_classifier_that_knows_them(
    victims: tuple[Classifier, ...], data: Path
) -> None:
    cats = replace(victims[0], folders=("cat", "dog", "fox"))
    for folder, name in zip(sorted(data.iterdir()), cats.folders, strict=True):
        shutil.move(folder, data / name)
    found = read_examples(data, (cats,), ALL, QUIET)
    assert {name.split("/")[0] for name in found.names} == {"cat", "dog", "fox"}


def test_the_selection_cuts_and_splits(victims: tuple[Classifier, ...], data: Path) -> None:
    def names(limit: int | None, fraction: float, part: str, seed: int = 0) -> tuple[str, ...]:
        selection = Selection(limit, fraction, part, seed)  # type: ignore[arg-type]
        return read_examples(data, victims, selection, QUIET).names

    assert len(names(6, 0.0, "rest")) == 6
    chosen, rest = names(None, 0.25, "selection"), names(None, 0.25, "rest")
    assert (len(chosen), len(rest)) == (3, 9)
    assert not set(chosen) & set(rest)
    assert names(6, 0.0, "rest", 1) != names(6, 0.0, "rest", 0)


def test_classifiers_of_other_sizes_are_measured_apart(victims: tuple[Classifier, ...], data: Path) -> None:
    other = replace(victims[1], convention=InputConvention(short_side=20, crop=20))
    with pytest.raises(VictimError, match="share one input convention"):
        read_examples(data, (victims[0], other), ALL, QUIET)


def test_a_missing_folder_and_one_of_other_classes_are_named(victims: tuple[Classifier, ...], tmp_path: Path) -> None:
    with pytest.raises(PhotoFolderError, match=r"no folder .*nowhere"):
        read_examples(tmp_path / "nowhere", victims, ALL, QUIET)
    (tmp_path / "empty").mkdir()
    with pytest.raises(PhotoFolderError, match="no class folder 'n00000001'"):
        read_examples(tmp_path / "empty", victims, ALL, QUIET)


def test_scenes_come_at_the_segmenters_size(camvid: Path) -> None:
    found = read_examples(camvid, (segmenter(), segmenter("others")), ALL, QUIET)
    assert found.pixels.shape == (1, 3, 8, 12)
    assert found.truths["mask"].flatten().tolist() == [3] * (8 * 12)


def test_segmenters_of_other_sizes_are_measured_apart(camvid: Path) -> None:
    with pytest.raises(VictimError, match="scenes, others take images of several sizes"):
        read_examples(camvid, (segmenter(), segmenter("others", (16, 24))), ALL, QUIET)


def test_a_segmenter_of_other_classes_is_refused(camvid: Path) -> None:
    voc = Segmenter("voc", "0" * 64, nn.Identity(), ("aeroplane", "bicycle"), (8, 12))
    with pytest.raises(VictimError, match="voc does not tell CamVid's classes apart"):
        read_examples(camvid, (voc,), ALL, QUIET)
