"""One image of many: purified as it would be alone, when there is room for it, and failing alone."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

import structlog

from model_store.errors import NrpError
from service.bulk.window import Share
from service.errors import DeadlineExceededError, OverloadedError
from service.images import OpenedImage, open_image
from service.options import SEED_BITS
from service.pipeline import Order, Outcome, Timings, answer_image, measure
from service.state import ServiceState
from service.suspicion import Suspicion

# Images of one request that are in progress or done and not yet sent: some on the device while others are decoded and
# encoded. It is also the most that whoever comes next may find ahead of it in the queue.
WINDOW = 8
# One request may hold this part of the decoded pixels of all requests (one image may be more), so others find room.
PIXEL_SHARES = 4
RETRY_S = 0.5

log = structlog.get_logger()


@dataclass(frozen=True)
class Purified:
    """One purified image as a file, and what is told of it."""

    file: bytes
    width: int
    height: int
    suspicion: Suspicion
    timings: Timings


@dataclass(frozen=True)
class Run:
    """What the images of one request have in common. ``deadline``: in event loop time."""

    state: ServiceState
    order: Order
    share: Share
    deadline: float
    within_s: float

    async def item(self, place: int, data: bytes) -> Purified | Exception:
        """The image in that place, with seed + place, or why there is none. Whatever goes wrong is this image's."""
        order = replace(self.order, seed=(self.order.seed + place) % 2**SEED_BITS)
        try:
            return await self._in_time(order, data)
        except NrpError as error:
            return error
        except Exception as error:  # one image's defect must not take the others' answers away
            log.exception("batch_item_failed", place=place)
            return error

    async def _in_time(self, order: Order, data: bytes) -> Purified:
        try:
            async with asyncio.timeout_at(self.deadline):
                opened: OpenedImage = await self.state.codec.run(open_image, data, self.state.settings.max_pixels)
                charged = opened.charge
                del opened  # Pillow holds more than the header
                async with self.share.holding(charged):
                    return await self._with_patience(order, data)
        except TimeoutError as error:
            raise DeadlineExceededError(
                f"the request's {self.within_s:g} s were over before this image's turn; send fewer at a time"
            ) from error

    async def _with_patience(self, order: Order, data: bytes) -> Purified:
        """Purify as soon as the service has room: an image that waits here holds nothing but its file."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                return self._conclude(await answer_image(self.state, order, data, self.deadline, {}))
            except OverloadedError:
                if loop.time() + RETRY_S >= self.deadline:
                    raise
            await asyncio.sleep(RETRY_S)

    def _conclude(self, outcome: Outcome) -> Purified:
        """Keep the file and let the pixels go: it may have to wait for its turn to be sent."""
        measure(self.state, outcome.timings, [outcome.suspicion])
        return Purified(outcome.file or b"", outcome.width, outcome.height, outcome.suspicion, outcome.timings)
