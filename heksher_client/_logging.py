"""The logger of the package: every record is one line, and what is logged holds no secret."""

import html
import json
import logging
import re
from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import quote, quote_plus

_SHORTEST_SECRET: Final = 4
"""Characters. Shorter texts may occur anywhere, so they are not redacted."""


def escaped(text: str) -> str:
    """Return a text with line breaks, control and format characters escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shortened(text: str, max_length: int) -> str:
    """Return a text of limited length, with an ellipsis where it was cut."""
    return text if len(text) <= max_length else f"{text[: max_length - 1]}…"


def redact(content: bytes, secrets: Iterable[str]) -> bytes:
    """Replace secrets in a text, in every form in which JSON, HTML or a URL may contain them."""
    forms = {form for secret in secrets if len(secret) >= _SHORTEST_SECRET for form in _encoded_forms(secret)}
    for form in sorted(forms, key=len, reverse=True):
        content = content.replace(form.encode(errors="replace"), b"***")
    return content


def _encoded_forms(secret: str) -> set[str]:
    percent = {quote(secret, safe=""), quote(secret), quote_plus(secret)}
    percent |= {re.sub("%[0-9A-F]{2}", lambda code: code[0].lower(), form) for form in percent}
    in_json = {json.dumps(secret, ensure_ascii=is_ascii)[1:-1] for is_ascii in (False, True)}
    in_json |= {form.replace("/", r"\/") for form in in_json}
    return {secret, html.escape(secret), html.escape(secret, quote=False), *percent, *in_json}


class _EscapeArguments(logging.Filter):
    """Escape the arguments of a record: names and texts come from the service, and from anyone who can write to it."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.args = tuple(map(_escape_argument, record.args or ()))
        return True


def _escape_argument(argument: Any) -> Any:
    return argument if isinstance(argument, int | float) else escaped(str(argument))


logger: Final = logging.getLogger("heksher_client")
logger.addFilter(_EscapeArguments())
