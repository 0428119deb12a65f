"""One image: the published networks as their authors run them (batch 1, float32, eager) against this engine.

Their weights play no part in how long they take, so random ones do.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from model_store.architectures import build
from model_store.card import Card
from model_store.store import ModelStore
from service.bench.figures import middle
from service.bench.purification import Purification, pixels_of
from service.bench.rows import Row, write_whole
from service.bench.task import Task, received_task

PUBLISHED = ("nrp_resg", "nrp")
MATRIX = 4096
GPU_BATCH = 8


def timed(run: Callable[[], object], device: torch.device, seconds: float, least: int = 3) -> list[float]:
    """Milliseconds of each of ``least`` runs, and of more while there is time; one run before does not count."""
    took: list[float] = []
    run()
    begun = time.perf_counter()
    while len(took) < least or time.perf_counter() - begun < seconds:
        _settle(device)
        since = time.perf_counter()
        run()
        _settle(device)
        took.append(1000 * (time.perf_counter() - since))
    return took


def figures(took: list[float]) -> dict[str, float]:
    """The median and its range."""
    return {"ms": middle(took), "least_ms": min(took), "most_ms": max(took), "runs": float(len(took))}


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Multiply-adds counted as two: operations a second of one large product, the best of several."""
    side = MATRIX if device.type == "cuda" else MATRIX // 4
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    return 2 * side**3 / (min(timed(lambda: left @ right, device, 1.0, 5)) / 1000)


def operations(module: torch.nn.Module, image: torch.Tensor) -> float:
    """Operations of one forward pass, as PyTorch counts them."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(image)
    return float(counter.get_total_flops())


def published(name: str, task: Task, seconds: float) -> list[Row]:
    """The authors' way and ours, in turn on the same pixels."""
    torch.manual_seed(task.seed)
    module = build(name).eval()
    with tempfile.TemporaryDirectory() as folder:
        store = ModelStore(Path(folder))
        store.publish(Card(name=name, summary="random weights", task="purifier", architecture=name), module)
        ours = Purification(task.model_copy(update={"store": store.root, "purifier": name, "mode": "static"}))
    device = ours.engine.device
    module = module.to(device)
    pixels = pixels_of(task.image())
    image = (pixels.float() / 255)[None].to(device)

    @torch.no_grad()
    def as_published() -> torch.Tensor:
        return torch.as_tensor(module(image))

    rows = [
        Row(measure="single", subject=name, setting=setting, figures=figures(timed(run, device, seconds)))
        for setting, run in (("authors", as_published), ("ours", lambda: ours.run([pixels])))
    ]
    batch = GPU_BATCH if device.type == "cuda" else 1
    took = middle(timed(lambda: ours.run([pixels] * batch), device, seconds)) if batch > 1 else rows[1].figures["ms"]
    rate = matrix_rate(device, ours.engine.precision)
    done = operations(module, image) * batch / (took / 1000)
    share = {"share_of_matmul": done / rate, "matmul_per_s": rate, "operations_per_s": done, "ms": took / batch}
    return [*rows, Row(measure="single", subject=name, setting="ours, batch", figures=share)]


def default(task: Task, seconds: float) -> list[Row]:
    """The purifier of the task: static, which is one run of the network as theirs is, and in its card's mode."""
    rows = []
    for mode, setting in (("static", "ours"), ("default", "ours, its card's mode")):
        ours = Purification(task.model_copy(update={"mode": mode}))
        pixels = pixels_of(task.image())
        took = timed(lambda ours=ours, pixels=pixels: ours.run([pixels]), ours.engine.device, seconds)  # type: ignore[misc]
        rows.append(Row(measure="single", subject="default", setting=setting, figures=figures(took)))
    return rows


def main(seconds: float, target: Path) -> None:
    """Rows into ``target``."""
    task = received_task()
    torch.set_num_threads(task.model_threads)
    rows = default(task, seconds)
    for name in PUBLISHED:
        rows += published(name, task, seconds)
    write_whole(target, "".join(f"{row.model_dump_json()}\n" for row in rows).encode())


def _settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main(float(sys.argv[1]), Path(sys.argv[2]))
