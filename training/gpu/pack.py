"""Pack what a GPU is to be given: ``python -m training.gpu.pack DATA --output out/gpu``, at home.

What is carried in one call, ``train`` with ``judge`` or with ``resume``, stays within ``--most-mb`` megabytes: the
networks are counted, and photos fill the rest.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from model_store.card import Card, InputConvention
from model_store.errors import NrpError
from model_store.pixels import bytes_to_image
from model_store.store import SHIPPED, ModelStore
from robustness.datasets.nips17 import read_nips17
from robustness.progress import Progress
from training.errors import DataError
from training.gpu.carrying import weight_of
from training.gpu.folder import Folder, write_facts
from training.packing import ENTRY, EXACT, HEADER, MEGABYTE, SMALL, Packed, in_turn, pack_what_fits, write_pack
from training.photos import list_photos
from training.plan import Planned, bundle, kind_of, write_plan
from training.publish import code_revision, stored
from training.purifier_recipe import PurifierRecipe
from training.recipe import read_recipe, recipe_path, recipe_table
from training.stages import SCHEMAS
from training.timed import require_timeable

VICTIMS = ("efficientnet-lite1", "squeezenet")
BESIDE = ("nrp-fast",)  # a purifier that the new one is measured beside, and attacked through
TIMED = ("nrp-fast", "nrp-strong")
PUBLISHED = ("nrp_resg", "nrp")
CROP = 224
CONVENTION = InputConvention(short_side=256, crop=CROP)
LEAST_JUDGED_MB = 5.0  # some 64 photos: with fewer, a figure's interval tells little
MARGIN_MB = 0.2  # of JSON
FIRST = ("photos", "imagenet-samples")  # what all is taken of before the ten classes of the third
THEN = ("imagenette2-160/train",)
JUDGED = "nips17"


@dataclass(frozen=True)
class Order:
    """What is packed into where: at most ``most_mb`` megabytes, and so many photos to train on and to judge on."""

    data: Path
    folder: Folder
    store: ModelStore
    recipe: str
    most_mb: float
    photos: int | None = None
    judged: int | None = None
    quiet: bool = False


def main(argv: Sequence[str] | None = None) -> int:
    """Pack, and tell the sizes."""
    parser = argparse.ArgumentParser(prog="python -m training.gpu.pack", description="Pack what a GPU is given.")
    parser.add_argument("data", type=Path, metavar="DATA", help=f"folder of {', '.join((*FIRST, *THEN, JUDGED))}")
    parser.add_argument("--output", type=Path, default=Path("out/gpu"), metavar="DIR", help="(default: %(default)s)")
    parser.add_argument("--recipe", default="purifier-real-gpu", help="a purifier's (default: %(default)s)")
    parser.add_argument("--most-mb", type=float, default=60, help="what may be carried in a call (default: 60)")
    parser.add_argument("--store", type=Path, default=SHIPPED, help="where its networks are")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    given = parser.parse_args(argv)
    order = Order(given.data, Folder(given.output), ModelStore(given.store), given.recipe, given.most_mb, given.quiet)
    try:
        pack(order, tqdm.write)
    except NrpError as error:
        tqdm.write(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def pack(order: Order, tell: Callable[[str], None]) -> None:
    """Write the whole folder anew, but for ``resume``, and tell each part's size.

    Raises DataError where not even the networks fit, and what reading recipe, store and photos raises.
    """
    folder, recipe = order.folder, read_purifier_recipe(order.recipe)
    for part in ("train", "judge"):
        shutil.rmtree(folder.root / part, ignore_errors=True)
    networks = stored(order.store)
    write_plan([Planned("purifier", recipe)], networks, folder.plan, code_revision=code_revision())
    beside = [name for name in BESIDE if name != recipe.initial]
    models = bundle({name: networks(name) for name in (*VICTIMS, *beside)}, folder.judge.parent / "models")
    resumed = weight_of(recipe) / MEGABYTE
    learning, judging = _size(folder.plan.parent), _size(folder.judge.parent)
    room = order.most_mb - learning - max(resumed, judging + LEAST_JUDGED_MB) - MARGIN_MB
    if room <= 0:
        raise DataError(
            f"networks ({learning:.1f} + {judging:.1f} MB) and a checkpoint ({resumed:.1f} MB) leave no room for "
            f"photos within {order.most_mb:g} MB; allow more with --most-mb"
        )
    files = [path for roots in (FIRST, THEN) for path in in_turn(list_photos([order.data / root for root in roots]))]
    files = files[: order.photos]
    photos = pack_what_fits(files, folder.photos, side=recipe.side, most_mb=room, codec=SMALL, quiet=order.quiet)
    left = order.most_mb - _size(folder.plan.parent) - judging - MARGIN_MB
    judged = _pack_judged(order, left, models)
    facts = {"code_revision": code_revision(), "serving": _serving(order.store)}
    write_facts(facts, folder.manifest)
    tell(f"train: {_size(folder.plan.parent):.1f} MB, {photos.count} of {photos.found} photos of {recipe.side} pixels")
    tell(f"judge: {_size(folder.judge.parent):.1f} MB, {judged.count} of {judged.found} photos of {JUDGED}, losslessly")
    tell(f"resume: at most {resumed:.1f} MB, where an earlier call's checkpoint is put into {folder.resume}")


def read_purifier_recipe(where: str) -> PurifierRecipe:
    kind = kind_of(recipe_table(recipe_path(where)))
    recipe = read_recipe(where, SCHEMAS[kind])
    require_timeable(recipe)
    if not isinstance(recipe, PurifierRecipe):
        raise DataError(f"{where} is no purifier's recipe; name one that is")
    return recipe


def _pack_judged(order: Order, most_mb: float, models: dict[str, Any]) -> Packed:
    """The photos of nips17 that fit, losslessly: the first of the order that evaluation takes them in."""
    examples = read_nips17(order.data / JUDGED, CONVENTION, Progress(quiet=order.quiet), limit=order.judged)
    kept: list[bytes] = []
    size = 0.0
    for pixels in tqdm(examples.pixels, desc="packing photos", disable=order.quiet):
        photo = EXACT(bytes_to_image(pixels))
        size += len(photo) + ENTRY
        if size + HEADER > most_mb * MEGABYTE:
            break
        kept.append(photo)
    if not kept:
        raise DataError(f"no photo of {JUDGED} fits into {most_mb:.1f} MB; allow more with --most-mb")
    card = order.store.card(VICTIMS[0])
    found, examples = len(examples), examples.first(len(kept))
    folders = tuple(str(folder) for folder in card.recipe["folders"])
    packed = write_pack(kept, examples.truths["labels"], order.folder.judged, side=CROP, folders=folders)
    facts = {
        "models": models,
        "victims": list(VICTIMS),
        "purifiers": {name: _mode(order.store.card(name)) for name in BESIDE},
        "data": JUDGED,
        "digest": examples.digest,
        "names": list(examples.names),
        "targets": examples.truths["targets"].tolist(),
    }
    write_facts(facts, order.folder.judge)
    return replace(packed, found=found)


def _mode(card: Card) -> dict[str, Any]:
    """The default mode of a purifier, by name and in full."""
    if card.inference is None:
        raise DataError(f"{card.name} states no mode to run in; name a purifier that does")
    name = card.inference.default
    return {"name": name, "mode": card.inference.modes[name].model_dump()}


def _serving(store: ModelStore) -> dict[str, Any]:
    """Architecture and arguments of what is timed."""
    cards = [store.card(name) for name in TIMED]
    ours = {card.name: {"architecture": card.architecture, "arguments": card.arguments} for card in cards}
    return ours | {name: {"architecture": name, "arguments": {}} for name in PUBLISHED}


def _size(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / MEGABYTE


if __name__ == "__main__":
    sys.exit(main())
