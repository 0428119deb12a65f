"""From single answers to figures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

UNANSWERED = 0


@dataclass(frozen=True)
class Sample:
    """One request. Seconds on one clock; ``due`` is when it should have been sent, in a closed loop when it was.

    ``status`` 0: no answer. ``good``: 200 with a PNG. ``says_when``: it carries Retry-After.
    """

    due: float
    ended: float
    status: int
    good: bool = False
    says_when: bool = False
    counts: bool = True

    @property
    def milliseconds(self) -> float:
        """From when it was due to its end."""
        return 1000 * (self.ended - self.due)


def percentile(values: Sequence[float], share: float) -> float:
    """The least value that ``share`` percent of ``values`` do not exceed. Raises ValueError for none."""
    if not values:
        raise ValueError("there is no percentile of nothing")
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share / 100 * len(ordered)) - 1)]


def summary(samples: Sequence[Sample], begun: float, seconds: float, *, busy: bool) -> dict[str, float]:
    """Figures of one phase that lasted ``seconds`` from ``begun``.

    Goodput counts what was answered well before the end. Where the server was ``busy`` throughout, the time is that
    up to the last answer, because a batch that is half done at the end would else count as idleness; one so slow that
    nothing was answered by then is given until its last answer. Latencies are of every good answer to requests that
    count, also after the end.
    """
    in_time = [sample.ended for sample in samples if sample.good and sample.ended <= begun + seconds]
    if busy and not in_time:
        in_time = [sample.ended for sample in samples if sample.good]
    span = max(in_time) - begun if busy and in_time else seconds
    good = [sample.milliseconds for sample in samples if sample.good and sample.counts]
    rejected = [sample for sample in samples if sample.status == 429]
    quick = [sample.milliseconds for sample in rejected if sample.counts]
    figures = {
        "requests": float(len(samples)),
        "good": float(sum(sample.good for sample in samples)),
        "goodput_per_s": len(in_time) / span,
        "rejected": float(len(rejected)),
        "rejected_without_retry_after": float(sum(not sample.says_when for sample in rejected)),
        "unanswered": float(sum(sample.status == UNANSWERED for sample in samples)),
        "seconds": seconds,
    }
    figures["errors"] = figures["requests"] - sum(figures[name] for name in ("good", "rejected", "unanswered"))
    figures |= {f"p{share}_ms": percentile(good, share) for share in (50, 99) if good}
    return figures | ({"rejected_p99_ms": percentile(quick, 99)} if quick else {})


def middle(values: Iterable[float]) -> float:
    """The median."""
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2
