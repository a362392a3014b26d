"""Logs: a line for each event on stderr, for people or as JSON, with the id of the request it belongs to."""

import logging
import re
from typing import Any, Literal, TextIO

import structlog
from structlog.stdlib import ExtraAdder, ProcessorFormatter, add_log_level, add_logger_name
from structlog.types import EventDict, Processor

LogFormat = Literal["console", "json"]

SECRETS = re.compile(r"(authorization\W{1,4}|bearer\s+|basic\s+)[^\s'\",]+(\s+[^\s'\",]+)?", re.IGNORECASE)
"""Headers, which libraries write into their logs at debug level."""


def install_logs(level: str, format_: LogFormat, stream: TextIO | None = None) -> None:
    """Write everything that is logged in this process, uvicorn's lines included, in one form. Where somebody has set
    logging up already, that stays.
    """
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_formatter(format_, colours=handler.stream.isatty()))
    logging.basicConfig(level=level.upper(), handlers=[handler])


def _formatter(format_: LogFormat, *, colours: bool) -> ProcessorFormatter:
    known: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        add_log_level,
        add_logger_name,
        ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    shown: Processor = (
        structlog.processors.JSONRenderer()
        if format_ == "json"
        else structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=structlog.dev.plain_traceback)
    )
    return ProcessorFormatter(
        foreign_pre_chain=known, processors=[ProcessorFormatter.remove_processors_meta, _hide_secrets, shown]
    )


def _hide_secrets(logger: Any, method: str, event: EventDict) -> EventDict:
    """No key leaves in a line, whoever wrote it."""
    event.pop("color_message", None)  # uvicorn's, once more with escapes
    return {
        name: SECRETS.sub(r"\1[hidden]", value) if isinstance(value, str) else value for name, value in event.items()
    }
