"""`nrp evaluate cost`: milliseconds an image of purifiers, baselines and architectures that nobody has trained yet."""

from __future__ import annotations

import argparse
import json
import platform
import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import torch

from model_store.architectures import ARCHITECTURES, build
from model_store.devices import device_named, place
from model_store.inference import STATIC, PurifierDraws
from model_store.store import SHIPPED, ModelStore
from robustness.conditions import Conditions
from robustness.cost import middle_half, time_defences
from robustness.defences import BASELINES, Defence, Purification
from robustness.errors import EvaluationError
from robustness.evaluation import purifications
from robustness.options import names, whole
from robustness.progress import Progress
from robustness.results.timing import FILE, Timing, keep_timings, timing_table
from robustness.versions import versions
from robustness.workbench import canonical

# Options that change a figure, shown in the command where they differ from these.
DEFAULTS: Mapping[str, object] = MappingProxyType(
    {
        "purifier": (),
        "architecture": (),
        "modes": ("default",),
        "side": 224,
        "threads": 2,
        "repeats": 20,
        "precision": "float32",
        "device": "cpu",
    }
)


def configure_cost(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    add = parser.add_argument
    add("--purifier", type=names, metavar="A,B", help="purifiers of the store to time, beside every baseline")
    add("--modes", type=names, metavar="M,..", help="their modes of inference (default: default)")
    add("--architecture", type=names, metavar="A,B", help="architectures to time with random weights")
    add("--side", type=whole(1), metavar="N", help="pixels a side of the image (default 224)")
    add("--threads", type=whole(1), metavar="N", help="CPU threads (default 2)")
    add("--repeats", type=whole(1), metavar="N", help="runs that the median is taken of (default 20)")
    add("--precision", choices=("float32", "bfloat16"), help="what purifiers run in (default float32)")
    add("--device", choices=("auto", "cpu", "cuda"), help="where to run (default cpu)")
    add("--results", type=Path, default=Path("docs/results"), metavar="DIR", help=f"where {FILE} is kept")
    add("--store", type=Path, default=SHIPPED, metavar="DIR", help="the model store (default: the shipped one)")
    add("--json", action="store_true", help="print the timings as JSON instead of a table")
    parser.set_defaults(**DEFAULTS)


def run_cost(args: argparse.Namespace) -> str:
    """Time, keep the timings, and return what is to be printed. Raises NrpError."""
    device = device_named(args.device)
    conditions = Conditions(0, 1, device, precision=args.precision)
    arms = {defence.name: (defence, architecture, trained) for defence, architecture, trained in _arms(args, device)}
    progress = Progress()
    progress.plan(1)
    defences = [defence for defence, _, _ in arms.values()]
    runs = time_defences(defences, args.side, args.repeats, args.threads, conditions, progress)
    timings = [
        Timing(
            defence=name,
            role="purifier" if isinstance(defence, Purification) else "baseline",
            architecture=architecture,
            trained=trained,
            milliseconds=round(statistics.median(runs[name]), 4),
            quartiles=middle_half(runs[name]),
            side=args.side,
            repeats=args.repeats,
            threads=args.threads,
            device=device.type,
            hardware=hardware_name(device),
            precision=args.precision,
            versions=versions(),
            command=canonical(("nrp", "evaluate", "cost"), args, DEFAULTS),
        )
        for name, (defence, architecture, trained) in arms.items()
    ]
    path = args.results / FILE
    keep_timings(timings, path)
    if args.json:
        return json.dumps([timing.model_dump(mode="json") for timing in timings], indent=2)
    return f"{timings[0].words}\n{timing_table(timings)}\n{len(timings)} timings kept in {path}"


def _arms(args: argparse.Namespace, device: torch.device) -> Iterator[tuple[Defence, str, bool]]:
    """Each defence with its architecture (empty for none) and whether its weights were trained."""
    store = ModelStore(args.store)
    for defence in BASELINES:
        yield defence, "", True
    for name in args.purifier:
        loaded = store.load(name)
        for purification in purifications(loaded, args.modes, device, named=True):
            yield purification, loaded.card.architecture, True
    for name in args.architecture:
        if name in ARCHITECTURES and ARCHITECTURES[name].task != "purifier":
            raise EvaluationError(f"{name} is no purifier's architecture; name one that is, such as nrp or nrp_resg")
        module = place(build(name).eval(), device)
        yield Purification("untrained", STATIC, "", PurifierDraws(module, STATIC), name), name, False


def hardware_name(device: torch.device) -> str:
    """The accelerator's name, or the processor's where the system tells it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    told = Path("/proc/cpuinfo")
    lines = told.read_text(encoding="utf-8", errors="replace").splitlines() if told.is_file() else []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())
