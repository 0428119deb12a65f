from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from model_store.architectures import build
from model_store.card import Card
from model_store.errors import TamperedWeightsError, UnavailableDeviceError, UnknownModelError
from model_store.inference import InferenceMode
from model_store.store import ModelStore
from service.engine import LOADED_PURIFIERS, Engine
from service.errors import NonFiniteOutputError, OutOfDeviceMemoryError
from service.isolation import run_isolated
from service.job import Job

NOISY = InferenceMode(noise_std=0.2, draws=5)


def pixels(seed: int, side: int = 16) -> Any:
    return torch.randint(0, 256, (3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


class Recorder(nn.Module):
    """The identity, remembering how large its batches were, failing above ``fits`` images."""

    def __init__(self, fits: int = 10**9) -> None:
        super().__init__()
        self.sizes = []
        self.fits = fits

    def forward(self, images: Tensor) -> Any:
        self.sizes.append(len(images))
        if len(images) > self.fits:
            raise torch.OutOfMemoryError("no memory")
        return images


@pytest.fixture
def engine(settings_for: Any) -> Any:
    return Engine(settings_for())


@pytest.fixture
def lite_engine(settings_for: Any, tmp_path: Path, store_root: Path) -> Any:
    """An engine whose purifier really convolves."""
    root = shutil.copytree(store_root, tmp_path / "store")
    arguments = {"widths": (8, 8), "encoder": (1, 1), "decoder": (1,)}
    module = build("nrp_lite", arguments)
    torch.manual_seed(1)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.1)
    card = Card(name="lite", summary="random", task="purifier", architecture="nrp_lite", arguments=arguments)
    ModelStore(root).publish(card, module)

    def make(**changes: Any) -> Any:
        return Engine(settings_for(model_store=root, purifier="lite", **changes))

    return make


def replace_purifier(engine: Any, module: Any) -> None:
    engine._loaded["plain"] = module


def test_neighbours_never_change_an_image_s_answer(lite_engine: Any) -> None:
    engine = lite_engine()
    jobs = [Job(pixels(n), "lite", NOISY, seed=n, task="classifier") for n in range(4)]
    together = engine.run(jobs)
    for job, answer in zip(jobs, together, strict=True):
        alone = engine.run([job])[0]
        assert (alone.purified.int() - answer.purified.int()).abs().max() <= 1
        assert torch.allclose(alone.defended, answer.defended, atol=1e-5)


@pytest.mark.parametrize("batch_pixels", [1, 256, 3 * 256, 10**6])
def test_cutting_draws_into_runs_changes_neither_noise_nor_result(settings_for: Any, batch_pixels: int) -> None:
    engine = Engine(settings_for(batch_pixels=batch_pixels))
    recorder = Recorder()
    replace_purifier(engine, recorder)
    answer = engine.run([Job(pixels(0), "plain", NOISY, 9)])[0]
    whole = Engine(settings_for()).run([Job(pixels(0), "plain", NOISY, 9)])[0]
    assert torch.equal(answer.purified, whole.purified)
    assert max(recorder.sizes) <= max(1, batch_pixels // 256)
    assert sum(recorder.sizes) == 5


def test_a_static_image_is_computed_once_and_exactly(engine: Any) -> None:
    recorder = Recorder()
    replace_purifier(engine, recorder)
    answer = engine.run([Job(pixels(0), "plain", InferenceMode(draws=8), 0)])[0]
    assert recorder.sizes == [1]
    assert torch.equal(answer.purified, pixels(0))


def test_bfloat16_keeps_every_level_on_the_skip_connection(settings_for: Any, lite_engine: Any) -> None:
    identity = Engine(settings_for(precision="bfloat16"))
    assert torch.equal(identity.run([Job(pixels(0), "plain", InferenceMode(), 0)])[0].purified, pixels(0))
    exact, fast = lite_engine(), lite_engine(precision="bfloat16")
    job = Job(pixels(3), "lite", InferenceMode(), 0, task="classifier")
    one, other = exact.run([job])[0], fast.run([job])[0]
    assert (one.purified.int() - other.purified.int()).abs().max() <= 6
    assert torch.allclose(one.defended, other.defended, atol=0.05)
    assert other.defended.dtype is torch.float32


def test_out_of_memory_with_several_images_is_told_so_that_they_are_split(engine: Any) -> None:
    replace_purifier(engine, Recorder(fits=2))
    jobs = [Job(pixels(n), "plain", InferenceMode(), n) for n in range(4)]
    with pytest.raises(OutOfDeviceMemoryError):
        engine.run(jobs)
    outcomes = run_isolated(engine.run, jobs)
    assert all(torch.equal(o.purified, job.pixels) for o, job in zip(outcomes, jobs, strict=True))


def test_out_of_memory_with_one_image_takes_fewer_draws_at_a_time(engine: Any) -> None:
    recorder = Recorder(fits=1)
    replace_purifier(engine, recorder)
    job = Job(pixels(0), "plain", NOISY, 4)
    answer = engine.run([job])[0]
    replace_purifier(engine, Recorder())
    assert torch.equal(answer.purified, engine.run([job])[0].purified)
    assert recorder.sizes[:3] == [5, 2, 1]


def test_out_of_memory_with_a_single_draw_is_that_image_s_error(engine: Any) -> None:
    replace_purifier(engine, Recorder(fits=0))
    outcome = run_isolated(engine.run, [Job(pixels(0), "plain", InferenceMode(), 0)])[0]
    assert isinstance(outcome, OutOfDeviceMemoryError)


def test_an_output_that_is_not_finite_fails_alone(engine: Any) -> None:
    class Poison(nn.Module):
        def forward(self, images: Tensor) -> Any:
            return torch.where(images.amax(dim=(1, 2, 3), keepdim=True) < 0.5, torch.inf, images)

    replace_purifier(engine, Poison())
    dark = Job(torch.zeros(3, 16, 16, dtype=torch.uint8), "plain", InferenceMode(), 0, task="classifier")
    good, bad = engine.run([Job(pixels(0), "plain", InferenceMode(), 0, task="classifier"), dark])
    assert torch.equal(good.purified, pixels(0))
    assert isinstance(bad, NonFiniteOutputError)


def test_abandoned_jobs_are_not_computed(engine: Any) -> None:
    recorder = Recorder()
    replace_purifier(engine, recorder)
    jobs = [Job(pixels(n), "plain", NOISY, n) for n in range(2)]
    jobs[0].abandoned.set()
    gone, done = engine.run(jobs)
    assert isinstance(gone, Exception)
    assert torch.is_tensor(done.purified)
    assert sum(recorder.sizes) == 5


def test_other_purifiers_are_loaded_when_asked_for_and_the_default_stays(
    settings_for: Any, tmp_path: Path, store_root: Path
) -> None:
    root = shutil.copytree(store_root, tmp_path / "store")
    store = ModelStore(root)
    for name in ("a", "b", "c"):
        store.publish(Card(name=name, summary="", task="purifier", architecture="identity"), build("identity"))
    engine = Engine(settings_for(model_store=root))
    for name in ("a", "b", "c"):
        engine.run([Job(pixels(0), name, InferenceMode(), 0)])
        assert engine.loaded == {"plain", name, "tiny"}
    assert len(engine.loaded) == LOADED_PURIFIERS + 1


def test_a_purifier_tampered_with_after_the_start_fails_its_own_requests_only(
    settings_for: Any, tmp_path: Path, store_root: Path
) -> None:
    root = shutil.copytree(store_root, tmp_path / "store")
    engine = Engine(settings_for(model_store=root))
    (root / "noise" / "weights.safetensors").write_bytes(b"tampered")
    outcomes = engine.run([Job(pixels(n), "noise", InferenceMode(), n) for n in range(2)])
    assert all(isinstance(outcome, TamperedWeightsError) for outcome in outcomes)
    assert not isinstance(engine.run([Job(pixels(0), "plain", InferenceMode(), 0)])[0], Exception)


@pytest.mark.parametrize("name", ["plain", "tiny"])
def test_tampered_weights_stop_the_engine(settings_for: Any, tmp_path: Path, store_root: Path, name: str) -> None:
    root = shutil.copytree(store_root, tmp_path / "store")
    path = root / name / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(TamperedWeightsError, match=name):
        Engine(settings_for(model_store=root))


@pytest.mark.parametrize(
    "changes", [{"purifier": "none-such"}, {"classifier": "none-such"}, {"purifier": "tiny"}, {"classifier": "plain"}]
)
def test_a_name_that_is_no_such_model_stops_the_engine(settings_for: Any, changes: Any) -> None:
    with pytest.raises(UnknownModelError):
        Engine(settings_for(**changes))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_device_that_is_not_here_stops_the_engine(settings_for: Any) -> None:
    with pytest.raises(UnavailableDeviceError, match="use cpu or auto"):
        Engine(settings_for(device="cuda"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_cuda_gives_the_cpu_s_answer(lite_engine: Any) -> None:
    job = Job(pixels(0, 64), "lite", NOISY, 3, task="classifier")
    cpu, cuda = lite_engine().run([job])[0], lite_engine(device="cuda").run([job])[0]
    assert (cpu.purified.int() - cuda.purified.int()).abs().max() <= 1
    assert torch.allclose(cpu.defended, cuda.defended, atol=1e-3)


def test_cards_are_read_once(engine: Any, store_root: Path) -> None:
    assert sorted(engine.cards) == ["noise", "plain", "tiny"]
    assert json.loads((store_root / "plain" / "card.json").read_text())["sha256"] == engine.cards["plain"].sha256
