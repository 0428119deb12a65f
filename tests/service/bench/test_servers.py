from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from service.bench.connection import Request, upload
from service.bench.errors import BenchError
from service.bench.processes import can_watch, end, family, resident_bytes
from service.bench.servers import ARMS, OURS, ROOT, Arm, Server, absent, environment, free_port, mean_batch
from service.bench.task import Task, received_task

needs_proc = pytest.mark.skipif(not can_watch(), reason="this system does not tell about its processes")


def test_a_server_answers_is_watched_and_leaves_nothing_behind(fake_server: Callable[[], Server]) -> None:
    with fake_server() as server:
        assert server.wait_until(upload("/purify", b"image"), 60) == b"image"
        assert "nrp_batch_images_count 1" in server.metrics()
        seen = server.processes()
    if can_watch():
        assert len(seen) == 2  # the child has a session of its own, as those of Ray do
        assert resident_bytes(seen) > 1 << 20
    assert not any(family(process.pid) for process in seen)


def test_a_server_that_ends_while_it_starts_is_reported_with_its_last_words(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('no such weights')"]
    with (
        Server("the fake", command, environment(None), free_port(), tmp_path / "log") as server,
        pytest.raises(BenchError, match="the fake ended while it started: no such weights"),
    ):
        server.wait_until(Request("GET", "/"), 60)


def test_a_server_that_never_listens_is_given_up(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    with (
        Server("the fake", command, environment(None), free_port(), tmp_path / "log") as server,
        pytest.raises(BenchError, match=r"did not answer within 0\.3 s"),
    ):
        server.wait_until(Request("GET", "/"), 0.3)


@needs_proc
def test_this_process_is_of_its_own_family() -> None:
    mine = family(os.getpid())
    assert mine[0].pid == os.getpid()
    assert mine[0].parent == os.getppid()
    assert family(2**30) == []


@needs_proc
def test_a_number_that_now_belongs_to_another_process_is_left_alone() -> None:
    (mine, *_) = family(os.getpid())
    older = type(mine)(mine.pid, mine.parent, mine.started - 1, mine.resident_pages)
    assert end([older]) == []


def test_a_peer_that_is_not_installed_is_told_how_to_be() -> None:
    assert absent(Arm("x", "x", "x", package="nrp-no-such-package"), None).startswith("not installed: pip install")
    assert absent(Arm("x", "x", "x", package="pillow"), None) == ""
    assert absent(ARMS[OURS], None) == ""


def test_a_peer_may_live_in_a_folder_of_its_own(tmp_path: Path) -> None:
    info = tmp_path / "nrp_made_up-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: nrp-made-up\nVersion: 1.0\n")
    arm = Arm("x", "x", "x", package="nrp-made-up")
    assert absent(arm, None)
    assert absent(arm, tmp_path) == ""


def test_servers_see_the_task_and_no_settings_of_the_service_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NRP_PORT", "1")
    task = Task(store=Path("somewhere"), purifier="plain", side=64, threads=3)
    seen = environment(None, **task.environment())
    assert "NRP_PORT" not in seen
    assert received_task(seen) == task
    assert seen["PYTHONPATH"].split(os.pathsep)[0] == str(ROOT)


def test_only_this_service_is_told_the_mode_in_the_request(task: Task) -> None:
    assert ARMS[OURS].upload(task, b"x").path == "/purify?mode=static&seed=0"
    assert ARMS["mosec"].upload(task, b"x").path == "/purify"
    assert b'name="image"' in ARMS["bentoml"].upload(task, b"x").body


@pytest.mark.parametrize("arm", [arm for arm in ARMS.values() if arm.name != OURS], ids=lambda arm: arm.name)
def test_every_peer_has_a_file_that_is_run(arm: Arm) -> None:
    assert (ROOT / f"{arm.module.replace('.', '/')}.py").is_file()


def test_the_mean_batch_is_that_between_two_readings() -> None:
    before = 'b_sum{x="1"} 10.0\nb_count{x="1"} 10.0\nb_sum_other 5\n'
    after = 'b_sum{x="1"} 40.0\nb_count{x="1"} 15.0\nb_sum{x="2"} 10.0\nb_count{x="2"} 5.0\n'
    assert mean_batch(before, after, "b") == pytest.approx(4.0)
    assert mean_batch(after, after, "b") is None
    assert mean_batch(before, after, "") is None


@pytest.mark.slow
@pytest.mark.parametrize("arm", ARMS.values(), ids=lambda arm: arm.name)
def test_every_arm_that_is_installed_purifies_and_stops(
    arm: Arm, store_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NRP_CLASSIFIER", "tiny")
    peers = Path(os.environ["NRP_BENCH_PEERS"]) if "NRP_BENCH_PEERS" in os.environ else None
    if why := absent(arm, peers):
        pytest.skip(why)
    task = Task(store=store_root, purifier="plain", side=32, threads=1)
    with Server.of(arm, task, peers, tmp_path / "log") as server:
        answer = server.wait_until(arm.upload(task, task.image()))
        seen = server.processes()
    assert answer.startswith(b"\x89PNG")
    assert not any(family(process.pid) for process in seen)
