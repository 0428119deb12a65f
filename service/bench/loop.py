"""The work without HTTP, in a process of its own: the reference that serving is measured against."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from service.bench.figures import middle
from service.bench.purification import Purification, file_of, pixels_of
from service.bench.rows import Row, write_whole
from service.bench.task import received_task

BATCHES = (1, 2, 4, 8, 16, 32)


def measure(purification: Purification, image: bytes, batch: int, seconds: float) -> dict[str, float]:
    """Decode ``batch`` files, run them together, encode them, one after the other, for about ``seconds``."""
    begun = time.perf_counter()
    took: list[float] = []
    while not took or time.perf_counter() - begun < seconds:
        since = time.perf_counter()
        pixels = purification.run([pixels_of(image) for _ in range(batch)])
        for one in pixels:
            file_of(one)
        took.append(time.perf_counter() - since)
    total = time.perf_counter() - begun
    return {"goodput_per_s": batch * len(took) / total, "p50_ms": 1000 * middle(took), "runs": float(len(took))}


def main(seconds: float, target: Path) -> None:
    """Rows into ``target``, a line a batch; the reference answer beside it as a PNG file."""
    task = received_task()
    image, purification = task.image(), Purification(task)
    write_whole(target.with_suffix(".png"), purification.one(image))
    sizes = [batch for batch in BATCHES if batch <= max(1, task.batch)]
    rows = [
        Row(measure="loop", subject="loop", setting=f"batch {batch}", figures=measure(purification, image, batch, each))
        for batch, each in zip(sizes, [seconds / len(sizes)] * len(sizes), strict=True)
    ]
    write_whole(target, "".join(f"{row.model_dump_json()}\n" for row in rows).encode())


if __name__ == "__main__":
    main(float(sys.argv[1]), Path(sys.argv[2]))
