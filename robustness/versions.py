"""The versions that figures depend on: an upgrade of a decoder or a kernel can change an answer."""

from __future__ import annotations

import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("torch", "torchvision", "numpy", "pillow", "scikit-image")


def versions() -> dict[str, str]:
    """Of Python and of those packages that figures depend on that are installed: a bare machine lacks some."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
