"""The grid of the README: what attack and purifier do to a classifier, a segmenter and a detector.

Every scene is drawn (``drawings``), so the truth is known exactly. The attackers do not know of the purifier, and
their adversaries are rounded to 8 bits. The classifier is attacked with what hurts it most, PGD on its own loss; the
others with SSP, which the purifier is made against, on a network that is neither of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from drawings.church import church
from drawings.parachute import parachute
from drawings.smear import smear
from drawings.street import street
from PIL import Image
from torch import Tensor
from torchvision.ops import box_iou

from model_store.pixels import bytes_to_image, fit, image_to_bytes, to_bytes, to_float
from model_store.store import ModelStore
from robustness.adversaries import Threat, craft, white_box
from robustness.attacks.pgd import PGD
from robustness.attacks.ssp import SSP
from robustness.conditions import Conditions
from robustness.defences.purification import Purification
from robustness.evaluation import purifications
from robustness.examples import Examples, Truths, part_of
from robustness.progress import Progress
from robustness.results.grids import (
    INK,
    QUIET,
    RIGHT,
    WRONG,
    Colour,
    Legend,
    Panel,
    box_legend,
    grid,
    mask_legend,
    paint_boxes,
    paint_mask,
    perturbation,
)
from robustness.seeds import derive_seed
from robustness.surrogates import load_surrogate
from robustness.victims.classification import Classifier, load_classifier
from robustness.victims.detection import Detector, load_detector
from robustness.victims.segmentation import Segmenter, load_segmenter

Row = tuple[Panel, Panel, Panel, Panel]

CPU = torch.device("cpu")
CONDITIONS = Conditions(seed=0, batch=4, device=CPU)
FACTOR = 8.0  # how many times as strong perturbations are shown
WIDE, LOW = 240, 180  # a panel of the classifier's is square, others are three quarters as high as wide
PHOTO_COLOURS = 200

# What counts as a detection: recall and precision on BCCD's validation split balance best here (F1 0.81).
LEAST = 0.4
OVERLAP = 0.5


@dataclass(frozen=True)
class Act:
    """One task's rows: ``examples`` attacked by ``threat``, judged by ``victim``; panels are ``height`` high."""

    title: str
    examples: Examples
    threat: Threat
    victim: Classifier | Segmenter | Detector
    attack: str
    height: int

    @property
    def legend(self) -> Legend:
        """What the colours on its panels mean."""
        if isinstance(self.victim, Segmenter):
            return mask_legend(self.victim.classes)[: len(self.victim.classes)]
        return box_legend(self.victim.classes) if isinstance(self.victim, Detector) else ()


def showcase(store: ModelStore) -> Image.Image:
    """The whole grid, in 256 colours: in more, the noise in it makes a file of megabytes."""
    purifier = purifications(store.load("nrp-fast"), ["default"], CPU)[0]
    sheets, photos, keys = [], [], []
    for act in _acts(store):
        rows = _rows(act, purifier)
        sheets.append(_sheet(act, rows))
        photos += [bytes_to_image(panel.image) for clean, bad, _, good in rows for panel in (clean, bad, good)]
        keys += [colour for _, colour in act.legend]
    palette = palette_of(stacked(photos), (INK, QUIET, RIGHT, WRONG, *keys))
    return stacked(sheets).quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)


def palette_of(photos: Image.Image, exact: Sequence[Colour]) -> Image.Image:
    """A picture whose palette holds the ``exact`` colours, a cube of 27 for the noise, and the photos' own.

    Were the palette found from the noise as well, it would leave the photos too few colours.
    """
    found = photos.quantize(PHOTO_COLOURS, method=Image.Quantize.MEDIANCUT, kmeans=3).getpalette() or []
    cube = itertools.product((0, 128, 255), repeat=3)
    carrier = Image.new("P", (1, 1))
    carrier.putpalette([channel for colour in (*cube, *exact) for channel in colour] + found[: 3 * PHOTO_COLOURS])
    return carrier


def stacked(sheets: Sequence[Image.Image]) -> Image.Image:
    """The sheets below each other, on white."""
    whole = Image.new("RGB", (max(sheet.width for sheet in sheets), sum(sheet.height for sheet in sheets)), "white")
    top = 0
    for sheet in sheets:
        whole.paste(sheet, (0, top))
        top += sheet.height
    return whole


