"""The one thread that owns the device.

An executor of one thread would not do: when its thread dies it says nothing, and what it was given waits for ever.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, TypeVar

import structlog

from service.errors import EngineStoppedError
from service.priority import step_back

T = TypeVar("T")

log = structlog.get_logger()


class DeviceThread:
    """Runs what it is given in order. However it ends, everything it was given is answered.

    A daemon: a device that hangs for ever must not keep the process from ending.
    """

    def __init__(self) -> None:
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._unanswered: set[Future[Any]] = set()
        self._ended = False
        self._thread = threading.Thread(target=self._live, name="device", daemon=True)

    @property
    def alive(self) -> bool:
        """True until the thread has ended; then every submit raises EngineStoppedError. It begins when needed."""
        return not self._ended and (self._thread.ident is None or self._thread.is_alive())

    @property
    def ident(self) -> int | None:
        """The thread's identifier; None before it began."""
        return self._thread.ident

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Queue ``work``. Raises EngineStoppedError once the thread has ended or was told to."""
        future: Future[T] = Future()
        with self._lock:
            if not self.alive:
                raise EngineStoppedError("the thread that owns the device has ended; restart the service")
            if self._thread.ident is None:
                self._thread.start()
            self._unanswered.add(future)
        self._queue.put(lambda: self._run(future, work))
        return future

    def stop(self) -> None:
        """Take no more work and end after what is running; what waits is answered with EngineStoppedError."""
        with self._lock:
            self._ended = True
        self._queue.put(None)

    def _live(self) -> None:
        step_back()
        try:
            while (task := self._queue.get()) is not None and not self._ended:
                task()
                del task  # what it held must not stay until the next one comes
        except BaseException:  # shows in ``alive``; its reason belongs in the log
            log.exception("device_thread_died")
        finally:
            self._end()

    def _run(self, future: Future[T], work: Callable[[], T]) -> None:
        if future.set_running_or_notify_cancel():
            try:
                result = work()
            except Exception as error:  # noqa: BLE001 - it is handed to whoever gave the work
                future.set_exception(error)
            else:
                future.set_result(result)
        with self._lock:
            self._unanswered.discard(future)

    def _end(self) -> None:
        with self._lock:
            self._ended = True
            left, self._unanswered = self._unanswered, set()
        for future in left:
            with suppress(InvalidStateError):  # answered or cancelled already
                future.set_exception(EngineStoppedError("the thread that owns the device ended before this was done"))
