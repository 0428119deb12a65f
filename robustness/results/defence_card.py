"""The defence card: one page on a purifier, what it takes from clean images, what attacks leave, what it costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from model_store.card import Card
from robustness.errors import EvaluationError
from robustness.intervals import wilson
from robustness.results.averages import MEAN
from robustness.results.cells import DASH, NOT_APPLICABLE, blocks, figure, grid, photos, sentence
from robustness.results.order import ATTACKERS
from robustness.results.overview import CLEAN, Overview
from robustness.results.row import Attacker, Row

Best = tuple[str, Row] | None

READING = """\
Percentages with their 95 % intervals. At each eps (of 255) and for each kind of attacker, a figure is that of the
attack that leaves least. *White box*: holds the victim and does not know of the defence. *Transfer*: the attack was
made on another model. *Aware*: knows the victim and the defence; without a defence there is nothing more to know than
a white box gives, so that is the figure beside it."""

GENERAL_LIMITS = (
    "No figure here is a guarantee: a stronger attack than those that were run may leave less.",
    "Anything that is no small change of every pixel: patches, stickers, rotation, scaling, other objects, new views.",
    "Budgets, norms and image sizes other than those measured.",
    "Training data that was poisoned, backdoors in the model behind it, and copies of that model made by asking it.",
    "An attacker who may try again and again: each try of a randomised mode is another chance.",
)


@dataclass(frozen=True)
class Harm:
    """What ``defence`` does to ``count`` clean images before ``victim``.

    ``psnr_db`` and ``ssim`` compare the image with its purified version; ``psnr_db`` is infinite if nothing changed.
    ``agreement_percent`` is the share of images that the victim answers alike, right or wrong.
    """

    defence: str
    victim: str
    psnr_db: float
    ssim: float
    agreement_percent: float
    count: int

    @property
    def agreement_interval(self) -> tuple[float, float]:
        """Its Wilson 95 % interval, in percent."""
        low, high = wilson(self.agreement_percent / 100 * self.count, self.count)
        return (100 * low, 100 * high)


@dataclass(frozen=True)
class Cost:
    """Median ``milliseconds`` an image of ``size`` x ``size`` pixels takes in batches of ``batch``, all draws included.

    ``threads`` are those of the CPU.
    """

    defence: str
    milliseconds: float
    size: int
    batch: int
    device: str
    threads: int
    precision: str


def defence_card(card: Card, rows: Sequence[Row], harm: Sequence[Harm], cost: Sequence[Cost]) -> str:
    """The page in Markdown.

    ``rows`` are the overview rows of one suite; those of other purifiers are passed over. Raises EvaluationError for
    a hole in them, for rows of other weights than the card's, and where ``harm`` or ``cost`` is empty.
    """
    if not harm or not cost:
        raise EvaluationError(f"the defence card of {card.name} needs its harm and its cost; measure both")
    mine = _of_this_purifier(card, rows)
    overview = Overview(mine)
    return (
        blocks(
            f"# Defence card: {card.name}",
            _identity(card),
            "## What it does to clean images",
            _harm(overview, harm),
            "## What attacks leave",
            READING,
            _robustness(overview, mine),
            "## What it costs",
            _cost(cost),
            "## What it does not protect against",
            _limits(card, overview),
        )
        + "\n"
    )


def _of_this_purifier(card: Card, rows: Sequence[Row]) -> list[Row]:
    kept = []
    for row in rows:
        weights = row.weights.get(card.name)
        if row.role == "purifier" and weights is None:
            continue
        if row.role == "purifier" and weights != card.sha256:
            raise EvaluationError(f"{row.title} is of other weights than those of {card.name} now; measure it again")
        kept.append(row)
    if not any(row.role == "purifier" for row in kept):
        raise EvaluationError(f"no row is of {card.name}; run `nrp evaluate --purifier {card.name}` first")
    return kept


def _identity(card: Card) -> str:
    trained = "; ".join(f"{source.name} ({source.images} images)" for source in card.training_data)
    default = "" if card.inference is None else f" Default mode: {card.inference.default}."
    return f"{sentence(card.summary)} Architecture `{card.architecture}`, weights `{card.sha256[:12]}`.{default}" + (
        f" Trained on {trained}." if trained else ""
    )


def _harm(overview: Overview, harm: Sequence[Harm]) -> str:
    lines = []
    for each in harm:
        bare = overview.cell(CLEAN, 0, each.victim, "none")
        behind = overview.cell(CLEAN, 0, each.victim, each.defence)
        if bare is None or behind is None or bare.percent is None or behind.percent is None:
            raise EvaluationError(f"no clean accuracy of {each.victim} with and without {each.defence}; measure both")
        low, high = each.agreement_interval
        psnr = "unchanged" if math.isinf(each.psnr_db) else f"{each.psnr_db:.1f} dB"
        agreement = f"{each.agreement_percent:.1f} ({low:.1f}{DASH}{high:.1f})"
        lost = f"{bare.percent - behind.percent:+.1f}"
        figures = (figure(bare), figure(behind), lost, agreement, psnr, f"{each.ssim:.3f}", photos([behind]))
        lines.append((each.defence, each.victim, *figures, str(each.count)))
    heads = ("mode", "victim", "accuracy without", "with", "points lost", "answers alike", "PSNR", "SSIM")
    told = (
        "Accuracy on clean images without and with the purifier; the share of images answered alike; and how near the "
        "purified image is to the original."
    )
    return blocks(told, grid((*heads, "photos", "images compared"), lines, words=2))


def _robustness(overview: Overview, rows: Sequence[Row]) -> str:
    """One line an eps and kind of attacker: undefended, the best baseline, each mode of the purifier."""
    victim = _subject(overview)
    modes = [name for name, role in overview.defences if role == "purifier"]
    lines = []
    for eps in overview.budgets:
        for kind in ATTACKERS[1:]:
            behind = [overview.least(kind, eps, victim, mode) for mode in modes]
            if all(row is None for row in behind):
                continue
            bare = overview.least("white box" if kind == "aware" else kind, eps, victim, "none")
            best = _best_baseline(overview, kind, eps, victim)
            baseline = NOT_APPLICABLE if best is None else f"{_figure(best[1])}, {best[0]}"
            count = photos(row for row in (*behind, bare) if row is not None)
            lines.append((str(eps), kind, _figure(bare), baseline, *map(_figure, behind), count))
    heads = ("eps", "attacker", "undefended", "best baseline", *modes, "photos")
    aware = photos(row for row in rows if row.attacker == "aware")
    below = f"{victim[:1].upper()}{victim[1:]}: {', '.join(overview.victims)}. Aware attackers: {aware} photos."
    return blocks(grid(heads, lines, words=2), below)


def _subject(overview: Overview) -> str:
    return MEAN if len(overview.victims) > 1 else overview.victims[0]


def _best_baseline(overview: Overview, kind: Attacker, eps: int, victim: str) -> Best:
    """The baseline that the worst attack leaves most of, among those measured."""
    names = [name for name, role in overview.defences if role == "baseline"]
    found = [(name, overview.least(kind, eps, victim, name)) for name in names]
    measured = [(name, row) for name, row in found if row is not None and row.percent is not None]
    return max(measured, key=lambda pair: pair[1].percent or 0.0, default=None)


def _figure(row: Row | None) -> str:
    if row is None:
        return NOT_APPLICABLE
    return f"{DASH} ({row.missing})" if row.missing else figure(row)


def _cost(costs: Sequence[Cost]) -> str:
    lines = [
        (
            each.defence,
            each.device,
            each.precision,
            str(each.threads),
            f"{each.size} x {each.size}",
            str(each.batch),
            f"{each.milliseconds:.1f}",
        )
        for each in costs
    ]
    return grid(("mode", "device", "precision", "CPU threads", "pixels", "batch", "ms an image"), lines, words=3)


def _limits(card: Card, overview: Overview) -> str:
    """The aware attackers first, with the least figure of the largest budget measured; then the card's and others."""
    victim = _subject(overview)
    modes = [name for name, role in overview.defences if role == "purifier"]
    known = [
        (eps, mode, row)
        for eps in overview.budgets
        for mode in modes
        if (row := overview.least("aware", eps, victim, mode)) is not None and row.percent is not None
    ]
    told = "**An attacker who knows it.**"
    if known:
        eps, mode, row = max(known, key=lambda each: (each[0], -(each[2].percent or 0.0)))
        told += f" At eps {eps}, {row.attack} leaves {figure(row)} % behind {mode} ({victim})."
    else:
        told += " Not one figure was measured: expect none of the protection above."
    return "\n".join(f"* {sentence(line)}" for line in (told, *card.limits, *GENERAL_LIMITS))
