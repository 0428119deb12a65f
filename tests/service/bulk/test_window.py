from __future__ import annotations

import asyncio
from contextlib import aclosing
from functools import partial
from typing import Any

import pytest

from service.bulk.window import Share, in_window


def test_results_come_in_order_whatever_ends_first_and_no_more_than_the_window_is_begun() -> None:
    begun: list[int] = []
    taken: list[int] = []

    async def piece(number: int) -> int:
        begun.append(number)
        assert len(begun) - len(taken) <= 3
        await asyncio.sleep(0.002 * (number % 3 == 0))
        return number

    async def main() -> None:
        async with aclosing(in_window([partial(piece, number) for number in range(10)], 3)) as results:
            async for result in results:
                taken.append(result)

    asyncio.run(main())
    assert taken == list(range(10))


@pytest.mark.parametrize("leave", ["break", "cancel", "raise"])
def test_whatever_ends_it_nothing_goes_on(leave: str) -> None:
    ended: list[int] = []

    async def piece(number: int) -> int:
        try:
            await asyncio.sleep(0 if number == 0 else 10)
        finally:
            await asyncio.sleep(0)
            ended.append(number)
        if leave == "raise":
            raise ValueError(number)
        return number

    async def take() -> None:
        async with aclosing(in_window([partial(piece, number) for number in range(9)], 3)) as results:
            async for _ in results:
                if leave == "break":
                    return

    async def main() -> None:
        task = asyncio.create_task(take())
        await asyncio.wait([task], timeout=0.05)
        task.cancel()
        (outcome,) = await asyncio.gather(task, return_exceptions=True)
        assert isinstance(outcome, {"break": type(None), "cancel": asyncio.CancelledError, "raise": ValueError}[leave])
        assert sorted(ended) == [0, 1, 2] if leave != "cancel" else [0, 1, 2, 3]
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())


def test_a_share_is_not_exceeded_but_by_one_alone() -> None:
    share = Share(10)
    most: list[int] = []

    async def hold(amount: int) -> None:
        async with share.holding(amount):
            most.append(share.held)
            assert share.held <= 10 or share.held == amount
            await asyncio.sleep(0.001)

    async def main() -> Any:
        async with asyncio.timeout(5):
            await asyncio.gather(*map(hold, (4, 4, 4, 25, 10, 1, 9)))

    asyncio.run(main())
    assert max(most) == 25
    assert share.held == 0


def test_who_gives_up_waiting_holds_nothing() -> None:
    async def main() -> None:
        share = Share(10)
        async with share.holding(8):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01), share.holding(8):
                    raise AssertionError
            assert share.held == 8
        assert share.held == 0

    asyncio.run(main())
