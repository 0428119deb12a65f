from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from service import workbench
from service.engine import Engine
from service.options import PurifyQuery
from service.pipeline import make_order
from service.workbench import Done, Failed, Workbench


@pytest.fixture
def album(tmp_path: Path, photo: Any, file_of: Any) -> list[Path]:
    """Five photos of 20 x 20 and, in the middle, a file that is no image."""
    paths = [tmp_path / f"{number}.png" for number in range(6)]
    for number, path in enumerate(paths):
        path.write_bytes(b"no image" if number == 3 else file_of(photo(20, 20, seed=number)))
    return paths


@pytest.mark.parametrize(("window_pixels", "largest"), [(1, 1), (800, 2), (10**6, 5)])
def test_no_more_is_decoded_ahead_than_a_window_holds(
    settings_for: Any, album: list[Path], monkeypatch: pytest.MonkeyPatch, window_pixels: int, largest: int
) -> None:
    monkeypatch.setattr(workbench, "WINDOW_PIXELS", window_pixels)
    engine = Engine(settings_for(), tasks=())
    ran: list[int] = []
    run = engine.run
    monkeypatch.setattr(engine, "run", lambda jobs: ran.append(len(jobs)) or run(jobs))
    bench = Workbench(engine, threads=2, max_pixels=1000)
    outcomes = list(bench.outcomes(album, make_order(engine, 16, PurifyQuery()), None))
    bench.close()
    assert sorted(o.source for o in outcomes if isinstance(o, Done)) == [album[n] for n in (0, 1, 2, 4, 5)]
    assert [o.source for o in outcomes if isinstance(o, Failed)] == [album[3]]
    assert max(ran) == largest
    assert sum(ran) == 5
