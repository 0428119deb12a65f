"""timm's classifiers by name: real code reads random weights from a hub's cache that the tests fill."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
from PIL import Image
from torch import nn

from model_store.card import InputConvention
from model_store.errors import UnavailableModelError
from model_store.official import OfficialModel, load_official, official_kind
from model_store.pixels import image_to_bytes, to_float
from model_store.timm_models import TimmTransforms, _readable, load_timm
from tests.model_store.timm_cache import NAME, REPOSITORY, cache_file, cache_random, hub_cache, random_state


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    return hub_cache(monkeypatch, tmp_path / "hub")


def refusal(name: str) -> str:
    with pytest.raises(UnavailableModelError) as refused:
        load_timm(name, "or stay at home")
    text = str(refused.value)
    assert "\n" not in text
    assert text.endswith(", or stay at home")
    return text


def test_a_name_brings_weights_labels_identity_and_convention(cache: Path) -> None:
    state = cache_random(cache)
    official = load_official("classifier", f"timm:{NAME}", "or not")
    assert (official.name, official.kind) == (f"timm:{NAME}", "classifier")
    assert (len(official.labels), official.labels[:3]) == (1000, ("tench", "goldfish", "great white shark"))
    assert len(set(official.labels)) == 1000
    assert all(torch.equal(tensor, state[key]) for key, tensor in official.module.state_dict().items())
    assert not official.module.training
    assert not any(parameter.requires_grad for parameter in official.module.parameters())
    assert official.convention == InputConvention(short_side=168, crop=160)
    assert official.identity.startswith(f"{REPOSITORY} ")
    assert official_kind(official.name, "or not") == "classifier"


def test_without_a_tag_the_preferred_weights_are_taken(cache: Path) -> None:
    cache_random(cache)
    assert load_timm("test_efficientnet", "or not").identity == load_timm(NAME, "or not").identity


def test_other_weights_have_another_identity(cache: Path) -> None:
    state = cache_random(cache)
    first = load_timm(NAME, "or not").identity
    cache_file(cache, safetensors.torch.save({key: tensor + 1 for key, tensor in state.items()}))
    assert load_timm(NAME, "or not").identity != first


def test_photos_are_prepared_as_timm_does(cache: Path) -> None:
    cache_random(cache)
    official = load_official("classifier", f"timm:{NAME}", "or not")
    config = timm.data.resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(NAME).to_dict())
    gradient = Image.linear_gradient("L").resize((300, 220), Image.Resampling.BICUBIC)
    photo = Image.merge("RGB", [gradient, gradient.transpose(Image.Transpose.FLIP_LEFT_RIGHT), gradient])
    made = official.transforms(to_float(image_to_bytes(photo)).unsqueeze(0))
    assert made.shape == (1, 3, 160, 160)
    torch.testing.assert_close(made[0], timm.data.create_transform(**config)(photo), rtol=0, atol=0.03)
    within = to_float(image_to_bytes(photo)).unsqueeze(0)[..., 30:190, 40:200]
    mean, std = torch.tensor(config["mean"]).view(3, 1, 1), torch.tensor(config["std"]).view(3, 1, 1)
    torch.testing.assert_close(official.on_pixels()(within), official.module((within - mean) / std))


def test_networks_that_see_the_whole_photo_squeezed_say_so() -> None:
    config = timm.data.resolve_data_config({"crop_pct": 1.0}, {"input_size": (3, 160, 160), "crop_mode": "squash"})
    transforms = TimmTransforms(timm.data.create_transform(**config), config)
    official = OfficialModel("timm:squeezed", "classifier", (), "", transforms, nn.Identity())
    assert official.convention == InputConvention(short_side=160, crop=160, stretch=True)
    images = torch.zeros(1, 3, 100, 400)
    images[..., :40] = 1  # beyond what a centre crop shows
    made = transforms(images)
    assert made.shape == (1, 3, 160, 160)
    assert made[..., 0].mean() > made[..., -1].mean() + 1


def test_labels_of_the_weights_themselves_go_first(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    cache_random(cache)
    config = timm.get_pretrained_cfg(NAME)
    names = tuple(f"c{n}" for n in range(1000))
    monkeypatch.setattr(config, "label_names", names)
    monkeypatch.setattr(config, "label_descriptions", {"c7": "seven, 7"})
    monkeypatch.setattr(timm, "get_pretrained_cfg", lambda _: config)
    labels = load_timm(NAME, "or not").labels
    assert (labels[6], labels[7]) == ("c6", "seven")
    monkeypatch.setattr(config, "label_names", names[:-1])
    assert "names 999 of the 1000 classes" in refusal(NAME)


def test_classes_that_share_a_word_are_told_apart() -> None:
    names = ["tench, Tinca tinca", "crane", "crane", "maillot", "maillot, tank suit"]
    assert _readable(["n1", "n2", "n3", "n4", "n5"], names) == (
        "tench",
        "crane (n2)",
        "crane (n3)",
        "maillot",
        "maillot, tank suit",
    )


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nonsense", "timm:resnet50.a1_in1k"),
        ("", "timm:resnet50.a1_in1k"),
        ("resnet18.nonsense", "timm:resnet18.a1_in1k"),
        ("hf-hub:timm/resnet18.a1_in1k", "has no model"),
        ("local-dir:/etc", "has no model"),
        ("../resnet18", "has no model"),
        ("vit_small_patch14_dinov2.lvd142m", "gives features, not classes"),
        ("vit_base_patch16_clip_224.openai", "names 0 of the 512 classes"),
        ("mobilenetv4_conv_small_035", "no model.safetensors"),
    ],
)
def test_what_does_not_classify_is_refused_before_anything_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, name: str, reason: str
) -> None:
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: pytest.fail("asked for"))
    assert reason in refusal(name)


@pytest.mark.parametrize("kind", ["segmenter", "detector"])
def test_timm_has_classifiers_alone(kind: Any) -> None:
    with pytest.raises(UnavailableModelError, match=rf"name a {kind} such as torchvision:.*, or unset it"):
        load_official(kind, f"timm:{NAME}", "or unset it")


def test_without_a_network_the_error_says_where_the_file_goes(cache: Path) -> None:
    text = refusal(NAME)
    assert f"`hf download {REPOSITORY} model.safetensors`" in text
    assert f"models--timm--{NAME}" in text


def test_a_network_that_is_down_is_noticed_at_once(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    asked = []

    def fail(url: str) -> None:
        asked.append(url)
        raise ConnectionError("no\nroute")

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", fail)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_: pytest.fail("asked again"))
    assert "(no route)" in refusal(NAME)
    assert len(asked) == 1


def test_where_there_is_a_network_the_file_is_downloaded(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    def download(repository: str, name: str) -> str:
        assert (repository, name) == (REPOSITORY, "model.safetensors")
        return str(cache_file(cache, safetensors.torch.save(random_state())))

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", lambda _: None)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    assert len(load_timm(NAME, "or not").labels) == 1000


def test_without_timm_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    assert "pip install timm" in refusal(NAME)


def test_weights_of_another_network_are_refused(cache: Path) -> None:
    file = cache_file(cache, safetensors.torch.save({"fc.weight": torch.zeros(3, 3)}))
    text = refusal(NAME)
    assert str(file) in text
    assert "delete it" in text


def test_a_pickle_in_the_cache_is_not_unpickled(cache: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"

    class Trap:
        def __reduce__(self) -> Any:
            return Path.touch, (ran,)

    out = io.BytesIO()
    torch.save({"x": Trap()}, out)
    cache_file(cache, out.getvalue())
    assert "delete it" in refusal(NAME)
    assert not ran.exists()
