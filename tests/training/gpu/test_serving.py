"""Serving is timed: which rows there are, what they say, and what there was no time for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from training.gpu import serving
from training.gpu.pipeline import overlapped, pinned
from training.gpu.serving import Case, Sizes, main

ARGUMENTS: dict[str, object] = {"widths": [8, 8], "encoder": [1, 1], "decoder": [1]}
CPU = torch.device("cpu")


@pytest.fixture
def manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(serving, "TOY", Sizes(16, (1, 2), 2, matrix=16, first_compile=0.0))
    facts = {"code_revision": "abc", "serving": {"tiny": {"architecture": "nrp_lite", "arguments": ARGUMENTS}}}
    (tmp_path / "manifest.json").write_text(json.dumps(facts))
    return tmp_path / "manifest.json"


def timed(manifest: Path, minutes: float) -> list[dict[str, Any]]:
    rows = manifest.parent / "rows.jsonl"
    words = [manifest, "--rows", rows, "--device", "cpu", "--toy", "--minutes", minutes]
    assert main([str(word) for word in words]) == 0
    return [json.loads(line) for line in rows.read_text().splitlines()]


def test_every_variant_has_a_row_at_every_batch(manifest: Path) -> None:
    rows = timed(manifest, 5.0)
    for row in rows:
        assert row["kind"] == "serving"
        assert row["commit"] == "abc"
        assert row["torch_version"] == torch.__version__
        assert row["device"].startswith("CPU")
    assert rows[0]["network"] == "matrix product"
    found = {(row["batch"], row["variant"]) for row in rows[1:]}
    expected = ("service", "eager", "graph", "fastest, pinned", "fastest, pinned, overlapped", "compiled")
    assert found == {(batch, v) for batch in (1, 2) for v in (*expected, "eager beside compiled")}
    measured = [row for row in rows[1:] if "missing" not in row]
    assert all(row["milliseconds"] > 0 and row["share of the matrix rate"] > 0 for row in measured)
    assert {row["variant"] for row in rows[1:] if "missing" in row} == {"graph"}


def test_without_time_the_rows_say_so(manifest: Path) -> None:
    rows = timed(manifest, 0.0)
    assert {row["variant"]: row["missing"] for row in rows[1:]} == {"compiled": "no time left"}


def test_a_network_that_cannot_be_compiled_costs_one_row(manifest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> object:
        def run(_: object) -> object:
            raise RuntimeError("no code for this\nand more")

        return run

    monkeypatch.setattr(serving.torch, "compile", refuse)
    rows = timed(manifest, 5.0)
    assert [row["missing"] for row in rows if row.get("variant") == "compiled"] == [
        "RuntimeError: no code for this"
    ] * 2


def test_a_missing_manifest_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "manifest.json"), "--rows", str(tmp_path / "rows")]) == 1
    assert "make gpu-pack" in capsys.readouterr().err


def test_operations_are_counted_without_running() -> None:
    case = Case("tiny", "nrp_lite", ARGUMENTS, 1)
    assert case.operations(16) > 0
    assert Case("tiny", "nrp_lite", ARGUMENTS, 3).operations(16) == 3 * case.operations(16)


@pytest.mark.parametrize("way", [pinned, overlapped])
def test_bytes_go_through_and_come_back(way: Any) -> None:
    host = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    assert torch.equal(way(lambda images: 1 - images, host, CPU)(), 255 - host)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu_overlapped_batches_come_back_right_and_a_graph_gives_what_it_recorded() -> None:
    cuda = torch.device("cuda")
    host = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    run = overlapped(lambda images: 1 - images, host, cuda)
    for _ in range(5):
        answer = run()
    torch.cuda.synchronize()
    assert torch.equal(answer, 255 - host)
    with torch.inference_mode():
        replay = serving.graphed(lambda images: 2 * images, torch.zeros(1, 3, 8, 8, device=cuda))
        fresh = torch.rand(1, 3, 8, 8, device=cuda)
        assert torch.equal(replay(fresh), 2 * fresh)
