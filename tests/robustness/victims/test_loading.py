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


def test_a_classifier_is_judged_at_the_convention_given_and_a_scene_has_none(store: ModelStore) -> None:
    wanted = InputConvention(short_side=20, crop=18)
    found = load_victim(store, "victim-a", CPU, wanted)
    assert isinstance(found, Classifier)
    assert found.convention == wanted
    shape = {"classes": 11, "width": 4}
    labels = tuple(f"{n}" for n in range(11))
    card = Card(name="roads", summary="s", task="segmenter", architecture="segnet_basic", arguments=shape)
    store.publish(
        card.model_copy(update={"labels": labels, "recipe": {"size": [16, 24]}}), build("segnet_basic", shape)
    )
    with pytest.raises(VictimError, match="roads is no classifier, so no input convention"):
        load_victim(store, "roads", CPU, wanted)


@pytest.fixture
def nips17(tmp_path: Path) -> Path:
    (tmp_path / "nips17" / "images").mkdir(parents=True)
    lines = ["ImageId,TrueLabel,TargetClass,License,Author,OriginalLandingURL"]
    for number in range(4):
        Image.new("RGB", (299, 299), (60 * number, 0, 0)).save(tmp_path / "nips17" / "images" / f"{number}.webp")
        lines.append(f"{number},{number + 1},{number + 2},l,a,p")
    (tmp_path / "nips17" / "images.csv").write_text("\n".join(lines))
    return tmp_path / "nips17"


def test_the_neurips_photos_are_for_classifiers_of_imagenet(victims: tuple[Classifier, ...], nips17: Path) -> None:
    imagenet = replace(victims[0], folders=tuple(f"n{n:08}" for n in range(1000)))
    found = read_examples(nips17, (imagenet,), replace(ALL, limit=3), QUIET)
    assert found.pixels.shape == (3, 3, 16, 16)
    assert torch.equal(found.truths["targets"], found.truths["labels"] + 1)
    assert found.names == read_examples(nips17, (imagenet,), ALL, QUIET).names[:3]
    with pytest.raises(VictimError, match=r"1000 classes but victim-a tells 3 apart; name a classifier of ImageNet"):
        read_examples(nips17, victims, ALL, QUIET)


@pytest.mark.parametrize("change", [{"fraction": 0.2}, {"part": "selection"}])
def test_the_neurips_photos_have_no_selection(
    victims: tuple[Classifier, ...], nips17: Path, change: dict[str, object]
) -> None:
    imagenet = replace(victims[0], folders=tuple(f"n{n:08}" for n in range(1000)))
    with pytest.raises(PhotoFolderError, match="for evaluation alone and has no selection; leave out"):
        read_examples(nips17, (imagenet,), replace(ALL, **change), QUIET)  # type: ignore[arg-type]


@pytest.fixture
def yolo(tmp_path: Path) -> Path:
    for folder in ("images", "labels"):
        (tmp_path / "yolo" / folder).mkdir(parents=True)
    for number in range(3):
        Image.new("RGB", (20, 10)).save(tmp_path / "yolo" / "images" / f"{number}.png")
        (tmp_path / "yolo" / "labels" / f"{number}.txt").write_text("1 0.5 0.5 1 1\n")
    return tmp_path / "yolo"


def test_photos_with_yolo_s_labels_come_at_the_detector_s_size(yolo: Path) -> None:
    found = read_examples(yolo, (Detector("two", "0" * 64, nn.Identity(), ("a", "b"), (8, 12)),), ALL, QUIET)
    assert found.pixels.shape == (3, 3, 8, 12)
    assert found.truths["boxes"].tolist() == [[[0, 0, 12, 8]]] * 3
    one = Detector("one", "0" * 64, nn.Identity(), ("a",), (8, 12))
    with pytest.raises(PhotoFolderError, match="class 1 is none of the 1 classes"):
        read_examples(yolo, (one,), replace(ALL, limit=2), QUIET)


def test_a_detector_of_other_classes_is_not_judged_on_blood_cells(tmp_path: Path) -> None:
    (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
    with pytest.raises(VictimError, match="two does not tell BCCD's cells apart"):
        read_examples(tmp_path, (Detector("two", "0" * 64, nn.Identity(), ("a", "b"), (8, 8)),), ALL, QUIET)
