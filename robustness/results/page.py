"""The page: RESULTS.md, from rows that were measured before, so that rendering it again measures nothing."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from robustness.errors import EvaluationError
from robustness.results import published
from robustness.results.averages import MEAN
from robustness.results.cells import blocks, escaped, figure, grid, photos, sentence
from robustness.results.certified import certified_section
from robustness.results.costs import CostLine
from robustness.results.files import read_lines, write_text
from robustness.results.order import natural, suites_of, victims_of
from robustness.results.overview import Overview, headline, overview_table
from robustness.results.picture import Picture
from robustness.results.plots import plot_all
from robustness.results.published import PUBLISHED
from robustness.results.real_networks import TABLES as REAL
from robustness.results.real_networks import detail_section, real_section
from robustness.results.row import Row
from robustness.results.suspicion import TABLE as SUSPICION
from robustness.results.suspicion import plot_roc, suspicion_section
from robustness.results.tables import TITLES, cost_table, table_of
from robustness.results.timing import FILE as TIMINGS
from robustness.results.timing import Timing, read_timings, timing_section
from robustness.results.tradeoff import SECTION as TRADEOFF
from robustness.results.tradeoff import plot_tradeoff
from robustness.results.verdicts import bars_section

NAME = "RESULTS.md"
HEADLINE_EPS = 8
SHA_DIGITS = 12

INTRODUCTION = """\
What attacks leave of models behind this project's purifier, behind simple transformations, and behind nothing.
This page is made from the `.jsonl` files beside it, which hold every figure with all that it depends on."""

READING = """\
* A figure is a percentage, then its 95 % interval. A dash means *not measured*; its note says why.
* **eps** is how far an attack may change each pixel value, of 255. At 8 few people notice, at 16 many do.
* A **white box** attacker holds the victim but does not know of the defence; **transfer** means the attack was made on
  another model; an **aware** attacker knows victim and defence, which is what a public purifier must expect.
* Aware attacks come one after another, each on the images that are left: a figure counts what fell to the attacks
  before it and at smaller budgets. Their *least* also counts what needs no knowledge at all.
* A purifier may have been trained against the network that transfer attacks follow (its card names it as
  `feature_network`), which flatters it; lines of another network say how much.
* Adversaries are rounded to 8 bits before any defence sees them, as an upload is. Every defence sees the same images;
  aware attackers see the first of them only, because their attacks are slow.
* The paper's figures are read from a scan; **~** marks one that is partly a guess."""

MEAN_NOTE = """\
**Mean of victims** is the mean of the victims' percentages. Its interval is that of a single share on the number of
photos: the victims share their photos, so it is too wide rather than too narrow."""

COSTS_NOTE = """\
The paper's hours are of GPUs on large data, ours of the hardware named on small data: they say what a training asks
for, not which method is faster."""

CHECKS_NOTE = """\
Made in every suite with photos: an attack's loss must not fall with more iterations; knowing the defence must not
leave more standing than not knowing it; a transfer attack must not beat the same white box; gradients must neither
vanish nor be infinite; budgets must hold. An attack without a bound must leave no more than guessing gets. Of several
decisions about the same image, each with fresh noise: the share of right *single* decisions, of images that the
*majority* gets right, and of images that even the *worst* gets right, which is what an attacker leaves who may send the
same image again and again."""

# Lines of another kind: timings of defences, and the serving benchmark's, which has a page of its own.
OTHERS = frozenset({TIMINGS, "serving.jsonl"})
FIGURES: Mapping[str, int] = MappingProxyType({"F1": 1, "F6": 6})
# The rows of a defence card go onto that card; the page passes over them.
KNOWN = frozenset({*REAL, "overview", "card", "checks", "bars", "certified", SUSPICION, *PUBLISHED, *FIGURES})


