"""Changing the default purifier while requests go on."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import structlog

from model_store.card import Card
from model_store.errors import (
    IncompatibleWeightsError,
    InvalidCardError,
    ModelStoreError,
    TamperedWeightsError,
    UnknownArchitectureError,
    UnknownModelError,
)
from model_store.store import LoadedModel, ModelStore
from service.batcher import Batcher
from service.codec import Codec
from service.engine import Engine
from service.errors import EngineStoppedError, UnknownNameError, UnusableCheckpointError
from service.in_flight import RequestsInFlight
from service.job import Answer, Job
from service.metrics import Metrics

# What is said of a checkpoint to those who may change models; the log gets the whole reason, with its paths.
_FAULTS: Mapping[type[ModelStoreError], str] = MappingProxyType(
    {
        TamperedWeightsError: "its weights are not the bytes that its card's sha256 names; publish it again",
        IncompatibleWeightsError: "its weights do not fit the architecture that its card names",
        UnknownArchitectureError: "its card names an architecture, or arguments of one, that there are not",
        InvalidCardError: "a card in the store is not valid; `nrp models list` says which",
        UnknownModelError: "the store changed meanwhile; try again",
    }
)

log = structlog.get_logger()


@dataclass(frozen=True)
class Change:
    """A change of the default purifier that has happened."""

    before: Card
    now: Card


class Activation:
    """Loads a purifier from the store and makes it the default, one change at a time.

    Reading and verifying happen beside the device; it stops only for the warm-up, between two batches. Each request
    runs on the old weights or on the new ones. The old ones are freed when those requests have ended that were in
    progress at the change.
    """

    def __init__(
        self,
        store: ModelStore,
        engine: Engine,
        batcher: Batcher[Job, Answer],
        codec: Codec,
        metrics: Metrics,
        requests: RequestsInFlight,
    ) -> None:
        self._store = store
        self._engine = engine
        self._batcher = batcher
        self._codec = codec
        self._metrics = metrics
        self._requests = requests
        self._one_at_a_time = asyncio.Lock()
        self._retirements: set[asyncio.Task[None]] = set()

    async def activate(self, name: str) -> Change:
        """Make the store's ``name`` the default purifier, loaded anew even where it is the default already.

        Raises UnknownNameError, UnusableCheckpointError or EngineStoppedError; what was served before is served on.
        """
        async with self._one_at_a_time:
            loaded, purifiers = await self._codec.run(self._read, name)
            await self._on_device(loaded)
            return self._put_in_service(loaded.card, purifiers)

    def close(self) -> None:
        """Stop waiting for requests to end."""
        for retirement in self._retirements:
            retirement.cancel()

    def _read(self, name: str) -> tuple[LoadedModel, dict[str, Card]]:
        """The purifier, verified, and every purifier's card, in a worker thread."""
        known = self._engine.cards.get(name)
        try:
            if name not in self._store.names():
                raise UnknownNameError(f"there is no model {name[:80]!r} in the store; publish it first")
            task = self._store.card(name).task
            if task != "purifier" or (known is not None and known.task != "purifier"):
                raise UnusableCheckpointError(f"{name} is no purifier; only the default purifier can be changed")
            loaded = self._store.load(name)
            cards = self._store.cards()
        except ModelStoreError as error:
            log.warning("activation_failed", model=name, reason=str(error))
            fault = next((text for kind, text in _FAULTS.items() if isinstance(error, kind)), "the log says why")
            raise UnusableCheckpointError(f"{name} cannot be put in service: {fault}") from error
        fixed = {card.name for card in self._engine.cards.values() if card.task != "purifier"}
        purifiers = {card.name: card for card in cards if card.task == "purifier" and card.name not in fixed}
        return loaded, {**purifiers, name: loaded.card}

    async def _on_device(self, loaded: LoadedModel) -> None:
        try:
            await self._batcher.on_device(partial(self._engine.install, loaded))
        except EngineStoppedError:
            raise
        except Exception as error:
            log.exception("activation_failed", model=loaded.card.name)
            raise UnusableCheckpointError(
                f"{loaded.card.name} cannot be put in service: its warm-up failed ({type(error).__name__})"
            ) from error

    def _put_in_service(self, card: Card, purifiers: Mapping[str, Card]) -> Change:
        """Everything that requests see of the change, in one piece."""
        engine = self._engine
        before, old = engine.cards[engine.default_purifier], engine.purifiers
        engine.offer(purifiers, card.name)
        self._metrics.no_model(before.name, before.sha256)
        self._metrics.model(card.name, card.sha256)
        log.info("activated", model=card.name, sha256=card.sha256, before=before.name)
        gone = {name for name in old if name not in purifiers} | {before.name} - {card.name}
        republished = {n for n in old if n in purifiers and purifiers[n].sha256 != old[n].sha256} - gone - {card.name}
        retirement = asyncio.create_task(self._retire(frozenset(republished), frozenset(gone), self._requests.now()))
        self._retirements.add(retirement)
        retirement.add_done_callback(self._retirements.discard)
        return Change(before, card)

    async def _retire(
        self, republished: frozenset[str], gone: frozenset[str], promised: frozenset[asyncio.Event]
    ) -> None:
        """Free what nobody will ask for any more; what was republished is loaded anew when it is asked for."""
        try:
            await self._batcher.on_device(partial(self._engine.forget, republished))
            for end in promised:
                await end.wait()
            await self._batcher.on_device(partial(self._engine.forget, gone))
        except EngineStoppedError:
            return
        log.info("retired", models=sorted(republished | gone))
