"""The response that is sent while its images are being purified: what has been sent need not be held any more."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from functools import partial

from fastapi import Request, Response
from starlette.types import Receive, Scope, Send

from service.answers import SuspicionReport
from service.bulk.answers import BatchItem, BatchTotals, ItemProblem
from service.bulk.items import PIXEL_SHARES, WINDOW, Purified, Run
from service.bulk.names import shown
from service.bulk.packing import Packing
from service.bulk.window import Share, in_window
from service.connection import while_connected
from service.errors import ClientDisconnectedError, http_meaning
from service.pipeline import Order
from service.problems import item_problem
from service.record import record_of
from service.state import ServiceState
from service.upload import Upload

OK = 200


class BatchResponse(Response):
    """200 whatever becomes of each image: the status goes out with the first of them.

    Nothing is sent before that, so a client that has gone by then is logged as 499 like any other. When it goes
    later, or the service has a defect, the answer ends early, and neither a zip nor JSON can be read without its end.
    """

    def __init__(
        self,
        request: Request,
        state: ServiceState,
        order: Order,
        uploads: Sequence[Upload],
        names: Sequence[str],
        packing: Packing,
    ) -> None:
        self.status_code = OK
        self.media_type = packing.media_type
        self.background = None
        self.init_headers(
            {
                "X-NRP-Purifier": order.card.name,
                "X-Content-Type-Options": "nosniff",
                "Cache-Control": "no-store",
                "Vary": "Accept",
                **packing.headers,
            }
        )
        self._request = request
        self._state = state
        self._order = order
        self._uploads = uploads
        self._names = names
        self._packing = packing
        self._facts = record_of(request.scope).facts
        self._begun = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - the request's own
        order = self._order
        self._facts.update(
            purifier=order.card.name, mode=order.mode.name, draws=order.mode.mode.draws, seed=order.seed,
            images=len(self._uploads),
        )  # fmt: skip
        try:
            await while_connected(self._request, self._send_all(send))
        except ClientDisconnectedError:
            if not self._begun:
                raise
            self._facts["problem"] = http_meaning(ClientDisconnectedError("")).slug
        finally:
            self._packing.close()

    async def _send_all(self, send: Send) -> None:
        state, within_s = self._state, self._state.settings.request_timeout_s
        share = Share(state.settings.max_pixels_in_flight // PIXEL_SHARES)
        run = Run(state, self._order, share, asyncio.get_running_loop().time() + within_s, within_s)
        pieces = [partial(run.item, place, upload.data) for place, upload in enumerate(self._uploads)]
        failed = 0
        async with aclosing(in_window(pieces, WINDOW)) as results:
            place = 0
            async for result in results:
                item = self._item(place, result)
                purified = None if isinstance(result, Exception) else result
                failed += purified is None
                await self._send(send, await state.codec.run(self._packing.add, item, purified))
                place += 1
        self._facts["failed"] = failed
        totals = BatchTotals(succeeded=len(self._uploads) - failed, failed=failed)
        await self._send(send, await state.codec.run(self._packing.end, totals), last=True)

    async def _send(self, send: Send, data: bytes, *, last: bool = False) -> None:
        if not self._begun:
            self._begun = True
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": data, "more_body": not last})

    def _item(self, place: int, result: Purified | Exception) -> BatchItem:
        file = shown(self._uploads[place].name)
        if isinstance(result, Exception):
            problem = ItemProblem(**item_problem(self._request.scope, result), file=file)
            return BatchItem(file=file, status=problem.status, problem=problem)
        return BatchItem(
            file=file,
            status=OK,
            name=self._names[place],
            suspicion=SuspicionReport.of(result.suspicion),
            timings_ms=result.timings.stages,
        )
