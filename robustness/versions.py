"""The versions that figures depend on: an upgrade of a decoder or a kernel can change an answer."""

from __future__ import annotations

import platform
from importlib.metadata import version

PACKAGES = ("torch", "torchvision", "numpy", "pillow", "scikit-image")


def versions() -> dict[str, str]:
    """Of Python and of the packages that figures depend on."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
