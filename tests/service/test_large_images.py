"""Large images, and too little memory, through the engine."""

from __future__ import annotations

import gc
import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from model_store.architectures import build
from model_store.card import Card
from model_store.inference import InferenceMode
from model_store.store import ModelStore
from service.engine import Engine
from service.errors import OutOfDeviceMemoryError
from service.isolation import run_isolated
from service.job import Job
from service.options import PurifyQuery
from service.pipeline import make_order
from service.workbench import Failed, Workbench
from tests.service.scenes import SceneEngine

STATIC = InferenceMode()
NOISY = InferenceMode(noise_std=0.1, draws=2)
JPEG_FIRST = InferenceMode(noise_std=0.1, draws=2, jpeg=20)


def pixels(height: int, width: int, seed: int = 0) -> Any:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)


class Little(nn.Module):
    """The identity, out of memory above ``fits`` pixels (images together), remembering what was tried."""

    reach = 8
    multiple = 8

    def __init__(self, fits: int) -> None:
        super().__init__()
        self.fits = fits
        self.tried: list[int] = []

    def forward(self, images: Tensor) -> Any:
        self.tried.append(len(images) * images.shape[-2] * images.shape[-1])
        if self.tried[-1] > self.fits:
            raise torch.OutOfMemoryError("no memory")
        return images


@pytest.fixture
def lite_engine(settings_for: Any, tmp_path: Path, store_root: Path) -> Any:
    """Engines whose purifier really convolves."""
    root = shutil.copytree(store_root, tmp_path / "store")
    arguments = {"widths": (8, 8), "encoder": (1, 1), "decoder": (1,)}
    module = build("nrp_lite", arguments)
    torch.manual_seed(1)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.1)
    card = Card(name="lite", summary="random", task="purifier", architecture="nrp_lite", arguments=arguments)
    ModelStore(root).publish(card, module)
    return lambda **changes: Engine(settings_for(model_store=root, purifier="lite", **changes))


@pytest.mark.parametrize("mode", [STATIC, NOISY, JPEG_FIRST], ids=["static", "noisy", "jpeg"])
def test_an_image_in_tiles_gets_the_answer_of_the_whole_one(lite_engine: Any, mode: InferenceMode) -> None:
    job = Job(pixels(250, 330), "lite", mode, 3, task="classifier")
    whole = lite_engine().run([job])[0]
    for batch_pixels in (1, 200 * 200):
        tiled = lite_engine(tile_pixels=1000, batch_pixels=batch_pixels).run([job])[0]
        assert (tiled.purified.int() - whole.purified.int()).abs().max() <= 1
        assert torch.allclose(tiled.defended, whole.defended, atol=1e-4)
        assert torch.equal(tiled.undefended, whole.undefended)


@pytest.mark.parametrize("mode", [STATIC, NOISY], ids=["static", "noisy"])
@pytest.mark.parametrize("task", ["segmenter", "detector"])
def test_scene_models_see_of_an_image_in_tiles_what_they_see_of_the_whole_one(
    settings_for: Any, mode: InferenceMode, task: Any
) -> None:
    image = torch.zeros(3, 150, 170, dtype=torch.uint8)
    image[:, 40:100, 60:120] = 255
    job = Job(image, "plain", mode, 3, task, compare=True)
    whole, tiled = (SceneEngine(settings_for(**changes)) for changes in ({}, {"tile_pixels": 100, "batch_pixels": 1}))
    one, other = whole.run([job])[0], tiled.run([job])[0]
    if task == "segmenter":
        for wanted, got in ((one.defended, other.defended), (one.undefended, other.undefended)):
            assert set(wanted.classes.unique().tolist()) >= {0, 2}
            assert (wanted.classes != got.classes).float().mean() < 0.002
    else:
        assert torch.allclose(one.defended.boxes, other.defended.boxes, atol=0.01)
        assert torch.equal(one.undefended.boxes, other.undefended.boxes)
        assert [shape[0] for shape in tiled.spots.seen] == [1, 1]


def test_a_segmenter_out_of_memory_gets_fewer_scenes_at_a_time(settings_for: Any) -> None:
    engine = SceneEngine(settings_for(batch_pixels=64 * 256))
    shades = engine.downstream("segmenter").module
    tried = []

    def watch(_: nn.Module, given: tuple[Tensor, ...]) -> None:
        tried.append(len(given[0]))
        if tried[-1] > 2:
            raise torch.OutOfMemoryError("no memory")

    shades.register_forward_pre_hook(watch)
    jobs = [Job(pixels(16, 16, n), "plain", STATIC, n, "segmenter") for n in range(8)]
    outcomes = run_isolated(engine.run, jobs)
    assert all(torch.equal(o.purified, job.pixels) for o, job in zip(outcomes, jobs, strict=True))
    tried.clear()
    engine.run(jobs)
    assert max(tried) <= 2


