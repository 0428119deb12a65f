"""One question to a remote model: an image encoded, sent, and the answer read, in the protocol that it speaks."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from functools import partial

from torch import Tensor

from service.codec import Codec
from service.errors import BadGatewayError, DeadlineExceededError
from service.images import encode
from service.remote import oip, plain
from service.remote.attempt import Call
from service.remote.caller import RemoteCaller
from service.remote.model import RemoteModel
from service.remote.said import Said
from service.remote.signature import Signature, read_extensions, read_signature


class Asker(ABC):
    """Asks ``model`` about images, uint8 (3, H, W)."""

    def __init__(self, model: RemoteModel, caller: RemoteCaller, codec: Codec) -> None:
        self.model = model
        self.caller = caller
        self._codec = codec

    @abstractmethod
    async def ask(self, pixels: Tensor, deadline: float) -> Said:
        """What the model says. Raises what ``RemoteCaller.ask`` raises."""

    @abstractmethod
    async def greet(self, pixels: Tensor, deadline: float) -> None:
        """Find out, in one attempt, whether it answers. Raises the same."""


class PlainAsker(Asker):
    """Image in, JSON out."""

    async def ask(self, pixels: Tensor, deadline: float) -> Said:
        return await self._ask(pixels, deadline)

    async def greet(self, pixels: Tensor, deadline: float) -> None:
        await self._ask(pixels, deadline, retries=0)

    async def _ask(self, pixels: Tensor, deadline: float, retries: int | None = None) -> Said:
        png = await self._codec.run(encode, pixels, None, "PNG")
        read = partial(plain.read_plain, self.model.kind, int(pixels.shape[-2]), int(pixels.shape[-1]))
        return await self.caller.ask(plain.asking(self.model.address.url, png), read, deadline, retries=retries)


class OipAsker(Asker):
    """The Open Inference Protocol. The metadata is read once, and again after an answer that does not fit it."""

    def __init__(self, model: RemoteModel, caller: RemoteCaller, codec: Codec) -> None:
        super().__init__(model, caller, codec)
        self._signature: Signature | None = None
        self._one_at_a_time = asyncio.Lock()

    async def ask(self, pixels: Tensor, deadline: float) -> Said:
        kind, address = self.model.kind, self.model.address
        try:
            signature = await self._learn(deadline)
        except TimeoutError as error:
            name = self.model.name
            raise DeadlineExceededError(f"{name} did not say in time what it takes; retry later") from error
        call = await self._codec.run(oip.asking, address.url, kind, signature, address.parameters, pixels)
        read = partial(oip.read_answer, kind, signature, int(pixels.shape[-2]), int(pixels.shape[-1]))
        try:
            return await self.caller.ask(call, read, deadline)
        except BadGatewayError:
            self._signature = None  # another model may have been put in its place
            raise

    async def greet(self, pixels: Tensor, deadline: float) -> None:  # noqa: ARG002 - the metadata tells enough
        await self._learn(deadline, retries=0)

    async def _learn(self, deadline: float, retries: int | None = None) -> Signature:
        async with asyncio.timeout_at(deadline), self._one_at_a_time:
            if self._signature is None:
                address, caller = self.model.address, self.caller
                binary = await caller.ask(Call("GET", address.server), read_extensions, deadline, retries=retries)
                read = partial(read_signature, self.model.kind, binary)
                signature = await caller.ask(Call("GET", address.url), read, deadline, retries=retries)
                if signature.labels:
                    self.model.known.tell(signature.labels)
                self._signature = signature
            return self._signature


def make_asker(model: RemoteModel, caller: RemoteCaller, codec: Codec) -> Asker:
    """The asker of the protocol that the model's address names."""
    kind = OipAsker if model.address.protocol == "open-inference-protocol" else PlainAsker
    return kind(model, caller, codec)
