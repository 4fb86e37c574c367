"""``--log-level`` and ``--log-file``: what grip-edge says of its work, to stderr and as JSON lines.

    {"time": "2026-11-21T04:30:00.123+00:00", "level": "info", "logger": "grip_edge.cli", "message": "...", ...}

On the terminal only warnings are shown unless a level is named; the file gets everything from ``info`` on, or from the
level named. Further keys of a line are those that the message was given (seconds, exit_code, step).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

from grip_edge.errors import UserError

LEVELS = ("debug", "info", "warning", "error")
# Of a record: the terminal shows it in another way already.
SHOWN = "shown_already"
_ROOT = "grip_edge"


class JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        document = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            document["traceback"] = self.formatException(record.exc_info)
        return json.dumps(document, ensure_ascii=False, default=str)


def set_up_logging(level: str | None, file: Path | None) -> Callable[[], None]:
    """Gives what takes it down again."""
    logger = logging.getLogger(_ROOT)
    before = logger.level
    handlers: list[logging.Handler] = [logging.StreamHandler()]
    handlers[0].setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    handlers[0].setLevel((level or "warning").upper())
    handlers[0].addFilter(lambda record: not getattr(record, SHOWN, False))
    if file is not None:
        handlers.append(_file_handler(file, level or "info"))
    for handler in handlers:
        logger.addHandler(handler)
    logger.setLevel(min(handler.level for handler in handlers))

    def take_down() -> None:
        logger.setLevel(before)
        for handler in handlers:
            logger.removeHandler(handler)
            handler.close()

    return take_down


def _file_handler(path: Path, level: str) -> logging.Handler:
    try:
        handler = logging.FileHandler(path, encoding="utf-8")
    except OSError as error:
        raise UserError(f"Cannot write the log '{path}' ({error.strerror}); choose another --log-file.") from None
    handler.setFormatter(JsonLines())
    handler.setLevel(level.upper())
    return handler
