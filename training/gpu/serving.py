"""How fast purifiers run on this device: ``python -m training.gpu.serving MANIFEST.json --rows ROWS.jsonl``.

Weights are random: what they are does not change how long they take. Networks compute in bfloat16 on a GPU as the
service has it, under autocast, channels last. Variants: ``service``, float32 weights that autocast casts at each call;
``eager``, weights cast once; ``graph``, the same calls replayed as a CUDA graph; ``compiled``, by torch.compile. With
``pinned`` behind a name, uint8 images come from pinned memory and go back there; ``overlapped`` moves one batch
while the next is computed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from model_store.architectures import build
from model_store.devices import device_named, place
from model_store.errors import NrpError
from model_store.pixels import to_bytes
from training.gpu.clocking import Run, interleaved
from training.gpu.folder import read_facts
from training.gpu.pipeline import overlapped, pinned
from training.gpu.stamp import Stamp

Forward = Callable[[Tensor], Tensor]
UNAVAILABLE = "no CUDA device"


@dataclass(frozen=True)
class Sizes:
    """What is timed: images of ``side`` pixels in ``batches``, ``repeats`` of each; ``matrix`` is a product's side."""

    side: int = 224
    batches: tuple[int, ...] = (8, 1, 32)
    repeats: int = 11
    matrix: int = 8192
    first_compile: float = 40.0  # seconds that the first is expected to take


TOY = Sizes(side=16, batches=(1,), repeats=2, matrix=64, first_compile=1.0)


@dataclass(frozen=True)
class Case:
    """One network at one batch size."""

    name: str
    architecture: str
    arguments: dict[str, object]
    batch: int

    def module(self) -> nn.Module:
        """Random weights, the same each time."""
        torch.manual_seed(0)
        return build(self.architecture, self.arguments).eval().requires_grad_(False)

    def operations(self, side: int) -> int:
        """Floating-point operations of one call, a multiplication and an addition each one."""
        with FlopCounterMode(display=False) as counter:
            self.module().to("meta")(torch.empty(self.batch, 3, side, side, device="meta"))
        return int(counter.get_total_flops())


