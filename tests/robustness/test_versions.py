from __future__ import annotations

from importlib.metadata import PackageNotFoundError

import pytest

from robustness.versions import PACKAGES, versions


def test_versions_are_those_of_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(versions()) == {"python", *PACKAGES}

    def bare(name: str) -> str:
        if name == "scikit-image":
            raise PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr("robustness.versions.version", bare)
    assert set(versions()) == {"python", *PACKAGES} - {"scikit-image"}
