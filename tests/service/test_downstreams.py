from __future__ import annotations

import io
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx.parser
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from model_store.card import Card, InputConvention
from model_store.errors import IncompatibleWeightsError, InvalidCardError
from model_store.inference import InferenceMode
from model_store.scenes import SceneScale
from model_store.store import SHIPPED, ModelStore
from service.batch import Batch
from service.downstream import Segmenter
from service.downstream_loading import KINDS, load_downstream
from service.downstreams import Downstreams, load_downstreams
from service.engine import Engine
from service.errors import NoDownstreamError, NonFiniteOutputError
from service.job import Job
from tests.service.scenes import SIDE, Blackout, SceneEngine, Shades


def pixels(value: int, side: int = SIDE) -> Tensor:
    return torch.full((3, side, side), value, dtype=torch.uint8)


class Counting(Shades):
    """``Shades`` that remembers how many images it ran at once, and whether convolutions would be in bfloat16."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []
        self.fast: list[bool] = []

    def forward(self, images: Tensor) -> Any:
        self.sizes.append(len(images))
        self.fast.append(torch.is_autocast_enabled("cpu"))
        return super().forward(images)


def shades_of(module: nn.Module, *, exact: bool = False) -> Segmenter:
    return Segmenter("shades", ("black", "grey", "white"), "", module, exact, SceneScale(short_side=10))


def test_runs_hold_as_many_images_as_the_budget() -> None:
    module = Counting()
    downstreams = Downstreams({"segmenter": shades_of(module)}, torch.device("cpu"), torch.float32)
    images = torch.rand(5, 3, 20, 20)
    assert len(list(downstreams.findings("segmenter", images, 4 * 100 * 2))) == 5
    assert module.sizes == [2, 2, 1]
    assert len(list(downstreams.findings("segmenter", images, 1))) == 5
    assert module.sizes[3:] == [1] * 5


@pytest.mark.parametrize("exact", [True, False])
def test_what_must_be_exact_does_not_run_in_bfloat16(exact: bool) -> None:
    module = Counting()
    models = {"segmenter": shades_of(module, exact=exact)}
    list(Downstreams(models, torch.device("cpu"), torch.bfloat16).findings("segmenter", torch.rand(1, 3, 9, 9), 99))
    assert module.fast == [not exact]


def test_a_task_without_a_model_names_its_setting() -> None:
    with pytest.raises(NoDownstreamError, match="NRP_DETECTOR"):
        Downstreams({}, torch.device("cpu"), torch.float32).of("detector")


def test_auto_takes_the_shipped_models_where_the_store_has_them(settings_for: Any, store_root: Path) -> None:
    here = load_downstreams(settings_for(), ModelStore(store_root), KINDS)
    assert {kind: model.name for kind, model in here.items()} == {"classifier": "tiny"}
    settings = settings_for(model_store=SHIPPED, classifier="none")
    shipped = load_downstreams(settings, ModelStore(SHIPPED), KINDS)
    assert {kind: model.name for kind, model in shipped.items()} == {
        "segmenter": "camvid-segnet",
        "detector": "bccd-retinanet",
    }
    assert shipped["segmenter"].inputs(torch.rand(1, 3, 36, 48)).shape == (1, 3, 180, 240)
    assert shipped["detector"].inputs(torch.rand(1, 3, 480, 640)).shape == (1, 3, 240, 320)
    with torch.inference_mode():
        for model in shipped.values():
            inputs = model.inputs(torch.rand(1, 3, 48, 64))
            assert len(model.findings(model.module(inputs), 48, 64)) == 1


def test_only_the_tasks_asked_for_are_loaded(settings_for: Any, store_root: Path) -> None:
    assert load_downstreams(settings_for(classifier="none-such"), ModelStore(store_root), ()) == {}


def test_an_image_whose_purification_is_not_finite_fails_alone_and_no_detector_sees_it(settings_for: Any) -> None:
    engine = SceneEngine(settings_for())

    class Poison(nn.Module):
        def forward(self, images: Tensor) -> Any:
            return torch.where(images.amax(dim=(1, 2, 3), keepdim=True) < 0.5, torch.nan, images)

    engine._loaded["plain"] = Poison()
    for task in ("detector", "segmenter"):
        jobs = [Job(pixels(level), "plain", InferenceMode(), 0, task, compare=True) for level in (255, 0)]
        good, bad = engine.run(jobs)
        assert good.defended is not None
        assert good.undefended is not None
        assert isinstance(bad, NonFiniteOutputError)
    assert all(shape[0] == 1 for shape in engine.spots.seen)


def test_jobs_of_several_tasks_run_together_each_with_its_own_answer(settings_for: Any) -> None:
    engine = SceneEngine(settings_for())
    engine._loaded["plain"] = Blackout()
    tasks = ("detector", "segmenter", None)
    found, mask, plain = engine.run([Job(pixels(255), "plain", InferenceMode(), 0, task) for task in tasks])
    assert found.defended.boxes.shape == (0, 4)
    assert (mask.defended.classes == 0).all()
    assert found.undefended is mask.undefended is plain.defended is None


def test_masks_of_many_images_are_made_a_few_at_a_time(settings_for: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = SceneEngine(settings_for(batch_pixels=3 * SIDE * SIDE))
    module = Counting()
    engine.downstreams = Downstreams({"segmenter": shades_of(module)}, engine.device, engine.precision)
    held = []

    class Watched(Batch):
        def __init__(self, jobs: Any, *others: Any) -> None:
            held.append(len(jobs))
            super().__init__(jobs, *others)

    monkeypatch.setattr("service.engine.Batch", Watched)
    jobs = [Job(pixels(level), "plain", InferenceMode(), 0, "segmenter") for level in range(0, 256, 8)]
    masks = engine.run(jobs)
    assert max(held) == 3 * SIDE * SIDE // 100
    assert [int(mask.defended.classes[0, 0]) for mask in masks] == [
        int(level >= 64) + int(level > 191) for level in range(0, 256, 8)
    ]


def torchscript(network: nn.Module) -> bytes:
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.jit.save(torch.jit.script(network), out)
    return out.getvalue()


def exported(network: nn.Module, side: int) -> bytes:
    out = io.BytesIO()
    torch.export.save(torch.export.export(network.eval(), (torch.rand(1, 3, side, side),)), out)
    return out.getvalue()


class Brightness(nn.Module):
    """Two logits: dark and bright."""

    def forward(self, images: Tensor) -> Tensor:
        level = images.mean(dim=(1, 2, 3))
        return torch.stack([20 * (0.5 - level), 20 * (level - 0.5)], dim=1)


class Planes(nn.Module):
    """The same for each pixel."""

    def forward(self, images: Tensor) -> Tensor:
        level = images.mean(dim=1)
        return torch.stack([20 * (0.5 - level), 20 * (level - 0.5)], dim=1)


@pytest.fixture
def program_store(tmp_path: Path, store_root: Path) -> ModelStore:
    return ModelStore(shutil.copytree(store_root, tmp_path / "store"))


def program_card(task: str, architecture: str, **changes: Any) -> Card:
    return Card(
        name="program", summary="made up", task=task, architecture=architecture, labels=("dark", "bright"), **changes
    )


def test_programs_of_the_store_serve(
    program_store: ModelStore,
    client_for: Callable[..., Any],
    photo: Callable[..., Image.Image],
    file_of: Callable[..., bytes],
    image_of: Any,
) -> None:
    card = program_card("classifier", "torchscript", input=InputConvention(short_side=16, crop=16))
    program_store.publish_program(card, torchscript(Brightness()))
    card = program_card("segmenter", "exported").model_copy(update={"name": "planes"})
    program_store.publish_program(card, exported(Planes(), 12))
    client = client_for(model_store=program_store.root, classifier="program", segmenter="planes", precision="bfloat16")
    white = file_of(Image.new("RGB", (30, 20), "white"))
    answer = client.post("/classify-robust?top_k=1&mode=noisy&samples=2", content=white).json()
    assert (answer["predictions"][0]["label"], answer["model"]) == ("bright", "program")
    mask = image_of(client.post("/segment-robust", content=white).content)
    assert mask.size == (30, 20)
    assert (np.asarray(mask) == 1).all()


def test_a_program_must_say_what_size_it_takes(program_store: ModelStore) -> None:
    program_store.publish_program(program_card("classifier", "torchscript"), torchscript(Brightness()))
    with pytest.raises(InvalidCardError, match=r"input\.short_side"):
        load_downstream("classifier", "program", program_store)
    crop = InputConvention(short_side=16, crop=16)
    card = program_card("classifier", "exported", input=crop)
    program_store.publish_program(card, exported(Brightness(), 12), replace=True)
    with pytest.raises(InvalidCardError, match="crops to 16 pixels"):
        load_downstream("classifier", "program", program_store)
    program_store.publish_program(program_card("segmenter", "torchscript"), torchscript(Planes()), replace=True)
    with pytest.raises(InvalidCardError, match=r"recipe\.size"):
        load_downstream("segmenter", "program", program_store)


def test_a_program_whose_answer_does_not_fit_its_labels_is_not_loaded(
    program_store: ModelStore, settings_for: Any
) -> None:
    card = program_card("segmenter", "torchscript", input=InputConvention(short_side=16))
    published = program_store.publish_program(card, torchscript(Planes()))
    program_store.rewrite_card(published.model_copy(update={"labels": ("a", "b", "c")}))
    with pytest.raises(IncompatibleWeightsError, match="3 labels"):
        Engine(settings_for(model_store=program_store.root, segmenter="program"))


def test_programs_in_onnx_serve(
    program_store: ModelStore, client_for: Callable[..., Any], file_of: Callable[..., bytes], image_of: Any
) -> None:
    graph = """network (float[N,3,H,W] images) => (float[N,2,H,W] logits)
    <float[1] half = {0.5}> { level = ReduceMean <axes = [1]> (images)  bright = Sub (level, half)
      dark = Sub (half, level)  logits = Concat <axis = 1> (dark, bright) }"""
    model = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["" : 17]> {graph}')
    card = program_card("segmenter", "onnx", input=InputConvention(short_side=16))
    program_store.publish_program(card, model.SerializeToString())
    client = client_for(model_store=program_store.root, segmenter="program", precision="bfloat16")
    for colour, index in (("white", 1), ("black", 0)):
        mask = image_of(client.post("/segment-robust", content=file_of(Image.new("RGB", (30, 20), colour))).content)
        assert mask.size == (30, 20)
        assert (np.asarray(mask) == index).all()


def test_a_detector_in_onnx_that_takes_one_image_serves(
    program_store: ModelStore, client_for: Callable[..., Any], file_of: Callable[..., bytes]
) -> None:
    graph = """network (float[3,H,W] image) => (float[1,4] boxes, int64[1] labels, float[1] scores)
    <float[1,4] boxes = {2, 2, 8, 6}, int64[1] labels = {1}, int64[1] one = {1}>
    { brightest = ReduceMax <keepdims = 0> (image)  scores = Reshape (brightest, one) }"""
    model = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["" : 17]> {graph}')
    card = program_card("detector", "onnx", input=InputConvention(short_side=16))
    program_store.publish_program(card, model.SerializeToString())
    client = client_for(model_store=program_store.root, detector="program")
    answer = client.post("/detect-robust", content=file_of(Image.new("RGB", (64, 32), "white"))).json()
    (found,) = answer["objects"]
    assert (found["label"], found["score"]) == ("bright", 1.0)
    assert found["box"] == {"x0": 4, "y0": 4, "x1": 16, "y1": 12}
    assert client.post("/detect-robust", content=file_of(Image.new("RGB", (64, 32)))).json()["objects"] == []