@dataclass(frozen=True)
class Bench:
    """Where rows go, and how long there is; ``deadline`` is a time of the monotonic clock."""

    device: torch.device
    sizes: Sizes
    stamp: Stamp
    rows: Path
    deadline: float

    @property
    def left(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - time.monotonic()

    def write(self, row: dict[str, object]) -> None:
        """Keep a row, and show it."""
        self.stamp.append({"kind": "serving", "side": self.sizes.side, **row}, self.rows)
        tqdm.write(", ".join(f"{key} {value}" for key, value in row.items()))


def main(argv: Sequence[str] | None = None) -> int:
    """Time everything in the manifest while there is time."""
    parser = argparse.ArgumentParser(prog="python -m training.gpu.serving", description="Time purifiers.")
    parser.add_argument("manifest", type=Path, metavar="MANIFEST.json")
    parser.add_argument("--rows", type=Path, required=True, metavar="ROWS.jsonl", help="rows are appended")
    parser.add_argument("--minutes", type=float, default=2.0, help="begin nothing that would end later (default: 2)")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--toy", action="store_true", help="sizes at which everything is only rehearsed")
    given = parser.parse_args(argv)
    deadline = time.monotonic() + 60 * given.minutes
    try:
        device, facts = device_named(given.device), read_facts(given.manifest)
    except NrpError as error:
        tqdm.write(f"error: {error}", file=sys.stderr)
        return 1
    torch.backends.cudnn.benchmark = True
    sizes = TOY if given.toy else Sizes()
    bench = Bench(device, sizes, Stamp.of(device, facts["code_revision"]), given.rows, deadline)
    cases = [
        Case(name, network["architecture"], network["arguments"], batch)
        for name, network in facts["serving"].items()
        for batch in sizes.batches
    ]
    measure(bench, cases)
    return 0


@torch.inference_mode()
def measure(bench: Bench, cases: Sequence[Case]) -> None:
    """The device's own rates, then every case without a compiler, then with one, as long as there is time."""
    rate = matrix_rate(bench)
    for case in cases:
        if bench.left > 0:
            time_case(bench, case, rate)
    longest = bench.sizes.first_compile
    for case in sorted(cases, key=lambda case: bench.sizes.batches.index(case.batch)):
        if bench.left < longest:
            bench.write({"network": case.name, "batch": case.batch, "variant": "compiled", "missing": "no time left"})
            continue
        began = time.monotonic()
        time_compiled(bench, case, rate)
        longest = time.monotonic() - began


def matrix_rate(bench: Bench) -> float:
    """Operations a second of a large matrix product of random numbers, in the precision that networks run in."""
    side = bench.sizes.matrix
    left, right = (torch.randn(side, side, device=bench.device, dtype=_dtype(bench.device)) for _ in range(2))
    timing = interleaved({"product": lambda: left @ right}, bench.device, bench.sizes.repeats)["product"]
    rate = 2 * side**3 / timing.median
    bench.write({"network": "matrix product", "matrix side": side, "tera-operations a second": round(rate / 1e12, 2)})
    return rate


def time_case(bench: Bench, case: Case, rate: float) -> None:
    """What needs no compiler, and the transfers around the fastest of it."""
    device, images = bench.device, _images(bench, case)
    plain = _forward(place(case.module(), device), device)
    cast = _forward(place(case.module(), device).to(_dtype(device)), device)
    runs: dict[str, Run] = {"service": lambda: plain(images), "eager": lambda: cast(images)}
    fastest = cast
    if device.type == "cuda":
        fastest = graphed(cast, images)
        runs["graph"] = lambda: fastest(images)
    host = to_bytes(images).cpu()
    runs["fastest, pinned"] = pinned(fastest, host, device)
    runs["fastest, pinned, overlapped"] = overlapped(fastest, host, device)
    _write(bench, case, runs, rate)
    if device.type != "cuda":
        bench.write({"network": case.name, "batch": case.batch, "variant": "graph", "missing": UNAVAILABLE})


def time_compiled(bench: Bench, case: Case, rate: float) -> None:
    """torch.compile beside eager calls; on a CPU, where this is only rehearsed, without its code generator."""
    device, images = bench.device, _images(bench, case)
    cast = _forward(place(case.module(), device).to(_dtype(device)), device)
    gpu = device.type == "cuda"
    torch.compiler.reset()
    compiled = (
        torch.compile(cast, mode="max-autotune", fullgraph=True, dynamic=False)
        if gpu
        else torch.compile(cast, backend="eager")
    )
    began = time.monotonic()
    try:
        compiled(images)
    except Exception as error:  # noqa: BLE001 - whatever a compiler makes of a network, the other rows stand
        why = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        bench.write({"network": case.name, "batch": case.batch, "variant": "compiled", "missing": why})
        return
    took = round(time.monotonic() - began, 1)
    runs: dict[str, Run] = {"eager beside compiled": lambda: cast(images), "compiled": lambda: compiled(images)}
    how = "max-autotune" if gpu else "rehearsed without code generation"
    _write(bench, case, runs, rate, **{"compile seconds": took, "mode": how})


def graphed(forward: Forward, images: Tensor) -> Forward:
    """``forward`` recorded as a CUDA graph for the shape of ``images``; the answer's memory is the same each time."""
    held = images.clone()
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            forward(held)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        answer = forward(held)

    def replay(fresh: Tensor) -> Tensor:
        held.copy_(fresh)
        graph.replay()
        return answer

    return replay


def _write(bench: Bench, case: Case, runs: dict[str, Run], rate: float, **more: object) -> None:
    operations = case.operations(bench.sizes.side)
    for variant, timing in interleaved(runs, bench.device, bench.sizes.repeats).items():
        share = round(operations / timing.median / rate, 4)
        facts = {**timing.facts(case.batch), "share of the matrix rate": share, **more}
        precision = str(_dtype(bench.device)).removeprefix("torch.")
        bench.write({"network": case.name, "batch": case.batch, "variant": variant, "precision": precision, **facts})


def _images(bench: Bench, case: Case) -> Tensor:
    torch.manual_seed(1)
    images = torch.rand(case.batch, 3, bench.sizes.side, bench.sizes.side, device=bench.device)
    return images.contiguous(memory_format=torch.channels_last)


def _forward(module: nn.Module, device: torch.device) -> Forward:
    def run(images: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            out: Tensor = module(images)
        return out.float()

    return run


def _dtype(device: torch.device) -> torch.dtype:
    return torch.bfloat16 if device.type == "cuda" else torch.float32


if __name__ == "__main__":
    sys.exit(main())