def render(
    rows: Sequence[Row],
    costs: Sequence[CostLine],
    pictures: Sequence[Picture],
    folder: Path,
    *,
    warnings: Sequence[str] | None = None,
    notes: Mapping[str, str] = MappingProxyType({}),
    timings: Sequence[Timing] = (),
) -> Path:
    """Write RESULTS.md in ``folder`` from the rows of any number of suites, and return its path.

    ``warnings`` are those of the self-checks, None if this rendering was told of none. ``notes`` add, by table, what
    else differs from the paper. Raises EvaluationError for a table with a hole,
    or a row of a table that the page does not have.
    """
    if not rows:
        raise EvaluationError("there is no row to render; run `nrp evaluate --suite quick` first")
    unknown = [row for row in rows if row.table not in KNOWN]
    if unknown:
        raise EvaluationError(f"{unknown[0].title}: the page has no such table; it has {', '.join(sorted(KNOWN))}")
    text = blocks(
        "# Results",
        INTRODUCTION,
        *real_section(rows),
        *_shown(pictures, TRADEOFF, folder),
        *([] if real_section(rows) else _headlines(rows)),
        "## How to read this page",
        READING,
        "## What was run",
        *(_run(suite, [row for row in rows if row.suite == suite]) for suite in suites_of(rows)),
        *_bars(rows),
        *detail_section(rows),
        *certified_section([row for row in rows if row.table == "certified"]),
        *suspicion_section([row for row in rows if row.table == SUSPICION]),
        *_shown(pictures, SUSPICION, folder),
        *timing_section(timings),
        *_overviews(rows, pictures, folder),
        "## The tables of the paper",
        *(part for name in TITLES for part in _paper_table(name, rows, costs, pictures, folder, notes)),
        *_figures(pictures, folder),
        "## Self-checks",
        _warnings(warnings),
        *_checks(rows),
        "## What was not measured",
        _not_measured(rows, costs),
    )
    write_text(folder / NAME, text + "\n")
    return folder / NAME


def render_folder(
    folder: Path,
    costs: Sequence[CostLine],
    pictures: Sequence[Picture] = (),
    *,
    warnings: Sequence[str] | None = None,
    notes: Mapping[str, str] = MappingProxyType({}),
) -> Path:
    """Draw the plots and write the page of every suite whose ``SUITE.jsonl`` lies in ``folder``."""
    paths = [path for path in sorted(folder.glob("*.jsonl")) if path.name not in OTHERS]
    rows, timings = [row for path in paths for row in read_lines(path)], read_timings(folder / TIMINGS)
    drawn = (
        *plot_all(rows, folder / "plots"),
        *plot_tradeoff(rows, timings, folder / "plots"),
        *plot_roc(rows, folder / "plots"),
    )
    return render(rows, costs, (*drawn, *pictures), folder, warnings=warnings, notes=notes, timings=timings)


def _bars(rows: Sequence[Row]) -> list[str]:
    certified = [row for row in rows if row.table == "certified"]
    return [
        part
        for suite in suites_of([row for row in rows if row.table == "bars"])
        for part in bars_section([row for row in rows if row.suite == suite], certified)
    ]


def _headlines(rows: Sequence[Row]) -> list[str]:
    parts: list[str] = []
    for suite in suites_of(rows):
        mine = _of(rows, suite, "overview")
        if not mine:
            continue
        overview = Overview(mine)
        eps = HEADLINE_EPS if HEADLINE_EPS in overview.budgets else max(overview.budgets, default=0)
        who = MEAN if len(overview.victims) > 1 else overview.victims[0]
        parts += [
            f"## In one table: {overview.metric} at eps {eps}, suite {suite}",
            f"In percent, {who}. Each column of attacks shows the one that leaves least: the lowest of the figures "
            f"further down. Unaware attackers: {photos(row for row in mine if row.attacker != 'aware')} photos; "
            f"aware: {photos(row for row in mine if row.attacker == 'aware')}.",
            headline(overview, eps),
        ]
    return parts


def _run(suite: str, rows: Sequence[Row]) -> str:
    """Command, seed, counts, versions and weights of one suite."""
    tasks = sorted({row.task for row in rows})
    counts = "; ".join(f"{task} {photos(row for row in rows if row.task == task)}" for task in tasks)
    versions = {(name, value) for row in rows for name, value in row.versions.items()}
    data = {(name, sha) for row in rows for name, sha in row.data.items()}
    weights = {(name, sha) for row in rows for name, sha in row.weights.items()}
    lines = [
        ("command", _each(f"`{row.command}`" for row in rows if row.command)),
        ("seed", _each(str(row.seed) for row in rows)),
        ("images", counts),
        ("device, precision", _each(f"{row.device}, {row.precision}" for row in rows)),
        ("versions", _each(f"{name} {value}" for name, value in versions)),
        ("data, sha256", _each(f"{name} `{sha[:SHA_DIGITS]}`" for name, sha in data)),
        ("weights, sha256", _each(f"{name} `{sha[:SHA_DIGITS]}`" for name, sha in weights)),
    ]
    told = [(what, words) for what, words in lines if words]
    return blocks(f"Suite **{suite}**, {len(rows)} figures:", grid(("", ""), told, words=2))


