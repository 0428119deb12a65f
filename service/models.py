"""``GET /models``: what is served, as cards."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends

from service.answers import ServedModel, ServedModels
from service.documentation import problems
from service.errors import UnknownNameError
from service.state import ServiceState, state_of

router = APIRouter(tags=["models"])


@router.get("/models", summary="The models of this service")
async def list_models(state: Annotated[ServiceState, Depends(state_of)]) -> ServedModels:
    """Every card in the store, and which of the models are in memory.

    Where a card names more than a hundred labels, it is listed without them and without their class folders; `labels`
    counts them, and `/models/{name}` gives them all.
    """
    engine = state.engine
    loaded, models = engine.loaded, engine.models
    names = {model.kind: model.name for model in models}
    return ServedModels(
        purifier=engine.default_purifier,
        classifier=names.get("classifier"),
        labels=sum(len(model.labels) for model in models if model.kind == "classifier"),
        segmenter=names.get("segmenter"),
        detector=names.get("detector"),
        remotes=state.remotes.reports(),
        models=[ServedModel.in_brief(card, loaded=name in loaded) for name, card in engine.cards.items()],
    )


@router.get("/models/{name}", summary="One model", responses=problems(s404="no such model"))
async def show_model(name: str, state: Annotated[ServiceState, Depends(state_of)]) -> ServedModel:
    """The card of one model: what it is, what it was trained on, what it measures."""
    card = state.engine.cards.get(name)
    if card is None:
        known = ", ".join(state.engine.cards)
        raise UnknownNameError(f"there is no model {name[:80]!r}; there are: {known}")
    return ServedModel.of(card, loaded=name in state.engine.loaded)
