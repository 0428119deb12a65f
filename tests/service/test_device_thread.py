from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from typing import Any

import pytest

from service.device_thread import DeviceThread
from service.errors import EngineStoppedError


def until_dead(thread: DeviceThread) -> None:
    give_up = time.monotonic() + 10
    while thread.alive:
        assert time.monotonic() < give_up
        time.sleep(0.001)


def test_everything_runs_in_order_on_one_thread() -> None:
    thread = DeviceThread()
    assert thread.ident is None
    done = [thread.submit(lambda n=n: (n, threading.get_ident())) for n in range(20)]
    assert [future.result(10) for future in done] == [(n, thread.ident) for n in range(20)]
    thread.stop()


def test_what_work_raises_is_its_own_and_the_thread_goes_on() -> None:
    thread = DeviceThread()
    with pytest.raises(ZeroDivisionError):
        thread.submit(lambda: 1 / 0).result(10)
    assert thread.submit(lambda: 1).result(10) == 1
    thread.stop()


def test_cancelled_work_does_not_run() -> None:
    thread, gate, ran = DeviceThread(), threading.Event(), []
    first = thread.submit(lambda: gate.wait(10))
    second = thread.submit(lambda: ran.append(2))
    assert second.cancel()
    gate.set()
    assert first.result(10)
    assert thread.submit(lambda: 3).result(10) == 3
    assert ran == []
    thread.stop()


@pytest.mark.parametrize("killer", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_when_the_thread_is_killed_everything_it_was_given_is_answered(killer: type[BaseException]) -> None:
    thread, gate = DeviceThread(), threading.Event()

    def killed() -> None:
        gate.wait(10)
        raise killer

    given: list[Future[Any]] = [thread.submit(killed), *(thread.submit(lambda: 1) for _ in range(5))]
    gate.set()
    for future in given:
        with pytest.raises(EngineStoppedError):
            future.result(10)
    until_dead(thread)
    with pytest.raises(EngineStoppedError):
        thread.submit(lambda: 1)


def test_stop_ends_after_what_runs_and_answers_what_waits() -> None:
    thread, entered, gate = DeviceThread(), threading.Event(), threading.Event()

    def busy() -> bool:
        entered.set()
        return gate.wait(10)

    running, waiting = thread.submit(busy), thread.submit(lambda: 1)
    assert entered.wait(10)
    thread.stop()
    with pytest.raises(EngineStoppedError):
        thread.submit(lambda: 1)
    gate.set()
    assert running.result(10)
    with pytest.raises(EngineStoppedError):
        waiting.result(10)
    until_dead(thread)
