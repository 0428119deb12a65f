"""The threads that decode and encode, so that the event loop never does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from service.priority import step_back

P = ParamSpec("P")
R = TypeVar("R")


class Codec:
    """A small pool of worker threads."""

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="codec", initializer=step_back)

    async def run(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run ``work`` in a worker thread.

        A cancelled call returns only when its thread is done with the pixels: a caller gives its admission back
        in ``finally``, and memory that is still in use must not be given to the next.
        """
        job = self._pool.submit(work, *args, **kwargs)
        done = asyncio.wrap_future(job)
        try:
            return await asyncio.shield(done)
        except asyncio.CancelledError:
            if not job.cancel():
                await asyncio.wait([done])
            raise

    def close(self) -> None:
        """Stop the threads; work not yet begun is dropped."""
        self._pool.shutdown(wait=False, cancel_futures=True)
