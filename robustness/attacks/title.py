"""Titles: what tables call an attack, so that two attacks of one title and budget do the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def titled(base: str, attack: DataclassInstance, *spoken: str) -> str:
    """``base``, then in brackets every setting of ``attack`` that is not its default, as in "MI-FGSM (decay 0.5)".

    The budget is a column of its own in every table, so ``eps`` is left out, and so are the ``spoken`` settings,
    which ``base`` states itself.
    """
    said = ", ".join(_unusual(attack, {"eps", *spoken}))
    return f"{base} ({said})" if said else base


def _unusual(attack: DataclassInstance, spoken: set[str]) -> Iterator[str]:
    for setting in fields(attack):
        value = getattr(attack, setting.name)
        if setting.name in spoken or setting.default is MISSING or value == setting.default:
            continue
        yield f"{setting.name} {value:g}" if isinstance(value, float) else f"{setting.name} {value}"
