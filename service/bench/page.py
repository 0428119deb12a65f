"""The page: everything a run measured, for a person."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from service.bench.bars import GOODPUT, P50, P99, Verdict, against_peer, best_loop, verdicts
from service.bench.figures import middle
from service.bench.rows import Report, Row
from service.bench.servers import ARMS, OUR_QUEUE, OURS

LOAD_COLUMNS: tuple[tuple[str, str, int], ...] = (
    ("images/s", GOODPUT, 2),
    ("p50 ms", P50, 0),
    ("p99 ms", P99, 0),
    ("rejected", "rejected", 0),
    ("rejected in, p99 ms", "rejected_p99_ms", 1),
    ("errors", "errors", 0),
    ("unanswered", "unanswered", 0),
    ("mean batch", "mean_batch", 1),
    ("live p99 ms", "live_p99_ms", 1),
    ("RSS peak MiB", "rss_peak_mib", 0),
)
NOTHING = "-"


def page(report: Report, plots: Sequence[tuple[str, str]]) -> str:
    """Markdown; ``plots`` are file names beside it under ``plots/``, with titles."""
    parts = [
        "# Serving",
        "Made by `nrp bench`; the rows are in `serving.jsonl`. Ratios are of figures of this one run. A figure is the "
        "median over rounds, in brackets its range.",
        _conditions(report),
        "## Bars",
        _bars(verdicts(report)),
        "Where several rounds were measured each ratio is of medians; the added p50 is the median of the rounds' own "
        "differences. The default purifier is judged by one run of its network (mode `static`), which is what one run "
        "of the published ones is; what its card's mode costs stands below.",
    ]
    parts += [f"![{title}](plots/{name})" for name, title in plots]
    for section in (_load, _drift, _peers, _loop, _single, _soak, _absent):
        parts += section(report)
    return "\n\n".join(parts) + "\n"


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def spread(values: Sequence[float], digits: int) -> str:
    """The median, and the range where there are several."""
    if not values:
        return NOTHING
    text = f"{middle(values):,.{digits}f}"
    return text if len(values) == 1 else f"{text} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"


def _conditions(report: Report) -> str:
    run = report.run
    bfloat16 = "computes in bfloat16" if run.bfloat16 else "does not compute in bfloat16"
    versions = ", ".join(f"{name} {version}" for name, version in run.versions.items())
    return "\n".join(
        (
            f"* `{run.command}`, {run.started}, {run.minutes:.1f} minutes, rounds: {run.rounds}, seed {run.seed}",
            f"* {run.hardware}, {run.cores} cores, {run.threads} threads a model run, {run.device}; it {bfloat16}",
            f"* `{run.purifier}` ({run.sha256[:12]}) in mode `{run.mode}`; the same {run.side}x{run.side} PNG in every "
            "request, PNG out, each arm's first answer compared with the bare model's",
            f"* peers batch up to {run.batch} images and wait 5 ms for them; this service queues up to {OUR_QUEUE}",
            "* peers run the network by PyTorch, eagerly and channels-last, as one would write it; so that serving "
            "alone can be judged, they stand a second time with this engine inside them",
            "* load generator and server share the cores; one server at a time, in another order each round",
            f"* {versions}",
        )
    )


def _bars(judged: Sequence[Verdict]) -> str:
    lines = [
        (one.bar.words, one.bar.text, NOTHING if one.value is None else f"{one.value:.3g}{one.bar.unit}", one.word)
        for one in judged
    ]
    return table(("what", "bar", "measured", "verdict"), lines)


def _load(report: Report) -> list[str]:
    parts = ["## Under load"]
    rows = [row for row in report.rows if row.measure == "load"]
    for setting in dict.fromkeys(row.setting for row in rows):
        arms = [arm for arm in ARMS if any((row.subject, row.setting) == (arm, setting) for row in rows)]
        lines = [
            [ARMS[arm].words, *(spread(report.values("load", arm, setting, key), d) for _, key, d in LOAD_COLUMNS)]
            for arm in arms
        ]
        kind, level, _ = setting.split(" ")
        words = f"Closed loop, clients: {level}" if kind == "closed" else f"Open loop, {level} % of the arm's capacity"
        parts += [f"### {words}", table(["arm", *(head for head, _, _ in LOAD_COLUMNS)], lines)]
    return parts if rows else []


def _drift(report: Report) -> list[str]:
    """Memory at the end of an arm's last phase over that at the end of its first, a round each."""
    lines = []
    for arm in ARMS.values():
        ends: dict[int, list[float]] = {}
        for row in report.rows:
            if (row.measure, row.subject) == ("load", arm.name) and "rss_end_mib" in row.figures:
                ends.setdefault(row.round, []).append(row.figures["rss_end_mib"])
        if ends:
            lines.append((arm.words, spread([known[-1] / known[0] for known in ends.values()], 3)))
    words = "Resident memory of all its processes, at the end of an arm's last phase over that at the end of its first."
    return ["## Drift of memory", words, table(("arm", "drift"), lines)] if lines else []


def _peers(report: Report) -> list[str]:
    lines = [
        (arm.words, f"{ratio:.2f}")
        for arm in ARMS.values()
        if arm.name != OURS and (ratio := against_peer(report, arm.name)) is not None
    ]
    head = ("peer", "our throughput at its p99, over its highest")
    return ["## Beside each peer", table(head, lines)] if lines else []


def _loop(report: Report) -> list[str]:
    best = best_loop(report)
    if best is None:
        return []
    settings = dict.fromkeys(row.setting for row in report.rows if row.measure == "loop")
    lines = [
        [setting, *(spread(report.values("loop", "loop", setting, key), 2) for key in (GOODPUT, P50))]
        for setting in settings
    ]
    words = f"Decode, model, encode, one after the other in one process. Best: {best[0]}."
    return ["## Without HTTP", words, table(("", "images/s", "p50 ms of a batch"), lines)]


def _single(report: Report) -> list[str]:
    rows = [row for row in report.rows if row.measure == "single"]
    lines = [[row.subject, row.setting, *_times(row)] for row in rows]
    head = ("network", "how", "ms an image", "least to most", "runs", "of the matrix rate")
    words = (
        "Batch 1; the authors' way is float32, eager. Operations as PyTorch counts them over a large product's rate."
    )
    return ["## One image", words, table(head, lines)] if rows else []


def _times(row: Row) -> list[str]:
    known = row.figures
    times = f"{known['least_ms']:,.1f} to {known['most_ms']:,.1f}" if "least_ms" in known else NOTHING
    share = f"{known['share_of_matmul']:.0%}" if "share_of_matmul" in known else NOTHING
    return [f"{known['ms']:,.1f}", times, f"{known.get('runs', 1):.0f}", share]


def _soak(report: Report) -> list[str]:
    parts = []
    for row in (row for row in report.rows if row.measure == "soak"):
        known = row.figures
        memory = (
            f"{known['rss_first_mib']:,.0f} MiB after the first 500, {known['rss_end_mib']:,.0f} MiB at the end: "
            f"{known['growth']:.3f}."
            if "growth" in known
            else "This system does not tell how much memory a process holds."
        )
        answered = f"{known['good']:,.0f} of {known['requests']:,.0f} requests of mixed sizes answered well"
        parts += ["## Soak", f"{answered}, {known['errors']:.0f} errors. Resident memory: {memory}"]
    return parts


def _absent(report: Report) -> list[str]:
    lines = [(ARMS[row.subject].words, row.note) for row in report.rows if row.measure == "absent"]
    return ["## Not measured", table(("arm", "why"), lines)] if lines else []
