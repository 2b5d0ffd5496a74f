"""Log records in a form that tests can compare: with the extras, which formatters for JSON write."""

import logging
import pickle
from collections.abc import Iterable
from typing import Any

_STANDARD_ATTRIBUTES = vars(logging.makeLogRecord({})).keys() | {"message", "asctime"}


def extras(record: logging.LogRecord) -> dict[str, Any]:
    """Return the attributes that a record has in addition to those of every record.

    They must be values that can be pickled, as handlers that send records to another process do it.
    """
    found = {name: value for name, value in vars(record).items() if name not in _STANDARD_ATTRIBUTES}
    pickle.loads(pickle.dumps(found))  # noqa: S301 - its own
    return found


def summaries(records: Iterable[logging.LogRecord]) -> list[tuple[str, str, dict[str, Any]]]:
    """Return the level, the message and the extras of each record."""
    return [(record.levelname, record.getMessage(), extras(record)) for record in records]