def test_a_classifier_of_any_size_refuses_what_is_purified_in_tiles(
    client_for: Any, store_root: Path, tmp_path: Path, photo: Any, file_of: Any
) -> None:
    root = shutil.copytree(store_root, tmp_path / "store")
    path = root / "tiny" / "card.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "input": {}}))
    client = client_for(model_store=root, tile_pixels=1000)
    assert client.post("/classify-robust", content=file_of(photo(30, 30))).status_code == 200
    large = photo(40, 30)
    refused = client.post("/classify-robust", content=file_of(large))
    assert refused.status_code == 422
    assert refused.json()["type"] == "urn:nrp:problem:too-many-pixels"
    tensor = {"name": "image", "datatype": "UINT8", "shape": [1, 30, 40, 3], "data": np.asarray(large).ravel().tolist()}
    assert client.post("/v2/models/tiny/infer", json={"inputs": [tensor]}).status_code == 422
    assert client.post("/v2/models/plain/infer", json={"inputs": [tensor]}).status_code == 200
    assert client.post("/purify", content=file_of(large)).status_code == 200
    (tmp_path / "large.png").write_bytes(file_of(large))
    order = make_order(client.state.engine, 16, PurifyQuery(), task="classifier")
    bench = Workbench(client.state.engine, threads=1, max_pixels=10_000)
    (failed,) = bench.outcomes([tmp_path / "large.png"], order, None)
    bench.close()
    assert isinstance(failed, Failed)
    assert "tiny" in failed.reason


def test_the_noise_of_a_large_image_does_not_depend_on_the_tiles(settings_for: Any) -> None:
    job = Job(pixels(150, 170), "plain", NOISY, 3)
    whole = Engine(settings_for()).run([job])[0].purified
    for batch_pixels in (1, 10_000, 15_000):
        tiled = Engine(settings_for(tile_pixels=100, batch_pixels=batch_pixels)).run([job])[0].purified
        assert (tiled.int() - whole.int()).abs().max() <= 1
        assert (tiled != whole).float().mean() < 0.001  # other noise would change nearly all of them


def test_no_run_is_larger_than_the_tiles(settings_for: Any) -> None:
    engine = Engine(settings_for(tile_pixels=1000, batch_pixels=20_000))
    little = Little(10**9)
    engine._loaded["plain"] = little
    image = pixels(400, 500)
    assert torch.equal(engine.run([Job(image, "plain", STATIC, 0)])[0].purified, image)
    assert max(little.tried) <= 20_000
    assert engine.run([Job(pixels(31, 31), "plain", STATIC, 0)])[0].purified.shape == (3, 31, 31)
    assert little.tried[-1] == 31 * 31


def test_an_image_that_does_not_fit_whole_is_done_in_tiles(settings_for: Any) -> None:
    engine = Engine(settings_for(batch_pixels=10**6))
    little = Little(15_000)
    engine._loaded["plain"] = little
    job = Job(pixels(300, 200), "plain", NOISY, 5, task="classifier")
    wanted = Engine(settings_for()).run([job])[0]
    answer = engine.run([job])[0]
    assert little.tried[0] == 2 * 300 * 200
    assert (answer.purified.int() - wanted.purified.int()).abs().max() <= 1
    assert torch.allclose(answer.defended, wanted.defended, atol=1e-4)


def test_an_image_whose_smallest_tiles_do_not_fit_is_told_so(settings_for: Any) -> None:
    engine = Engine(settings_for(tile_pixels=1000, batch_pixels=50_000))
    engine._loaded["plain"] = Little(100)
    outcome = run_isolated(engine.run, [Job(pixels(300, 300), "plain", STATIC, 0)])[0]
    assert isinstance(outcome, OutOfDeviceMemoryError)


def test_after_an_out_of_memory_less_is_tried_and_then_more_again(settings_for: Any) -> None:
    engine = Engine(settings_for(batch_pixels=64 * 256))
    little = Little(8 * 256)
    engine._loaded["plain"] = little
    jobs = [Job(pixels(16, 16, n), "plain", STATIC, n) for n in range(32)]
    outcomes = run_isolated(engine.run, jobs)
    assert all(torch.equal(o.purified, job.pixels) for o, job in zip(outcomes, jobs, strict=True))
    assert engine.budget.now < engine.batch_pixels
    little.tried.clear()
    engine.run(jobs[:16])
    assert max(little.tried) <= 8 * 256
    little.fits = 10**9
    for _ in range(64):
        engine.run(jobs[:1])
    assert engine.budget.now == engine.batch_pixels


def test_one_image_out_of_memory_leaves_every_other_its_own_answer(
    client_for: Any, gated_engine: Any, photo: Any, file_of: Any, image_of: Any
) -> None:
    client = client_for(gated_engine)
    little = Little(3 * 24 * 16)
    client.state.engine._loaded["plain"] = little
    busy = client.sending("POST", "/purify", content=file_of(photo(8, 8)))
    assert client.state.engine.entered.wait(10)
    images = [photo(seed=n) for n in range(8)]
    sent = [client.sending("POST", "/purify", content=file_of(image)) for image in images]
    too_large = client.sending("POST", "/purify", content=file_of(photo(60, 60)))
    give_up = time.monotonic() + 10
    while client.state.batcher.depth < 9:
        assert time.monotonic() < give_up
        time.sleep(0.002)
    client.state.engine.gate.set()
    answers = [each.result(20) for each in sent]
    assert max(little.tried) > little.fits
    assert [image_of(a.content).tobytes() for a in answers] == [image.tobytes() for image in images]
    assert too_large.result(20).status_code == 503
    assert too_large.result(20).json()["type"] == "urn:nrp:problem:out-of-device-memory"
    assert busy.result(20).status_code == 200


def test_many_sizes_leave_nothing_behind(settings_for: Any) -> None:
    engine = Engine(settings_for(tile_pixels=3000))

    def tensors_after(start: int) -> int:
        for n in range(start, start + 30):
            engine.run([Job(pixels(16 + n, 90 - n, n), "plain", NOISY, n, task="classifier")])
        gc.collect()
        return sum(issubclass(type(each), Tensor) for each in gc.get_objects())

    first = tensors_after(0)
    assert tensors_after(30) <= first
