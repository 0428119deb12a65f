"""The bars, as data, and whether a run meets them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from service.bench.figures import middle
from service.bench.rows import Report
from service.bench.schedule import Phase
from service.bench.servers import BORROWERS, OURS, PEERS

SOAK_REQUESTS = 10_000
GOODPUT, P50, P99 = "goodput_per_s", "p50_ms", "p99_ms"


@dataclass(frozen=True)
class Bar:
    """``least``: the value must be at least ``limit``, else at most."""

    words: str
    limit: float
    least: bool
    unit: str
    measure: Callable[[Report], float | None]

    @property
    def text(self) -> str:
        """The bar as a table has it."""
        return f"{'>=' if self.least else '<='} {self.limit:g}{self.unit}"


@dataclass(frozen=True)
class Verdict:
    """A bar beside what was measured; ``value`` None: the run holds no such measurement."""

    bar: Bar
    value: float | None

    @property
    def met(self) -> bool | None:
        """None where nothing was measured."""
        if self.value is None:
            return None
        return self.value >= self.bar.limit if self.bar.least else self.value <= self.bar.limit

    @property
    def word(self) -> str:
        """For a table."""
        return {True: "met", False: "missed", None: "not measured"}[self.met]


def verdicts(report: Report) -> list[Verdict]:
    """Every bar, judged."""
    return [Verdict(bar, bar.measure(report)) for bar in BARS]


def load(report: Report, arm: str, phase: Phase, figure: str) -> float | None:
    """The median over rounds of a figure under load."""
    return _median(report.values("load", arm, setting_of(phase), figure))


def setting_of(phase: Phase) -> str:
    """What a phase is called in rows."""
    return f"{phase.kind} {phase.name}"


def best_loop(report: Report) -> tuple[str, float] | None:
    """The batch at which the loop without HTTP is fastest, and its images a second: the median over rounds."""
    settings = {row.setting for row in report.rows if row.measure == "loop" and row.subject == "loop"}
    known = {setting: report.values("loop", "loop", setting, GOODPUT) for setting in settings}
    found = {setting: middle(values) for setting, values in known.items() if values}
    return max(found.items(), key=lambda item: item[1]) if found else None


def _median(values: list[float]) -> float | None:
    return middle(values) if values else None


def _against_loop(report: Report) -> float | None:
    ours, loop = load(report, OURS, Phase("closed", 32), GOODPUT), best_loop(report)
    return None if ours is None or loop is None else ours / loop[1]


def _added_ms(report: Report) -> float | None:
    """Round by round, since both move with the machine."""
    ours = dict(report.by_round("load", OURS, setting_of(Phase("closed", 1)), P50))
    alone = dict(report.by_round("loop", "loop", "batch 1", P50))
    return _median([ours[number] - alone[number] for number in ours.keys() & alone.keys()])


def points(report: Report, arm: str) -> list[tuple[float, float]]:
    """(p99, goodput) of an arm's phases, medians over rounds, by p99."""
    settings = dict.fromkeys(row.setting for row in report.rows if row.measure == "load" and row.subject == arm)
    found = []
    for setting in settings:
        p99s, goods = (report.values("load", arm, setting, figure) for figure in (P99, GOODPUT))
        if p99s and goods:
            found.append((middle(p99s), middle(goods)))
    return sorted(found)


def throughput_at(known: list[tuple[float, float]], p99: float) -> float:
    """The most throughput with that p99 or less, linear between measured points; 0 below the least p99 measured."""
    best, before = 0.0, None
    for at, throughput in known:
        if at <= p99:
            best = max(best, throughput)
            before = (at, best)
        elif before is not None and throughput > best:
            return best + (throughput - best) * (p99 - before[0]) / (at - before[0])
    return best


def against_peer(report: Report, peer: str) -> float | None:
    """Our throughput over the peer's highest, ours taken at the p99 that the peer has there."""
    ours, theirs = points(report, OURS), points(report, peer)
    if not ours or not theirs:
        return None
    p99, throughput = max(theirs, key=lambda point: point[1])
    return throughput_at(ours, p99) / throughput if throughput else None


def _against_best(peers: Sequence[str]) -> Callable[[Report], float | None]:
    def measure(report: Report) -> float | None:
        return min((ratio for peer in peers if (ratio := against_peer(report, peer)) is not None), default=None)

    return measure


def _overload_share(report: Report) -> float | None:
    return _median(report.values("load", OURS, setting_of(Phase("open", 200)), "share_of_capacity"))


def _rejection_ms(report: Report) -> float | None:
    """Infinity stands for a rejection that does not say when to come back; JSON never sees it."""
    setting = setting_of(Phase("open", 200))
    if any(report.values("load", OURS, setting, "rejected_without_retry_after")):
        return float("inf")
    return _median(report.values("load", OURS, setting, "rejected_p99_ms"))


def _live_ms(report: Report) -> float | None:
    """The worst phase under full load."""
    rows = [row for row in report.rows if (row.measure, row.subject) == ("load", OURS)]
    full = {row.setting for row in rows if row.figures.get("full_load")}
    found = [middle(values) for name in full if (values := report.values("load", OURS, name, "live_p99_ms"))]
    return max(found, default=None)


def _speedup(theirs: str, ours: str) -> Callable[[Report], float | None]:
    """Milliseconds of network ``theirs`` as its authors run it, over those of ``ours`` through this engine."""

    def measure(report: Report) -> float | None:
        slow, fast = report.values("single", theirs, "authors", "ms"), report.values("single", ours, "ours", "ms")
        return middle(slow) / middle(fast) if slow and fast else None

    return measure


def _gpu_share(report: Report) -> float | None:
    if not report.run.device.startswith("cuda"):
        return None
    return _median(report.values("single", "nrp", "ours, batch", "share_of_matmul"))


def _growth(report: Report) -> float | None:
    enough = any(count >= SOAK_REQUESTS for count in report.values("soak", OURS, "mixed sizes", "good"))
    return _median(report.values("soak", OURS, "mixed sizes", "growth")) if enough else None


BARS = (
    Bar("throughput at 32 clients over the loop without HTTP at its best batch", 0.90, True, "", _against_loop),
    Bar("p50 at 1 client, added to decode + model + encode", 3.0, False, " ms", _added_ms),
    Bar("our throughput at the p99 of the best peer, over that peer's", 1.3, True, "", _against_best(PEERS)),
    Bar("the same where the peers run this engine", 1.3, True, "", _against_best(BORROWERS)),
    Bar("goodput at 200 % offered load over capacity", 0.95, True, "", _overload_share),
    Bar("rejected at 200 % with 429 and Retry-After, p99", 50.0, False, " ms", _rejection_ms),
    Bar("/health/live under full load, p99 of the worst phase", 20.0, False, " ms", _live_ms),
    Bar("default purifier against nrp_resg as its authors run it", 50.0, True, "x", _speedup("nrp_resg", "default")),
    Bar("default purifier against nrp as its authors run it", 400.0, True, "x", _speedup("nrp", "default")),
    Bar("nrp_resg through this engine against eager float32", 2.5, True, "x", _speedup("nrp_resg", "nrp_resg")),
    Bar("nrp through this engine against eager float32", 2.0, True, "x", _speedup("nrp", "nrp")),
    Bar("GPU: nrp, share of the measured matrix rate", 0.5, True, "", _gpu_share),
    Bar(f"memory after {SOAK_REQUESTS:,} mixed sizes over that after the first 500", 1.05, False, "", _growth),
)  # fmt: skip
