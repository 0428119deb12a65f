"""What a GPU gave, at home: ``python -m training.gpu.publish OUT``.

Each finished purifier becomes a model of the store; rows about aware attackers go into ``gpu.jsonl`` of the results,
as the suite has them, and those about serving into ``gpu/serving.jsonl`` beside it, each in place of an earlier one of
the same thing.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from model_store.errors import NrpError
from model_store.store import SHIPPED, ModelStore
from robustness.aware.figure import figure_of
from robustness.aware.rows import Subject, record
from robustness.conditions import Conditions
from robustness.results.files import merge_lines, write_text
from robustness.results.row import Row
from robustness.suite.recorder import Recorder
from training.errors import DataError
from training.finished import is_finished, read_finished
from training.publish import finished_card, publish

SUITE = "gpu"
ROWS = "rows.jsonl"
COMMAND = "python -m training.gpu"
THING = ("network", "batch", "variant", "side", "device")  # what a serving row is about


def main(argv: Sequence[str] | None = None) -> int:
    """Publish and merge what there is."""
    parser = argparse.ArgumentParser(prog="python -m training.gpu.publish", description="Take in what a GPU gave.")
    parser.add_argument("out", type=Path, metavar="OUT", help="what `python -m training.gpu OUT` wrote")
    parser.add_argument("--store", type=Path, default=SHIPPED, help="where to publish (default: the shipped weights)")
    parser.add_argument(
        "--results", type=Path, default=Path("docs/results"), metavar="DIR", help="(default: docs/results)"
    )
    parser.add_argument("--replace", action="store_true", help="replace a published model of the same name")
    given = parser.parse_args(argv)
    try:
        take_in(given.out, ModelStore(given.store), given.results, tqdm.write, replace=given.replace)
    except NrpError as error:
        tqdm.write(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def take_in(out: Path, store: ModelStore, results: Path, tell: Callable[[str], None], *, replace: bool) -> None:
    """Everything in ``out``: rows first, which do not depend on whether the model is wanted.

    Raises DataError where there is nothing, and what publishing raises.
    """
    finished = [folder for folder in sorted(out.glob("*")) if is_finished(folder)]
    rows = list(_rows(out / ROWS)) if (out / ROWS).is_file() else []
    if not rows and not finished:
        raise DataError(f"{out} holds neither {ROWS} nor a finished purifier; name what `{COMMAND}` was given as OUT")
    aware = [row for row in rows if row["kind"] == "aware"]
    if aware:
        merge_lines(suite_rows(aware), results / f"{SUITE}.jsonl")
        tell(f"{len(aware)} figures about aware attackers in {results / f'{SUITE}.jsonl'}")
    timed = [row for row in rows if row["kind"] == "serving"]
    if timed:
        merge_timings(timed, results / SUITE / "serving.jsonl")
        tell(f"{len(timed)} timings in {results / SUITE / 'serving.jsonl'}")
    for warning in dict.fromkeys(row["text"] for row in rows if row["kind"] == "warning"):
        tell(f"warning: {warning}")
    for folder in finished:
        done = read_finished(folder)
        card = publish(store, finished_card(done), done.module, replace=replace)
        tell(f"published {card.name} in {store.root} (sha256 {card.sha256[:12]})")


def suite_rows(aware: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Rows of the suite; of several of the same thing the last, which stands on the most photos."""
    latest: dict[tuple[str, ...], Row] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for entry in aware:
            try:
                row = _suite_row(entry, Path(scratch))
            except KeyError as error:
                raise DataError(
                    f"a row about an aware attacker lacks {error}; measure again with this version"
                ) from error
            latest[row.identity] = row
    return list(latest.values())


def _suite_row(entry: Mapping[str, Any], scratch: Path) -> Row:
    kind = "cpu" if str(entry["device"]).startswith("CPU") else "cuda"
    conditions = Conditions(entry["seed"], 1, torch.device(kind), attack_precision=entry["attacked in"])
    recorder = Recorder(SUITE, scratch, COMMAND, conditions, {"torch": entry["torch_version"]})
    recorder.section = "aware"
    recorder.facts = {
        "hardware": entry["device"],
        "commit": entry["commit"],
        "attacked in": entry["attacked in"],
        "victim's weights": "float16",
    }
    purifier = str(entry["defence"]).partition(" ")[0]
    subject = Subject(entry["victim"], entry["defence"], purifier, entry["weights"], entry["data"])
    record(recorder, subject, figure_of(entry["figure"]), entry["seconds"])
    return recorder.rows[-1]


def merge_timings(timed: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write ``timed`` into a file of lines, in place of earlier ones of the same thing; the others are kept."""
    kept = list(_rows(path)) if path.is_file() else []
    latest = {tuple(str(row.get(key)) for key in THING): row for row in (*kept, *timed)}
    lines = (json.dumps(row, sort_keys=True) for _, row in sorted(latest.items()))
    write_text(path, "".join(f"{line}\n" for line in lines))


def _rows(path: Path) -> Iterator[Mapping[str, Any]]:
    """The rows of a file of lines. Raises DataError naming a line that is damaged."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}, line {number} is no JSON; copy it again, or remove that line") from error
        yield row


if __name__ == "__main__":
    sys.exit(main())
