from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from service.errors import SettingsError
from service.remote.labels import Labels
from service.remote.model import remote_models


def test_labels_are_learnt_from_answers() -> None:
    labels = Labels()
    labels.learn(3, {2: "newt"})
    assert labels.names == ("0", "1", "newt")
    labels.learn(1, {0: "cat"})
    assert labels.names == ("cat", "1", "newt")


def test_labels_that_the_metadata_tells_grow_where_an_answer_knows_more() -> None:
    labels = Labels()
    labels.tell(("cat", "dog"))
    labels.learn(3, {})
    assert labels.names == ("cat", "dog", "2")


def test_labels_of_a_file_stay_as_they_are() -> None:
    labels = Labels(("a", "b"))
    labels.tell(("c",))
    labels.learn(2, {0: "x"})
    assert labels.names == ("a", "b")


def test_a_file_of_labels_is_read_at_the_start(settings_for: Any, tmp_path: Path) -> None:
    path = tmp_path / "labels"
    path.write_text("Katze\nHund \nMölch\n", encoding="utf-8")
    settings = settings_for(classifier="http://h/x", classifier_labels=path)
    assert remote_models(settings, ["classifier"])["classifier"].labels == ("Katze", "Hund", "Mölch")


@pytest.mark.parametrize(("content", "named"), [(b"", "one label"), (b"a\n\nb", "one label"), (b"\xff", "UTF-8")])
def test_a_broken_file_of_labels_stops_the_start_in_one_line(
    settings_for: Any, tmp_path: Path, content: bytes, named: str
) -> None:
    path = tmp_path / "labels"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match=f"NRP_DETECTOR_LABELS: .*{named}"):
        remote_models(settings_for(detector="http://h/x", detector_labels=path), ["detector"])
    with pytest.raises(SettingsError, match=r"NRP_DETECTOR_LABELS: .*cannot be read"):
        remote_models(settings_for(detector="http://h/x", detector_labels=tmp_path / "none"), ["detector"])


def test_labels_of_a_model_that_is_not_remote_are_a_mistake(settings_for: Any, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="NRP_CLASSIFIER_LABELS: it is for a remote classifier"):
        remote_models(settings_for(classifier_labels=tmp_path / "labels"), ["classifier"])
