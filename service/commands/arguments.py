"""Options that several verbs have, and the settings that they amount to."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from model_store.official import Kind
from service.errors import CommandInputError
from service.remote.address import is_remote
from service.settings import Settings, load_settings


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Which models, and where they run."""
    parser.add_argument("--store", type=Path, metavar="DIR", help="folder of models (default: those shipped)")
    parser.add_argument("--purifier", metavar="NAME", help="purifier in the store (see `nrp models list`)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), help="where to compute (default auto)")


def add_image_options(parser: argparse.ArgumentParser) -> None:
    """Which images, and how they are purified."""
    parser.add_argument("inputs", nargs="+", type=Path, metavar="IN", help="image files, and folders of them")
    add_model_options(parser)
    parser.add_argument("--mode", metavar="NAME", help="inference mode: one of the card's, static or published")
    parser.add_argument("--samples", type=positive, metavar="N", help="noisy draws to average (default: the mode's)")
    parser.add_argument("--seed", type=_seed, metavar="N", help="makes the noise reproducible (default: secret)")


def add_downstream_option(parser: argparse.ArgumentParser, kind: Kind) -> None:
    """Which model is asked."""
    elsewhere = "torchvision:NAME or timm:NAME" if kind == "classifier" else "or torchvision:NAME"
    parser.add_argument(f"--{kind}", metavar="NAME", help=f"{kind} in the store, {elsewhere}")


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """How the result is printed."""
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def local_settings(args: argparse.Namespace, kind: Kind) -> Settings:
    """The settings of a verb that asks a model of ``kind``. Raises SettingsError, and CommandInputError for a remote
    model."""
    settings = load_settings(**chosen(args), **{kind: getattr(args, kind)})
    if is_remote(getattr(settings, kind)):
        raise CommandInputError(f"a remote {kind} is asked by `nrp serve` alone; name another with --{kind}")
    return settings


def positive(text: str) -> int:
    """A whole number, 1 at the least."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def fraction(text: str) -> float:
    """A number from 0 to 1."""
    number = float(text)
    if not 0 <= number <= 1:
        raise ValueError(text)
    return number


def _seed(text: str) -> int:
    number = int(text)
    if not 0 <= number < 2**63:
        raise ValueError(text)
    return number


def chosen(args: argparse.Namespace) -> dict[str, Any]:
    """The settings that every verb has an option for."""
    return {"model_store": args.store, "purifier": args.purifier, "device": args.device}


def purification(args: argparse.Namespace) -> dict[str, Any]:
    """The query parameters that every verb about images has an option for."""
    return {"mode": args.mode, "samples": args.samples, "seed": args.seed}
