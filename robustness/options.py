"""Options: readers of command-line words, each raising argparse's own error for what it cannot read."""

from __future__ import annotations

import argparse
from collections.abc import Callable


def names(text: str) -> tuple[str, ...]:
    """Names parted by commas, each once; at least one."""
    found = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not found:
        raise argparse.ArgumentTypeError("give at least one name")
    return found


def budgets(text: str) -> tuple[int, ...]:
    """Budgets in /255, whole numbers parted by commas, in rising order."""
    try:
        found = tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of whole numbers like 4,8") from error
    if not all(1 <= eps <= 255 for eps in found):
        raise argparse.ArgumentTypeError("budgets lie between 1 and 255")
    return found


def whole(least: int) -> Callable[[str], int]:
    """A reader of whole numbers from ``least`` up."""

    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} up")
        return int(text)

    return number


def fraction(text: str) -> float:
    """A number in [0,1)."""
    try:
        share = float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from error
    if not 0 <= share < 1:
        raise argparse.ArgumentTypeError("the fraction lies in [0,1)")
    return share


def positive(text: str) -> float:
    """A number above 0."""
    try:
        found = float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from error
    if not 0 < found < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not above 0")
    return found


def radii(text: str) -> tuple[float, ...]:
    """Radii from 0 up, parted by commas, in rising order."""
    try:
        found = tuple(sorted({float(part) for part in text.split(",")}))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers like 0,0.25,0.5") from error
    if not all(0 <= radius < float("inf") for radius in found):
        raise argparse.ArgumentTypeError("radii are 0 or more")
    return found
