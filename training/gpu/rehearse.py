"""A rehearsal on the CPU, at toy sizes, of what a GPU will be asked to do: ``python -m training.gpu.rehearse DATA``.

Packs some photos of DATA with the recipe's own networks, then runs ``python -m training.gpu`` as a bare machine does:
in processes to which none of the packages exist that such a machine lacks. Then everything is taken in, to a scratch
store.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from tqdm import tqdm

from model_store.errors import NrpError
from model_store.store import ModelStore
from training.errors import RunError
from training.gpu import pack, publish
from training.gpu.folder import Folder
from training.recipe import recipe_path

# What the service, the store, the plots and the tests need, and a machine with PyTorch alone does not have.
REFUSED = (
    "pydantic",
    "pydantic_core",
    "pydantic_settings",
    "fastapi",
    "starlette",
    "structlog",
    "uvicorn",
    "httpx",
    "prometheus_client",
    "skimage",
    "scipy",
    "sklearn",
    "matplotlib",
    "pycocotools",
    "ncnn",
    "onnx",
    "onnxruntime",
    "pyautoattack",
)
SITE = """
import sys
from importlib.machinery import ModuleSpec


class Refusing:
    def find_spec(self, name, path=None, target=None):
        return ModuleSpec(name, self, origin="refused") if name.split(".")[0] in {refused!r} else None

    def create_module(self, spec):
        raise ModuleNotFoundError(f"a bare machine has no {{spec.name}}", name=spec.name)

    def exec_module(self, module):
        raise ModuleNotFoundError(module.__name__)


sys.meta_path.insert(0, Refusing())
"""
RECIPE = MappingProxyType(
    {
        "side": "40",
        "crop": "32",
        "batch": "4",
        "validate_every": "20",
        "held_back": "4",
        "save_every": "5",
        "iterations": "1",
        "precision": '"float32"',
    }
)
MINUTES = MappingProxyType({"--minutes": 0.4, "--serving-minutes": 0.6, "--aware-minutes": 0.8})
AGAIN = MappingProxyType({"--minutes": 0.3, "--serving-minutes": 0, "--aware-minutes": 0})


def main(argv: Sequence[str] | None = None) -> int:
    """Rehearse; 0 where every step was done."""
    parser = argparse.ArgumentParser(prog="python -m training.gpu.rehearse", description="Rehearse `make gpu`.")
    parser.add_argument("data", type=Path, metavar="DATA", help="as `python -m training.gpu.pack` takes it")
    parser.add_argument("--output", type=Path, default=Path("out/gpu-rehearsal"), metavar="DIR")
    given = parser.parse_args(argv)
    began = time.monotonic()
    try:
        rehearse(given.data, given.output)
    except NrpError as error:
        tqdm.write(f"error: {error}", file=sys.stderr)
        return 1
    tqdm.write(f"rehearsed in {time.monotonic() - began:.0f} s; see {given.output}")
    return 0


def rehearse(data: Path, output: Path) -> None:
    """Pack, run there, go on from what came back, take it in. Raises RunError where something did not happen."""
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    folder, out = Folder(output / "packed"), output / "out"
    order = pack.Order(data, folder, ModelStore(), str(toy_recipe(output)), 60, photos=64, judged=4, quiet=True)
    pack.pack(order, tqdm.write)
    bare(call(folder, out, output / "run", MINUTES), output / "site")
    require_attacked(out / publish.ROWS)
    shutil.copytree(out / "resume", folder.resume)
    tqdm.write("again, on another machine, from the checkpoint that came back")
    bare(call(folder, output / "again", output / "run-again", AGAIN), output / "site")
    begun, gone_on = (steps_of(done) for done in (out, output / "again"))
    if gone_on <= begun:
        raise RunError(f"the second call did {gone_on} steps in all and the first {begun}: it did not go on from there")
    publish.take_in(out, ModelStore(output / "store"), output / "results", tqdm.write, replace=False)


def call(folder: Folder, out: Path, run: Path, minutes: Mapping[str, float]) -> list[object]:
    """The words of one call."""
    given = [word for pair in minutes.items() for word in pair]
    return [out, "--pack-folder", folder.root, "--run", run, "--device", "cpu", "--toy", *given]


def require_attacked(rows: Path) -> None:
    """Raise RunError where every photo was wrong from the start, so that no attack was rehearsed."""
    figures = [json.loads(line).get("figure", {}) for line in rows.read_text().splitlines()]
    if not any(figure.get("settings", {}).get("attacked") for figure in figures):
        raise RunError(f"no photo was attacked in {rows}; rehearse with other photos")


def steps_of(out: Path) -> int:
    """The steps of the purifier in ``out``."""
    (run,) = out.glob("*/run.json")
    return int(json.loads(run.read_text())["steps"])


def toy_recipe(output: Path) -> Path:
    """The GPU's recipe at toy sizes, as a file."""
    text = recipe_path("purifier-real-gpu").read_text()
    lines = [_toy_line(line) for line in text.splitlines()]
    path = output / "toy.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


def _toy_line(line: str) -> str:
    name = line.partition(" =")[0]
    return f"{name} = {RECIPE[name]}" if name in RECIPE else line


def bare(words: Sequence[object], site: Path) -> None:
    """``python -m training.gpu`` with ``words`` where the packages REFUSED do not exist, in its own processes too.

    Raises RunError where it failed.
    """
    site.mkdir(parents=True, exist_ok=True)
    (site / "sitecustomize.py").write_text(SITE.format(refused=REFUSED))
    paths = [str(site.resolve()), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    probe = [sys.executable, "-c", f"import {REFUSED[0]}"]
    if subprocess.run(probe, env=environment, capture_output=True, check=False).returncode == 0:  # noqa: S603
        raise RunError(f"{REFUSED[0]} was not refused, so this would be no rehearsal; is there another sitecustomize?")
    command = [sys.executable, "-m", "training.gpu", *map(str, words)]
    code = subprocess.run(command, env=environment, check=False).returncode  # noqa: S603
    if code:
        raise RunError(f"the rehearsal ended with {code}; what it said stands above")


if __name__ == "__main__":
    sys.exit(main())
