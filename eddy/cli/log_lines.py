"""Log records as lines: for people, or as JSON for tools."""

import logging
import sys
from datetime import UTC, datetime
from typing import Any

import msgspec

from eddy.serving.request_context import RequestFields


class JsonLines(logging.Formatter):
    """One JSON object per record: `time`, `level`, `logger`, `message`, `error`, and the request's ids."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


class TextLines(logging.Formatter):
    """One line per record, with the request's id where there is one."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s%(request)s")

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        request_id = getattr(record, "fields", {}).get("request_id")
        record.request = f" [{request_id}]" if request_id else ""
        return super().format(record)


def says_something(record: logging.LogRecord) -> bool:
    """Whether a record is of use: kafka-python reports as an error that a client which is closed gives up
    what it was just asking.
    """
    reasons = record.args if isinstance(record.args, tuple) else ()
    cancelled = any(type(reason).__name__ == "Cancelled" for reason in reasons)
    return not (cancelled and record.name.startswith("kafka."))


def new_handler(log_format: str) -> logging.Handler:
    """A handler that writes to standard error. log_format: "line" or "json"."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(says_something)
    handler.addFilter(RequestFields())
    handler.setFormatter(JsonLines() if log_format == "json" else TextLines())
    return handler
