"""``nrp models``: see, check, import and publish checkpoints."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from model_store.architectures import build
from model_store.card import Card, Figure
from model_store.errors import (
    InvalidCardError,
    ModelExistsError,
    NrpError,
    TamperedWeightsError,
    UnavailableModelError,
    UnknownModelError,
)
from model_store.foreign import IMPORTABLE, import_state
from model_store.inference import InferenceMode
from model_store.origins import FOLDER
from model_store.program import PROGRAMS
from model_store.store import CARD, SHIPPED, WEIGHTS, ModelStore, file_of

MOST_LABELS, FEW_LABELS = 20, 5  # that are shown: all, up to the one; else the other


def configure_models(parser: argparse.ArgumentParser) -> None:
    """Add the sub-verbs of ``nrp models`` and their options."""
    verbs = parser.add_subparsers(dest="sub_verb", metavar="ACTION", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--store", type=Path, default=SHIPPED, metavar="DIR", help="model store (default: the shipped one)"
    )
    common.add_argument("--json", action="store_true", help="print JSON")
    verbs.add_parser("list", parents=[common], help="list the models of a store")
    show = verbs.add_parser("show", parents=[common], help="show one model's card")
    show.add_argument("name", metavar="NAME")
    verify = verbs.add_parser("verify", parents=[common], help="check hash, names and shapes; all models by default")
    verify.add_argument("names", nargs="*", metavar="NAME")
    imported = verbs.add_parser("import", parents=[common], help="import a foreign .pth state dict as safetensors")
    imported.add_argument("file", type=Path, metavar="FILE")
    imported.add_argument("--name", required=True, help="name to publish it under")
    imported.add_argument("--architecture", choices=IMPORTABLE, help="refuse the file if it holds another one")
    imported.add_argument("--licence", default="", help="terms of the weights, for the card")
    publish = verbs.add_parser(
        "publish", parents=[common], help=f"verify a folder of {WEIGHTS} (or a program) and card.json, copy it in"
    )
    publish.add_argument("folder", type=Path, metavar="FOLDER")
    for changing in (imported, publish):
        changing.add_argument("--replace", action="store_true", help="replace a model of that name")


def run_models(args: argparse.Namespace) -> int:
    """Run one sub-verb and return the exit status; NrpErrors are the caller's to print."""
    store = ModelStore(args.store)
    if args.sub_verb == "list":
        return _list(store, as_json=args.json)
    if args.sub_verb == "verify":
        return _verify(store, args.names, as_json=args.json)
    if args.sub_verb == "show":
        card = store.card(args.name)
        print(card.model_dump_json(indent=2) if args.json else _description(card))
        return 0
    if args.sub_verb == "import":
        card = import_state(args.file, store, args.name, args.architecture, licence=args.licence, replace=args.replace)
    else:
        card = _publish(store, args.folder, replace=args.replace)
    print(
        card.model_dump_json(indent=2) if args.json else f"{card.name}: published in {store.root}, sha256 {card.sha256}"
    )
    return 0


def _list(store: ModelStore, *, as_json: bool) -> int:
    facts = [_facts(store, card) for card in store.cards()]
    if as_json:
        print(json.dumps(facts, indent=2))
    elif not facts:
        print(f"no models in {store.root}")
    else:
        rows = [("NAME", "TASK", "ARCHITECTURE", "PARAMETERS", "SIZE", "DEFAULT MODE"), *map(_row, facts)]
        print(_table(rows))
    return 0


def _facts(store: ModelStore, card: Card) -> dict[str, Any]:
    try:
        weights = store.path_of(card)
    except UnavailableModelError:
        weights = None
    return {
        "name": card.name,
        "task": card.task,
        "architecture": card.architecture,
        "parameters": _parameters(card),
        "bytes": weights.stat().st_size if weights is not None and weights.is_file() else None,
        "default_mode": card.inference.default if card.inference else None,
        "summary": card.summary,
    }


def _parameters(card: Card) -> int | None:
    """How many there are; None for a program, which would have to be run to be counted."""
    if card.architecture in PROGRAMS:
        return None
    with torch.device("meta"):  # shapes are enough to count; nothing is allocated or read
        return sum(tensor.numel() for tensor in build(card.architecture, card.arguments).parameters())


