"""Assembly: from the options of a suite to the session that measures it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from model_store.store import ModelStore
from robustness.cache import Cache
from robustness.conditions import Conditions
from robustness.datasets.recognise import find_data
from robustness.defences import BASELINES, NoDefence, Purification
from robustness.errors import VictimError
from robustness.evaluation import purifications
from robustness.judgement import Bench
from robustness.progress import Progress
from robustness.results.row import Task
from robustness.suite.recorder import Recorder
from robustness.suite.session import Arena, Session
from robustness.suite.sizes import QUICK, Sizes
from robustness.surrogates import load_surrogate
from robustness.versions import versions
from robustness.victims.loading import Selection, load_victim, read_examples, task_of
from robustness.victims.victim import Victim

SPLITS = frozenset({"train", "val", "test"})
SUITE = "quick"
VICTIM_TASKS = frozenset({"classifier", "segmenter", "detector"})


@dataclass(frozen=True)
class Wanted:
    """The options of a suite.

    ``models`` empty means every victim of the store that was trained here and for whose task there is data.
    The limits replace the suite's own counts.
    """

    models: tuple[str, ...]
    purifiers: tuple[str, ...]
    modes: tuple[str, ...]
    surrogate: str
    data: tuple[Path, ...]
    limit: int | None
    aware_limit: int | None
    scene_limit: int | None
    selection_fraction: float
    output: Path
    command: str


def assemble(wanted: Wanted, store: ModelStore, conditions: Conditions, cache: Path, progress: Progress) -> Session:
    """Load the models and the data. Raises what loading raises, and VictimError for a victim without data."""
    device = conditions.device
    sizes = _limited(QUICK, wanted)
    data = find_data(wanted.data)
    arenas: dict[Task, Arena] = {}
    for task, victims in _victims(wanted, store, conditions, data).items():
        selection = Selection(sizes.photos, wanted.selection_fraction, "rest", conditions.seed)
        progress.begin(f"data for {task}")
        examples = read_examples(data[task], victims, selection, progress)
        arenas[task] = Arena(
            task, Bench(examples, conditions, Cache(cache), progress), victims, source_name(data[task])
        )
    if not arenas:
        raise VictimError(f"{store.root} holds no victim for this data; name one with --model, or train one")
    folder = wanted.output / "rows"
    recorder = Recorder(SUITE, folder, wanted.command, conditions, versions())
    purified = _purified(wanted, store, device)
    surrogate = load_surrogate(store, wanted.surrogate, device)
    return Session(sizes, store, arenas, (NoDefence(), *BASELINES), purified, surrogate, recorder)


def _limited(sizes: Sizes, wanted: Wanted) -> Sizes:
    photos, scenes = wanted.limit or sizes.photos, wanted.scene_limit or sizes.scenes
    return replace(
        sizes,
        photos=photos,
        aware_photos=min(wanted.aware_limit or sizes.aware_photos, photos),
        scenes=scenes,
        aware_scenes=min(sizes.aware_scenes, scenes),
    )


def _victims(
    wanted: Wanted, store: ModelStore, conditions: Conditions, data: Mapping[Task, Path]
) -> dict[Task, tuple[Victim, ...]]:
    # Networks that others trained tell other classes apart than the data of a smoke test, unless they are named.
    here = (card.name for card in store.cards() if card.task in VICTIM_TASKS and card.origin is None)
    names = wanted.models or tuple(here)
    found: dict[Task, tuple[Victim, ...]] = {}
    for name in names:
        victim = load_victim(store, name, conditions.device)
        task = task_of(victim)
        if task in data:
            found[task] = (*found.get(task, ()), victim)
        elif wanted.models:
            raise VictimError(f"{name} is for {task}, but --data holds none for it; add its folder to --data")
    return found


def _purified(wanted: Wanted, store: ModelStore, device: torch.device) -> tuple[Purification, ...]:
    """The purifier in the modes wanted. Raises VictimError for several."""
    if len(wanted.purifiers) > 1:
        raise VictimError(
            f"suite quick measures one purifier, not {', '.join(wanted.purifiers)}; compare several with "
            "--suite imagenet"
        )
    return purifications(store.load(wanted.purifiers[0]), wanted.modes, device)


def source_name(root: Path) -> str:
    """The data's folder; with its parent where it is named after a split."""
    return f"{root.parent.name}/{root.name}" if root.name in SPLITS and root.parent.name else root.name
