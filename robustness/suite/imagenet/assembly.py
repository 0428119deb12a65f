"""Assembly: everything that the suite `imagenet` stands on is loaded, and refused, before anything is measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from model_store.card import InputConvention
from model_store.store import ModelStore
from robustness.cache import Cache
from robustness.conditions import Conditions
from robustness.datasets.nips17 import is_nips17, read_credits
from robustness.datasets.recognise import find_data
from robustness.defences import BASELINES, NoDefence, Purification
from robustness.errors import EvaluationError, VictimError
from robustness.evaluation import purifications
from robustness.judgement import Bench
from robustness.progress import Progress
from robustness.results.real_networks import SEEN, SUITE
from robustness.results.row import Task
from robustness.suite.assembly import source_name
from robustness.suite.imagenet.contest import Contest
from robustness.suite.imagenet.plan import Plan
from robustness.suite.recorder import Recorder
from robustness.suite.session import Arena, Session
from robustness.suite.sizes import QUICK, Sizes
from robustness.surrogates import load_surrogate
from robustness.versions import versions
from robustness.victims.classification import Classifier, agreeing
from robustness.victims.loading import Selection, load_victim, read_examples
from robustness.victims.victim import Victim

# One size for all classifiers, so that they are judged on the same pictures.
CONVENTION = InputConvention(short_side=256, crop=224)
JUDGED: Mapping[str, Task] = MappingProxyType(
    {"classifier": "classification", "segmenter": "segmentation", "detector": "detection"}
)
PHOTOS: frozenset[Task] = frozenset({"classification"})
# The sections, and the tasks of which each wants data, at least of one.
TASKS: Mapping[str, frozenset[Task]] = MappingProxyType(
    {
        "unaware": PHOTOS,
        "transfer": PHOTOS,
        "paper": PHOTOS,
        "pictures": PHOTOS,
        "scenes": frozenset({"segmentation", "detection"}),
        "aware": PHOTOS,
    }
)


@dataclass(frozen=True)
class Entry:
    """What takes part: names of the store, and folders of data. ``tasks`` are those that the sections want."""

    victims: tuple[str, ...]
    seen: tuple[str, ...]
    purifiers: tuple[str, ...]
    surrogate: str
    data: tuple[Path, ...]
    tasks: frozenset[Task]
    output: Path
    command: str


def assemble(entry: Entry, plan: Plan, store: ModelStore, conditions: Conditions, progress: Progress) -> Contest:
    """Load the networks and the data. Raises what loading raises, and EvaluationError for data that is missing."""
    data = {task: root for task, root in find_data(entry.data).items() if task in entry.tasks}
    device = conditions.device
    victims = _victims(entry.victims, store, conditions, data)
    seen = tuple(_renamed(name, store, conditions) for name in entry.seen) if "classification" in data else ()
    purified = tuple(_purifier(store, name, conditions) for name in entry.purifiers)
    surrogate = load_surrogate(store, entry.surrogate, device)
    cache = Cache(entry.output / "cache")
    arenas: dict[Task, Arena] = {}
    for task, members in victims.items():
        examples = read_examples(data[task], members, _selection(task, plan, conditions), progress)
        arenas[task] = Arena(task, Bench(examples, conditions, cache, progress), members, source_name(data[task]))
    if "classification" in arenas:
        agreeing([*arenas["classification"].classifiers(), *seen])
    recorder = Recorder(SUITE, entry.output / "rows", entry.command, conditions, versions())
    recorder.facts = {"photos": plan.photos}
    session = Session(_sizes(plan), store, arenas, (NoDefence(), *BASELINES), purified, surrogate, recorder)
    root = data.get("classification")
    return Contest(session, plan, seen, read_credits(root) if root is not None and is_nips17(root) else {})


def _selection(task: Task, plan: Plan, conditions: Conditions) -> Selection:
    photos = max(plan.photos, plan.aware.photos)
    return Selection(photos if task == "classification" else None, 0.0, "rest", conditions.seed)


def _sizes(plan: Plan) -> Sizes:
    return replace(
        QUICK,
        ssp_iterations=plan.ssp_iterations,
        fff_iterations=plan.fff_iterations,
        scene_eps=(8, 16),
        scenes=plan.scenes,
        aware_scenes=plan.known_scenes,
    )


def _victims(
    names: Sequence[str], store: ModelStore, conditions: Conditions, data: Mapping[Task, Path]
) -> dict[Task, tuple[Victim, ...]]:
    found: dict[Task, tuple[Victim, ...]] = {}
    for name in names:
        task = JUDGED.get(store.card(name).task)
        if task is None:
            raise VictimError(f"{name} is nothing to judge; name classifiers, segmenters or detectors in --model")
        if task in data:
            convention = CONVENTION if task == "classification" else None
            found[task] = (*found.get(task, ()), load_victim(store, name, conditions.device, convention))
    for task, root in data.items():
        if task not in found:
            raise VictimError(f"no network of --model is for {task}, which {root.name} is for; name one more")
    return found


def _renamed(name: str, store: ModelStore, conditions: Conditions) -> Classifier:
    """A classifier that a training has seen, under a name that says so in every table."""
    victim = load_victim(store, name, conditions.device, CONVENTION)
    if not isinstance(victim, Classifier):
        raise VictimError(f"{name} is no classifier; --seen names classifiers that a purifier's training has seen")
    return replace(victim, name=f"{name}{SEEN}")


def _purifier(store: ModelStore, name: str, conditions: Conditions) -> Purification:
    return purifications(store.load(name), ("default",), conditions.device, named=True)[0]


def with_data(sections: Sequence[str], data: Sequence[Path], *, every: bool) -> tuple[str, ...]:
    """Those of ``sections`` that there is data for. Raises EvaluationError for one without, unless it is of ``every``.

    ``every``: all sections were meant, as far as they can be measured.
    """
    there = set(find_data(data))
    lacking = [name for name in sections if not TASKS[name] & there]
    if lacking and not (every and len(lacking) < len(sections)):
        words = " or ".join(sorted(TASKS[lacking[0]]))
        raise EvaluationError(f"section {lacking[0]} wants data for {words}; add its folder to --data")
    return tuple(name for name in sections if name not in lacking)
