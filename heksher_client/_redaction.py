"""Taking secrets out of what others say, who may repeat what they were sent."""

import html
import json
import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote, quote_plus

_SHORTEST: Final = 4
"""Characters of a secret; what is shorter stands in any text."""


def without(content: bytes, secrets: Iterable[str]) -> bytes:
    """A text without secrets, in whatever form they stand in it."""
    forms = {form for secret in secrets if len(secret) >= _SHORTEST for form in _forms(secret)}
    for form in sorted(forms, key=len, reverse=True):
        content = content.replace(form.encode(errors="replace"), b"***")
    return content


def _forms(secret: str) -> set[str]:
    """How a text may be written in JSON, HTML or a URL."""
    percent = {quote(secret, safe=""), quote(secret), quote_plus(secret)}
    percent |= {re.sub("%[0-9A-F]{2}", lambda code: code[0].lower(), form) for form in percent}
    in_json = {json.dumps(secret, ensure_ascii=is_ascii)[1:-1] for is_ascii in (False, True)}
    in_json |= {form.replace("/", r"\/") for form in in_json}
    return {secret, html.escape(secret), html.escape(secret, quote=False), *percent, *in_json}
