"""Suspicion on the page: which attacks the report sees, and what purifying the suspicious alone leaves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from robustness.results.canvas import Look, Point, finish, line, panels
from robustness.results.cells import NOT_APPLICABLE, Footnotes, blocks, grid, photos
from robustness.results.order import ATTACKERS, attack_key, natural
from robustness.results.picture import Picture
from robustness.results.row import Row

TABLE = "suspicion"
PLOT = "suspicion-roc.png"
PLOT_EPS = 8

FALSE_POSITIVES, DETECTED, DETECTED_FOOLING = "false positives", "detected", "detected where fooled"
AREA, ACCURACY, UNSEEN = "AUC", "accuracy", "wrong and unseen"
SCORE, RESIDUAL, SHIFT = "score", "residual", "prediction shift"
UNDEFENDED, ALWAYS, SUSPICIOUS = "undefended", "policy always", "policy suspicious"
LEAST = "least of all, photo by photo"

CLEAN_COLUMNS = (
    ("false positives", FALSE_POSITIVES, SCORE),
    ("residual alone", FALSE_POSITIVES, RESIDUAL),
    ("right, undefended", ACCURACY, UNDEFENDED),
    ("right, policy always", ACCURACY, ALWAYS),
    ("right, policy suspicious", ACCURACY, SUSPICIOUS),
)
COLUMNS = (
    ("AUC", AREA, SCORE),
    ("AUC, residual", AREA, RESIDUAL),
    ("AUC, shift", AREA, SHIFT),
    ("seen", DETECTED, SCORE),
    ("seen where fooled", DETECTED_FOOLING, SCORE),
    ("seen by residual", DETECTED, RESIDUAL),
    ("right, undefended", ACCURACY, UNDEFENDED),
    ("right, always", ACCURACY, ALWAYS),
    ("right, suspicious", ACCURACY, SUSPICIOUS),
    ("wrong and unseen, always", UNSEEN, ALWAYS),
    ("wrong and unseen, suspicious", UNSEEN, SUSPICIOUS),
)

READING = """\
Figures about a classifier whose name begins with `imagenette` are about a small network of our own at 128 pixels: a
smoke test, and no claim about yours.

Suspicion is the sum, over the pixel residual and the shift of the prediction, of -log10 of the share of clean photos
that reach it. Its threshold was set on clean photos of one part of the data; false positives are of the other part,
which the attacked photos are from too. *Files as they are* go through the service's path: purified at their own size,
brought to the classifier's then. **AUC** is the area under the ROC curve against the clean photos. **Seen** is what
reaches the threshold, *where fooled* of the photos on which the undefended classifier is wrong. Policy *always*
decides on the purified image; *suspicious* on it where the image reaches the threshold, on the image as it came
elsewhere. **Wrong and unseen** is what a policy answers wrongly without the report saying a word.

*Hiding* attackers know the purifier and the report: PGD with exact gradients whose loss holds both signals, by a weight
(x), fooling both answers or the one about the image as it came. *Least of all* counts of each photo the attempt that
does most harm, the unaware ones included: what is to be expected of someone who knows."""


def suspicion_section(rows: Sequence[Row]) -> list[str]:
    """The blocks of the section; none without rows."""
    if not rows:
        return []
    parts = ["## Suspicion", READING]
    for defence in sorted({row.defence for row in rows}, key=natural):
        mine = [row for row in rows if row.defence == defence]
        clean, attacked = ([row for row in mine if (row.attacker == "none") is wanted] for wanted in (True, False))
        parts += [f"### {defence}", _table(clean, CLEAN_COLUMNS), _table(attacked, COLUMNS)]
    return parts


def _table(rows: Sequence[Row], columns: Sequence[tuple[str, str, str]]) -> str:
    """One line a classifier and attack, in the order of what the attacker knows."""
    at = {(*_subject(row), row.metric, row.series): row for row in rows}
    notes, lines = Footnotes(), []
    for subject in sorted({_subject(row) for row in rows}, key=_order):
        victim, attacker, attack, eps = subject
        found = [at.get((*subject, metric, series)) for _, metric, series in columns]
        shown = [NOT_APPLICABLE if row is None else notes.cell(row) for row in found]
        plain = [row for row in found if row is not None and row.metric == ACCURACY]
        lines.append((victim, attacker, attack, str(eps), photos(plain), *shown))
    heads = ("classifier", "attacker", "attack", "eps", "photos", *(head for head, _, _ in columns))
    return blocks(grid(heads, lines, words=3), notes.lines())


def _subject(row: Row) -> tuple[str, str, str, int]:
    return row.victim, row.attacker, row.attack, row.eps


def _order(subject: tuple[str, str, str, int]) -> tuple[object, ...]:
    victim, attacker, attack, eps = subject
    known = [str(name) for name in ATTACKERS]
    return natural(victim), known.index(attacker), attack == LEAST, attack_key(attack), eps


def plot_roc(rows: Sequence[Row], folder: Path) -> Iterator[Picture]:
    """The ROC curves at 8/255, a panel a purifier and classifier and a line an attack; none without rows."""
    mine = [r for r in rows if (r.table, r.metric, r.series, r.eps) == (TABLE, AREA, SCORE, PLOT_EPS)]
    if not mine:
        return
    subjects = sorted({(row.defence, row.victim) for row in mine}, key=lambda pair: tuple(map(natural, pair)))
    attacks = sorted({row.attack for row in mine}, key=attack_key)
    figure, axes = panels(len(subjects), 680)
    for axis, subject in zip(axes, subjects, strict=True):
        axis.set_title("\n".join((*subject[0].split(), subject[1])), fontsize=12)
        axis.set_xscale("symlog", linthresh=1.0)
        axis.set_xticks([0, 1, 10, 100], ["0", "1", "10", "100"])
        axis.minorticks_off()
        axis.set_xlabel("false positives, %", fontsize=12)
        for row in (row for row in mine if (row.defence, row.victim) == subject):
            points = [Point(x, y, y, y) for x, y in row.settings["roc"]]
            # All that hide are the same PGD, whose name would not fit.
            words = row.attack[max(0, row.attack.find("hiding")) :]
            line(axis, points, words, Look.numbered(attacks.index(row.attack)))
    axes[0].set_ylabel(f"attacked photos called suspicious, %, eps {PLOT_EPS}", fontsize=12)
    finish(figure, axes, folder / PLOT)
    clean = "-".join(str(count) for count in sorted({row.settings["clean"] for row in mine}))
    caption = (
        f"ROC of the suspicion score at eps {PLOT_EPS}: {photos(mine)} attacked photos against {clean} clean ones that "
        "no threshold was set on. Hiding attackers know the purifier and the report."
    )
    yield Picture(folder / PLOT, TABLE, f"ROC curves of the suspicion score at eps {PLOT_EPS}", caption)
