"""Some minutes of a GPU: ``python -m training.gpu OUT --pack-folder out/gpu --minutes 5``.

Trains, times serving, attacks what was trained, each in a process of its own and in its own time: a step that fails or
is late costs the others nothing, and minutes that one leaves are the next one's. OUT gets NAME/weights.safetensors and
run.json, resume/checkpoint-*, rows.jsonl and report.json, each under 16 MiB.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from model_store.errors import NrpError, UnavailableDeviceError
from training.finished import is_finished
from training.gpu.carrying import join, split
from training.gpu.folder import Folder
from training.gpu.stamp import Stamp
from training.gpu.steps import Step, Steps
from training.loop import CHECKPOINT
from training.plan import planned_names

NO_GPU = (
    "PyTorch sees no CUDA device here; carry the folder of `make gpu-pack` to a machine that has one and run this "
    "there, or rehearse on the CPU with `make gpu-rehearsal`"
)


def arguments_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m training.gpu", description="Use some minutes of a GPU.")
    parser.add_argument("out", type=Path, metavar="OUT", help="what is brought home")
    parser.add_argument("--pack-folder", type=Path, default=Path("out/gpu"), metavar="DIR", help="(default: out/gpu)")
    parser.add_argument("--run", type=Path, default=Path("runs/gpu"), metavar="DIR", help="checkpoints and caches")
    parser.add_argument("--minutes", type=float, default=5, help="of training; 0: none (default: %(default)s)")
    parser.add_argument("--serving-minutes", type=float, default=1.5, help="0: none (default: %(default)s)")
    parser.add_argument("--aware-minutes", type=float, default=2, help="0: none (default: %(default)s)")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"), help="cpu: to rehearse")
    parser.add_argument("--toy", action="store_true", help="sizes at which everything is only rehearsed")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Do what there is time for; 0 where no step failed."""
    given = arguments_parser().parse_args(argv)
    try:
        if given.device == "cuda" and not torch.cuda.is_available():
            raise UnavailableDeviceError(NO_GPU)
        return conduct(given)
    except NrpError as error:
        tqdm.write(f"error: {error}", file=sys.stderr)
        return 1


def conduct(given: argparse.Namespace) -> int:
    """The three steps in order."""
    began = time.monotonic()
    folder, out, run = Folder(given.pack_folder), given.out, given.run
    stamp = Stamp.of(torch.device(given.device), folder.facts()["code_revision"])
    tqdm.write(stamp.line("beginning"))
    steps = Steps(began, out / "report.json", stamp)
    (name,) = planned_names(folder.plan) if folder.plan.is_file() else ("",)
    if name and join(folder.resume, run / name / CHECKPOINT):
        tqdm.write(f"going on from the checkpoint in {folder.resume}")
    rows = out / "rows.jsonl"
    common = ["--device", given.device]
    toy = ["--toy"] if given.toy else []
    words = [folder.plan, "--pack", folder.photos, "--run", run, "--timed", "--quiet", "--log-every", "20", *common]
    steps.do(Step("training", "training.bare", words, given.minutes, folder.missing(folder.plan, folder.photos)))
    bring(run, name, out)
    words = [folder.manifest, "--rows", rows, *common, *toy]
    steps.do(Step("serving", "training.gpu.serving", words, given.serving_minutes))
    words = [folder.root, "--rows", rows, "--cache", run / "cache", "--finished", out / name, *common, *toy]
    missing = folder.missing(folder.judge, folder.judged)
    steps.do(Step("aware", "training.gpu.aware", words, given.aware_minutes, missing))
    tqdm.write(stamp.line("done: " + steps.told()))
    return 0 if steps.well else 1


def bring(run: Path, name: str, out: Path) -> None:
    """Put what the training left into ``out``: the finished purifier, and the checkpoint in pieces."""
    finished, checkpoint = run / "finished" / name, run / name / CHECKPOINT
    if name and is_finished(finished):
        shutil.copytree(finished, out / name, dirs_exist_ok=True)
    if name and checkpoint.is_file():
        split(checkpoint, out / "resume")


if __name__ == "__main__":
    sys.exit(main())
