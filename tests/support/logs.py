"""Whole log records as values: programs may depend on the level, the message and the extra fields of each."""

import logging
from collections.abc import Iterable
from typing import Any, TypeAlias

LogRecord: TypeAlias = tuple[str, str, dict[str, Any]]

_STANDARD = vars(logging.makeLogRecord({})).keys() | {"message", "asctime"}


def contents(records: Iterable[logging.LogRecord]) -> list[LogRecord]:
    """Return the level, the message and the extra fields of each record."""
    return [
        (
            record.levelname,
            record.getMessage(),
            {name: value for name, value in vars(record).items() if name not in _STANDARD},
        )
        for record in records
    ]
