"""The log of the package, in which every record is one line, whoever chose the names and texts in it."""

import logging
from typing import Any, Final


def escaped(text: str) -> str:
    """A text with its line breaks, control and format codes written out, each as several characters."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class _OneLine(logging.Filter):
    """Escapes what goes into a message. Names and texts come from the service, and whoever writes to it."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.args = tuple(map(_harmless, record.args or ()))
        return True


def _harmless(argument: Any) -> Any:
    return argument if isinstance(argument, int | float) else escaped(str(argument))


logger: Final = logging.getLogger("heksher_client")
logger.addFilter(_OneLine())