def _overviews(rows: Sequence[Row], pictures: Sequence[Picture], folder: Path) -> list[str]:
    """Every overview table: those of the first suite's mean open, the others folded."""
    parts: list[str] = []
    suites = suites_of([row for row in rows if row.table == "overview"])
    for suite in suites:
        overview = Overview(_of(rows, suite, "overview"))
        several = len(overview.victims) > 1
        parts += [
            f"## {overview.metric.capitalize()} by attack and defence, suite {suite}",
            MEAN_NOTE if several else "",
        ]
        for place, subject in enumerate([*([MEAN] if several else []), *overview.victims]):
            tables = [
                part
                for eps in overview.budgets
                for part in (f"**{subject}, eps {eps}**", overview_table(overview, eps, subject))
            ]
            is_open = place == 0 and suite == suites[0]
            parts += tables if is_open else [f"<details><summary>{subject}</summary>", *tables, "</details>"]
    return [*parts, *_shown(pictures, "overview", folder)]


def _paper_table(
    name: str,
    rows: Sequence[Row],
    costs: Sequence[CostLine],
    pictures: Sequence[Picture],
    folder: Path,
    notes: Mapping[str, str],
) -> list[str]:
    """One table under its heading, or nothing where no suite has it."""
    heading = f"### Table {name[1:]}: {TITLES[name]}"
    if name == "T2":
        return [heading, COSTS_NOTE, notes.get(name, ""), cost_table(costs)] if costs else []
    parts: list[str] = []
    for suite in suites_of([row for row in rows if row.table == name]):
        mine = _of(rows, suite, name)
        parts += [blocks(difference(name, mine), notes.get(name, "")), table_of(name, mine)]
    return [heading, *parts, *_shown(pictures, name, folder)] if parts else []


def difference(name: str, rows: Sequence[Row]) -> str:
    """One sentence on what the paper measured and what these rows of a table did."""
    data = ", ".join(sorted({name for row in rows for name in row.data}, key=natural))
    victims = ", ".join(victims_of(row for row in rows if not row.missing))
    where = f" on {data}" if data else ""
    return (
        f"The paper measured {PUBLISHED[name].setting}; suite {rows[0].suite} measured {victims}{where} "
        f"({photos(rows)} images), so compare the pattern, not the level."
    )


def _figures(pictures: Sequence[Picture], folder: Path) -> list[str]:
    parts: list[str] = []
    for section, number in FIGURES.items():
        shown = _shown(pictures, section, folder)
        if shown:
            parts += [f"### Figure {number}", f"The paper's: {published.FIGURES[number]}", *shown]
    grids = _shown(pictures, "grids", folder)
    parts += ["### Images", *grids] if grids else []
    return ["## The figures of the paper", *parts] if parts else []


def _shown(pictures: Sequence[Picture], section: str, folder: Path) -> list[str]:
    return [
        f"![{escaped(picture.title)}]({Path(os.path.relpath(picture.file, folder)).as_posix()})\n\n*{picture.caption}*"
        for picture in pictures
        if picture.section == section
    ]


def _warnings(warnings: Sequence[str] | None) -> str:
    if warnings is None:
        return "This rendering was not told what the self-checks found."
    if not warnings:
        return "No self-check raised a warning."
    return "\n".join(f"* **Warning:** {sentence(escaped(warning))}" for warning in warnings)


def _checks(rows: Sequence[Row]) -> list[str]:
    """What the self-checks measured, row by row."""
    checks = [row for row in rows if row.table == "checks"]
    if not checks:
        return []
    lines = [(row.suite, row.series, row.attack, str(row.eps), row.victim, row.defence, figure(row)) for row in checks]
    heads = ("suite", "check", "attack", "eps", "victim", "defence", "accuracy")
    return [CHECKS_NOTE, grid(heads, lines, words=len(heads) - 1)]


def _not_measured(rows: Sequence[Row], costs: Sequence[CostLine]) -> str:
    """Reasons with how many cells they emptied, and what the paper has and no suite here."""
    reasons: dict[str, list[Row]] = {}
    for row in rows:
        if row.missing:
            reasons.setdefault(row.missing, []).append(row)
    lines = [
        f"* {_each(f'{row.table} of suite {row.suite}' for row in lacking)}, "
        f"{len(lacking)} {'cell' if len(lacking) == 1 else 'cells'}: {sentence(escaped(reason))}"
        for reason, lacking in reasons.items()
    ]
    present = {row.table for row in rows} | ({"T2"} if costs else set())
    absent = [name for name in (*TITLES, *FIGURES) if name not in present]
    if absent:
        words = ", ".join(f"{'table' if name.startswith('T') else 'figure'} {name[1:]}" for name in absent)
        lines.append(f"* Of the paper's, no suite shown here has: {words}.")
    return "\n".join(lines) or "Every cell of every table above was measured."


def _of(rows: Iterable[Row], suite: str, table: str) -> list[Row]:
    return [row for row in rows if (row.suite, row.table) == (suite, table)]


def _each(words: Iterable[str]) -> str:
    return ", ".join(sorted(set(words), key=natural))
