"""Train a plan on a bare machine: ``python -m training.bare PLAN.json --pack FILE --run DIR --minutes 9``.

Needs PyTorch, torchvision, NumPy, Pillow, safetensors and tqdm, and none of the project's other dependencies. The same
command again goes on where the last one stopped; under torchrun every GPU takes its share. Each finished stage leaves
DIR/finished/NAME (and --out's), which ``nrp train publish`` turns into a model at home.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from tqdm import tqdm

from model_store.architectures import build
from model_store.devices import device_named
from model_store.errors import NrpError
from training.errors import OutOfTimeError, RecipeError
from training.finished import is_finished, read_finished, require_small, write_finished
from training.loop import train
from training.parallel import Workers, own_device
from training.place import Place
from training.plan import Plan, Planned, read_plan
from training.stages import Network, Stage, prepare
from training.timed import end_in_time, require_timeable
from training.watching import UNWATCHED, LogLines, TensorBoard, Watcher, Watchers

FINISHED = "finished"
INTERRUPTED = 130  # 128 + SIGINT, as shells report it


@dataclass(frozen=True)
class Order:
    """What one call is to do; each stage has a folder of its own in that of ``place``.

    ``timed``: the plan's only stage ends at the deadline of ``place``, and a later call goes on from there.
    """

    plan: Plan
    pack: Path
    place: Place
    tensorboard: bool = False
    timed: bool = False
    log_every: float | None = None

    @property
    def finished(self) -> Path:
        """Where finished stages are."""
        return self.place.folder / FINISHED

    def network(self, name: str) -> Network:
        """An earlier stage's outcome, or a model that came with the plan. Raises RecipeError."""
        if is_finished(self.finished / name):
            return read_finished(self.finished / name).network
        if name not in self.plan.models:
            raise RecipeError(f"the plan brings no model {name!r}; write it again with `nrp train plan`")
        return self.plan.models[name]


def arguments_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m training.bare", description="Train a plan, stage by stage.")
    parser.add_argument("plan", type=Path, metavar="PLAN.json", help="what `nrp train plan` wrote")
    parser.add_argument("--pack", type=Path, required=True, metavar="FILE", help="what `nrp train pack` wrote")
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="folder of checkpoints and outcomes")
    parser.add_argument("--minutes", type=float, help="stop cleanly after this long, to go on by the same command")
    parser.add_argument(
        "--timed", action="store_true", help="let the learning rate end at zero after --minutes, however many steps"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="copy what is finished here, too")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--tensorboard", action="store_true", help="write event files under DIR/NAME/tensorboard")
    parser.add_argument("--log-every", type=float, metavar="S", help="a line about every S seconds, for log files")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Train what there is time for; 0 when that went well, finished or not, 1 or 130 otherwise."""
    began = time.monotonic()
    given = arguments_parser().parse_args(argv)
    deadline = None if given.minutes is None else began + 60 * given.minutes
    try:
        device = own_device(device_named(given.device))
        workers = Workers.from_environment(device)
        plan = read_plan(given.plan)
        place = Place(device, given.run, workers, given.quiet or not workers.leads, deadline)
        order = Order(plan, given.pack, place, given.tensorboard, given.timed, given.log_every)
        try:
            run_plan(order)
        finally:
            if workers.leads and given.out is not None:
                hand_out(order, given.out)
            workers.close()
    except NrpError as error:
        tqdm.write(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        tqdm.write("interrupted, saved; run the same command again to go on", file=sys.stderr)
        return INTERRUPTED
    return 0


def run_plan(order: Order) -> bool:
    """Do the unfinished stages in order while there is time; whether all are finished."""
    if order.timed:
        return _run_timed(order)
    open_stages = [planned for planned in order.plan.stages if not is_finished(order.finished / planned.name)]
    for planned in open_stages:
        _require_small(planned)
    for planned in open_stages:
        late = order.place.deadline is not None and time.monotonic() >= order.place.deadline
        if order.place.workers.agreed(late) or not run_stage(order, planned):
            _tell(order, f"stopped in time before the end of {planned.name}; run the same command again to go on")
            return False
        _tell(order, f"finished {planned.name} in {order.finished / planned.name}")
    return True


def _run_timed(order: Order) -> bool:
    """Train the only stage until time is up, on from an earlier call's end too."""
    if len(order.plan.stages) != 1 or order.place.deadline is None:
        raise RecipeError("--timed is for a plan of one stage and wants --minutes; give both")
    (planned,) = order.plan.stages
    require_timeable(planned.recipe)
    _require_small(planned)
    ended = run_stage(order, planned)
    told = f"finished {planned.name} in {order.finished / planned.name}"
    _tell(order, told if ended else f"time was up before a step of {planned.name}; give more --minutes")
    return ended


def _require_small(planned: Planned) -> None:
    folders = {"classes": 2} if planned.kind != "purifier" else {}
    require_small(planned.name, build(planned.recipe.architecture, {**planned.recipe.arguments, **folders}))


def run_stage(order: Order, planned: Planned) -> bool:
    """Train one stage on from its checkpoint; True when it is finished and its outcome written."""
    place = replace(order.place, folder=order.place.folder / planned.name)
    try:
        stage = prepare(planned.recipe, [order.pack], order.network, place)
    except OutOfTimeError:
        return False
    if order.timed and place.deadline is not None:
        end_in_time(stage, place.deadline)
        torch.backends.cudnn.benchmark = True  # a run by time is not the same to the bit anyway
    watcher = _watcher(order, place, stage)
    try:
        ended = train(
            stage.work,
            stage.run,
            deadline=None if order.timed else place.deadline,
            validation=stage.validation,
            watcher=watcher,
            quiet=place.quiet,
        )
    finally:
        watcher.close()
    if ended and place.workers.leads:
        folder = order.finished / planned.name
        write_finished(planned, stage, folder, place.device, order.plan.code_revision)
    place.workers.wait()
    return ended


def _watcher(order: Order, place: Place, stage: Stage) -> Watcher:
    watchers: list[Watcher] = []
    if order.tensorboard and place.workers.leads:
        watchers.append(TensorBoard(place.folder, begin=stage.run.load()[0]))
    if order.log_every and place.workers.leads:
        watchers.append(LogLines(order.log_every, stage.work.total))
    return Watchers(*watchers) if watchers else UNWATCHED


def hand_out(order: Order, out: Path) -> None:
    """Copy every finished stage to ``out``."""
    for planned in order.plan.stages:
        folder = order.finished / planned.name
        if is_finished(folder) and folder.resolve() != (out / planned.name).resolve():
            shutil.copytree(folder, out / planned.name, dirs_exist_ok=True)


def _tell(order: Order, line: str) -> None:
    if order.place.workers.leads:
        tqdm.write(line)


if __name__ == "__main__":
    sys.exit(main())
