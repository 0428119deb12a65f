"""Structured logs: one line an event on standard error, uvicorn's included."""

from __future__ import annotations

import logging
import sys

import structlog
from structlog.types import Processor

from service.settings import Settings


def log_to_standard_error() -> None:
    """For commands whose standard output is their result: what the engine logs for a person stays out of it."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))


def configure_logs(settings: Settings) -> None:
    """Set the process's logging up. Called by the command that owns the process, never by the application."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(settings.log_level),
        logger_factory=structlog.stdlib.LoggerFactory(),
    )
    renderers: list[Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if settings.log_format == "json" or (settings.log_format == "auto" and not sys.stderr.isatty())
        else [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.captureWarnings(capture=True)  # a library's warning is a line like any other
    for client in ("httpx", "httpcore"):  # they log each URL whole, with what may be a key in its query
        logging.getLogger(client).setLevel(logging.WARNING)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.log_level.upper())