def found(answers: Truths, truths: Truths) -> tuple[int, int]:
    """How many of one image's true boxes are found, and how many detections are false.

    ``answers``: boxes (K, 4), labels and scores (K,), best first; ``truths``: boxes and labels. Each detection takes
    the free box of its class that it overlaps most, if the IoU is at least a half.
    """
    sure = (answers["labels"] >= 0) & (answers["scores"] >= LEAST)
    free = torch.ones(len(truths["labels"]), dtype=torch.bool)
    for box, label in zip(answers["boxes"][sure], answers["labels"][sure], strict=True):
        overlap = box_iou(box.unsqueeze(0), truths["boxes"])[0] * (free & (truths["labels"] == label))
        if overlap.max() >= OVERLAP:
            free[overlap.argmax()] = False
    hits = int((~free).sum())
    return hits, int(sure.sum()) - hits


def _acts(store: ModelStore) -> tuple[Act, ...]:
    classifier = load_classifier(store, "imagenette-resnet", CPU)
    segmenter = load_segmenter(store, "camvid-segnet", CPU)
    detector = load_detector(store, "bccd-retinanet", CPU)
    ssp = load_surrogate(store, "imagenette-vgg-features", CPU).threat(SSP())
    pgd = white_box(PGD(8.0), classifier)
    return (
        Act("classification", _objects(classifier), pgd, classifier, "PGD-10, 8/255", WIDE),
        Act("segmentation", _road(), ssp, segmenter, "SSP, 16/255", LOW),
        Act("detection", _blood(), ssp, detector, "SSP, 16/255", LOW),
    )


def _objects(classifier: Classifier) -> Examples:
    """Two of the classifier's classes, at the size that it looks at."""
    drawn = {"parachute": parachute(), "church": church()}
    images = torch.stack([to_float(image_to_bytes(picture)) for picture in drawn.values()])
    labels = torch.tensor([classifier.classes.index(name) for name in drawn])
    return Examples(to_bytes(fit(images, classifier.convention)), {"labels": labels}, tuple(drawn))


def _road() -> Examples:
    picture, classes = street()
    mask = torch.from_numpy(np.array(classes, dtype=np.int64))
    return Examples(image_to_bytes(picture).unsqueeze(0), {"mask": mask.unsqueeze(0)}, ("street",))


def _blood() -> Examples:
    picture, boxes, kinds = smear()
    truths = {"boxes": torch.tensor([boxes]), "labels": torch.tensor([kinds])}
    return Examples(image_to_bytes(picture).unsqueeze(0), truths, ("smear",))


def _rows(act: Act, purifier: Purification) -> list[Row]:
    attacked = craft(act.threat, act.examples, CONDITIONS, Progress(quiet=True))["pixels"]
    return [_row(act, attacked[place], purifier, place) for place in range(len(act.examples))]


def _sheet(act: Act, rows: Sequence[Row]) -> Image.Image:
    """One row a scene, under the columns' titles."""
    columns = ("clean", f"adversary: {act.attack}", "perturbation", "purified by nrp-fast")
    return grid(
        rows,
        row_titles=(act.title,) * len(rows),
        column_titles=columns,
        legend=act.legend,
        height=act.height,
    )


@torch.inference_mode()
def _row(act: Act, attacked: Tensor, purifier: Purification, place: int) -> Row:
    clean = act.examples.pixels[place]
    seed = derive_seed(CONDITIONS.seed, "defence", place)
    draws = purifier.draws(CONDITIONS.floats(attacked.unsqueeze(0)), [seed])
    alone = [CONDITIONS.floats(pixels.unsqueeze(0)).unsqueeze(1) for pixels in (clean, attacked)]
    truths = part_of(act.examples.truths, slice(place, place + 1))
    return (
        _panel(act, alone[0], clean, truths),
        _panel(act, alone[1], attacked, truths),
        perturbation(attacked, clean, FACTOR),
        _panel(act, draws, to_bytes(draws.mean(dim=1))[0], truths),
    )


def _panel(act: Act, versions: Tensor, pixels: Tensor, truths: Truths) -> Panel:
    """What the victim makes of one image: a label with its probability, or masks and boxes painted upon it."""
    victim, answers = act.victim, act.victim.answer(versions)
    if isinstance(victim, Segmenter):
        (share,) = (answers["mask"] == truths["mask"]).float().mean(dim=(1, 2)).tolist()
        return Panel(paint_mask(pixels, answers["mask"][0], victim.classes), f"{share:.0%} of pixels right")
    if isinstance(victim, Detector):
        one = {key: value[0] for key, value in answers.items()}
        painted = paint_boxes(pixels, one["boxes"], one["labels"], one["scores"], least=LEAST, height=act.height)
        hits, false = found(one, {key: value[0] for key, value in truths.items()})
        return Panel(painted, f"{hits} of {truths['labels'].shape[1]} cells found, {false} false")
    logs = answers["log_probabilities"][0]
    guess = int(logs.argmax())
    right = guess == int(truths["labels"][0])
    return Panel(pixels, f"{victim.classes[guess]} {float(logs[guess].exp()):.0%}", "right" if right else "wrong")
