"""What the arms share, on the tiny store; and the measurements that run in processes of their own."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest
import torch

from service.bench import loop, single
from service.bench.arms.plain import create_app
from service.bench.purification import Purification, pixels_of
from service.bench.rows import Row
from service.bench.task import Task
from service.bench.trial import difference


@pytest.fixture
def plain(store_root: Path) -> Task:
    return Task(store=store_root, purifier="plain", side=16, threads=1)


def test_the_peers_batches_hold_as_many_pixels_as_ours(plain: Task) -> None:
    assert plain.model_copy(update={"side": 224}).batch == 20
    assert plain.model_copy(update={"side": 16}).batch == 32
    assert plain.model_copy(update={"side": 2048}).batch == 1


def test_the_identity_gives_back_the_picture(plain: Task) -> None:
    purification = Purification(plain)
    assert difference(purification.one(plain.image()), plain.image()) == 0
    pixels = pixels_of(plain.image())
    assert [torch.equal(pixels, one) for one in purification.run([pixels, pixels])] == [True, True]


def test_plain_fastapi_answers_an_image_and_a_probe(plain: Task) -> None:
    app = create_app(Purification(plain), 1)

    async def ask() -> tuple[httpx.Response, httpx.Response]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            return await client.post("/purify", content=plain.image()), await client.get("/health")

    answer, health = asyncio.run(ask())
    assert difference(answer.content, plain.image()) == 0
    assert health.status_code == 200


def rows_of(path: Path) -> list[Row]:
    return [Row.model_validate_json(line) for line in path.read_text().splitlines()]


def test_the_loop_measures_every_batch_and_leaves_its_answer(
    plain: Task, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(loop, "received_task", lambda: plain)
    loop.main(0.0, tmp_path / "loop.jsonl")
    rows = rows_of(tmp_path / "loop.jsonl")
    assert [row.setting for row in rows] == [f"batch {batch}" for batch in loop.BATCHES]
    assert all(row.figures["goodput_per_s"] > 0 and row.figures["p50_ms"] > 0 for row in rows)
    assert difference((tmp_path / "loop.png").read_bytes(), plain.image()) == 0


def test_one_image_is_timed_both_ways(plain: Task, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(single, "received_task", lambda: plain)
    monkeypatch.setattr(single, "PUBLISHED", ("nrp_resg",))
    monkeypatch.setattr(single, "MATRIX", 256)
    single.main(0.0, tmp_path / "single.jsonl")
    rows = rows_of(tmp_path / "single.jsonl")
    assert [(row.subject, row.setting) for row in rows] == [
        ("default", "ours"),
        ("default", "ours, its card's mode"),
        ("nrp_resg", "authors"),
        ("nrp_resg", "ours"),
        ("nrp_resg", "ours, batch"),
    ]
    assert all(row.figures["ms"] > 0 for row in rows)
    share = rows[-1].figures
    assert share["share_of_matmul"] == pytest.approx(share["operations_per_s"] / share["matmul_per_s"])
    assert share["operations_per_s"] * share["ms"] / 1000 > 1e8  # 16 x 16 pixels through a million weights, twice
