"""``POST /models/{name}/activate``: the operator's route."""

from __future__ import annotations

import hmac
from typing import Annotated

from fastapi import APIRouter, Depends, Header

from service.answers import ActivateAnswer
from service.documentation import problems
from service.errors import ForbiddenError
from service.state import ServiceState, state_of

router = APIRouter(tags=["operations"])

ADMIN_KEY = "X-NRP-Admin-Key"


@router.post(
    "/models/{name}/activate",
    summary="Make a purifier of the store the default",
    responses=problems(
        s403="NRP_ADMIN_KEY is not set, or the key is missing or wrong",
        s404="no such model in the store",
        s409="the checkpoint cannot be put in service; what was served before is served on",
        s503="the engine is not running",
    ),
)
async def activate(
    name: str,
    state: Annotated[ServiceState, Depends(state_of)],
    key: Annotated[str | None, Header(alias=ADMIN_KEY)] = None,
) -> ActivateAnswer:
    """Reads the store again, verifies and warms up the checkpoint, and switches to it between two batches.

    No request is lost. The old one is freed when the requests in progress have ended. One that was published again
    under its name is loaded anew.
    """
    _check_key(state, key)
    change = await state.activation.activate(name)
    return ActivateAnswer.of(change)


def _check_key(state: ServiceState, given: str | None) -> None:
    """Raises ForbiddenError. The comparison takes as long for a good guess as for a bad one."""
    key = state.settings.admin_key
    if key is None:
        raise ForbiddenError("models cannot be changed here: the service was started without NRP_ADMIN_KEY")
    if given is None or not hmac.compare_digest(given.encode("latin-1"), key.get_secret_value().encode()):
        raise ForbiddenError(f"the header {ADMIN_KEY} is missing, or is not the service's NRP_ADMIN_KEY")
