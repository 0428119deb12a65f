"""The machine that a run is of, and the versions of what it measured."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import torch

from model_store.devices import computes_in_bfloat16, device_named
from service.bench.servers import ARMS, environment


def hardware(name: str) -> str:
    """The accelerator's name, or the processor's where the system tells it. Raises UnavailableDeviceError."""
    device = device_named(name)
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    told = Path("/proc/cpuinfo")
    lines = told.read_text(encoding="utf-8", errors="replace").splitlines() if told.is_file() else []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())


def has_bfloat16(name: str) -> bool:
    """Whether the device of that name computes in bfloat16."""
    return computes_in_bfloat16(device_named(name))


def versions(arms: Iterable[str], peers: Path | None) -> dict[str, str]:
    """Python, torch, the web server, and each arm's framework where it is installed."""
    packages = sorted({"torch", "fastapi", "uvicorn", "pillow", *(ARMS[arm].package for arm in arms)} - {""})
    found = {"python": platform.python_version()}
    code = "import importlib.metadata as m, sys; print(m.version(sys.argv[1]))"
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            asked = subprocess.run(  # noqa: S603 - our own interpreter
                [sys.executable, "-c", code, package],
                env=environment(peers),
                capture_output=True,
                text=True,
                check=False,
            )
            found |= {package: asked.stdout.strip()} if asked.returncode == 0 else {}
    return found
