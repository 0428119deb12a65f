"""What can go wrong while measuring."""

from __future__ import annotations

from service.errors import ServiceError


class BenchError(ServiceError):
    """A measurement cannot be made as asked; the text says what to do."""