def _row(facts: Mapping[str, Any]) -> tuple[str, ...]:
    size = "missing" if facts["bytes"] is None else f"{facts['bytes'] / 1e6:.2f} MB"
    counted = "-" if facts["parameters"] is None else f"{facts['parameters']:,}"
    return facts["name"], facts["task"], facts["architecture"], counted, size, facts["default_mode"] or "-"


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def _verify(store: ModelStore, asked: Sequence[str], *, as_json: bool) -> int:
    """Verify the models asked for, or all: then weights of others that are not installed are told, and are no fault."""
    names = asked or store.names()
    outcomes: dict[str, str] = {}
    absent: set[str] = set()
    for name in names:
        try:
            store.verify(name)
            outcomes[name] = "ok"
        except NrpError as error:
            if isinstance(error, UnavailableModelError) and not asked:
                absent.add(name)
            outcomes[name] = str(error)
        if not as_json:
            print(f"{name}: {outcomes[name]}", flush=True)
    if as_json:
        print(json.dumps([{"name": n, "ok": text == "ok", "detail": text} for n, text in outcomes.items()], indent=2))
    if not names:
        raise UnknownModelError(f"no models in {store.root}, so nothing was verified; name another store with --store")
    return 0 if all(text == "ok" for name, text in outcomes.items() if name not in absent) else 1


def _publish(store: ModelStore, folder: Path, *, replace: bool) -> Card:
    folder = folder.resolve()
    if not (folder / CARD).is_file():
        raise InvalidCardError(f"{folder} holds no {CARD}; name a folder with {CARD} and {WEIGHTS} or a program")
    if store.root.resolve() == folder.parent:
        raise ModelExistsError(f"{folder} is already in {store.root}; name another store with --store")
    source = ModelStore(folder.parent)
    card = source.card(folder.name)
    if card.architecture in PROGRAMS:
        return store.publish_program(card, _program(folder / file_of(card)), replace=replace)
    found = source.load(folder.name)
    return store.publish(found.card, found.module, replace=replace)


def _program(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise TamperedWeightsError(f"{path} cannot be read: {error.strerror}; put the program there") from error


def _description(card: Card) -> str:
    arguments = ", ".join(f"{key}={value}" for key, value in card.arguments.items())
    lines = [
        f"{card.name}: {card.summary}",
        f"  task          {card.task}",
        f"  architecture  {card.architecture}({arguments}), {card.precision}",
        f"  sha256        {card.sha256}",
        f"  licence       {card.licence or 'not stated'}",
    ]
    if card.origin:
        package = f"the package {card.origin.package}" if card.origin.package else f"the folder that {FOLDER} names"
        lines.append(f"  weights       {Path(card.origin.file).name}, of {package}")
    if card.labels:
        lines.append(f"  labels        {_labels(card.labels)}")
    if card.inference:
        lines.append("  modes")
        lines += [_mode_line(name, mode, card.inference.default) for name, mode in card.inference.modes.items()]
    if card.training_data:
        lines.append("  trained on")
        lines += [f"    {source.name}: {source.images} images; {source.terms}" for source in card.training_data]
    if card.figures:
        lines.append("  figures")
        lines += [f"    {line}" for line in _table([_figure_row(figure) for figure in card.figures]).splitlines()]
    if card.limits:
        lines.append("  limits")
        lines += [f"    - {limit}" for limit in card.limits]
    return "\n".join(lines)


def _labels(labels: Sequence[str]) -> str:
    """All of them on one line, or of many how many there are, and the first."""
    if len(labels) <= MOST_LABELS:
        return ", ".join(labels)
    return f"{len(labels):,}: {', '.join(labels[:FEW_LABELS])}, ..."


def _mode_line(name: str, mode: InferenceMode, default: str) -> str:
    draws = "" if mode.static else f", {mode.draws} draw(s)"
    return f"    {name}: {mode.in_words()}{draws}{' (default)' if name == default else ''}"


def _figure_row(figure: Figure) -> tuple[str, ...]:
    interval = "" if figure.interval is None else f"[{figure.interval[0]:g}, {figure.interval[1]:g}]"
    return figure.name, f"{figure.value:g} {figure.unit}", interval, f"n={figure.count}", figure.note
