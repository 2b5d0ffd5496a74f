"""The logger of the package: every record is one line, and what is logged holds no secret."""

import json
import logging
import re
import traceback
from collections.abc import Iterable
from functools import cache
from html.entities import html5
from typing import Any, Final

_INVISIBLE: Final = re.compile(
    "[\\u034f\\u115f\\u1160\\u17b4\\u17b5\\u180b-\\u180f\\u2800\\u3164\\ufe00-\\ufe0f\\uffa0\\U000e0100-\\U000e01ef]"
)
"""Characters without a shape that Python regards as printable, such as fillers and variation selectors."""
_SHORTEST_SECRET: Final = 4
"""Characters. Shorter texts may occur anywhere, so they are not redacted."""


_LONG_SECRET: Final = 12
"""Characters. Longer texts are not parts of other words."""
_UNENCODED: Final = re.compile("[A-Za-z0-9._~-]")
"""The characters that no library encodes."""
_CHARACTERS: Final = re.compile(r"\\+|.", re.DOTALL)
_JSON_LETTERS: Final = {"\b": "b", "\f": "f", "\n": "n", "\r": "r", "\t": "t"}
"""The letters that JSON writes after a backslash for control characters."""
_WORD: Final = re.compile("[A-Za-z0-9_]")
_WORD_START: Final = (
    rb"(?:(?<![A-Za-z0-9_])|(?<=%[0-9A-Fa-f]{2})|(?<=\\[a-z])|(?<=\\x[0-9A-Fa-f]{2})|(?<=\\u[0-9A-Fa-f]{4}))"
)
"""The beginning of a word, also after an escape of a URL, of JSON or of Python."""
_WORD_END: Final = rb"(?![A-Za-z0-9_])"
_AUTH_SCHEMES: Final = frozenset(["apikey", "basic", "bearer", "digest", "dpop", "negotiate", "ntlm", "token"])


def _is_visible(character: str) -> bool:
    return character.isprintable() and not _INVISIBLE.match(character)


class _TextEscapes(dict[int, str]):
    """The escapes of Python by the code of a character, for `str.translate`."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        self[code] = character if _is_visible(character) else character.encode("unicode_escape").decode()
        return self[code]


class _JSONEscapes(dict[int, str]):
    """The escapes of JSON. Line breaks are part of its format: those in a value have an escape already."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        self[code] = character if _is_visible(character) or character == "\n" else json.dumps(character)[1:-1]
        return self[code]


_TEXT_ESCAPES: Final = _TextEscapes()
_JSON_ESCAPES: Final = _JSONEscapes()


def escaped(text: str) -> str:
    """Return a text with escapes for all characters that cannot be seen, or that change how others are shown.

    These are line breaks, control characters, formatting characters such as those of bidirectional text, and all
    spaces but the usual one.
    """
    return text if text.isascii() and text.isprintable() else text.translate(_TEXT_ESCAPES)


def visible_json(value: Any, **options: Any) -> str:
    """Return a value as JSON, with escapes for the same characters. A parser returns the original value.

    Args:
        value: The value.
        **options: Arguments of `json.dumps`.
    """
    return json.dumps(value, ensure_ascii=False, **options).translate(_JSON_ESCAPES)


def text_of(thing: object) -> str:
    """Return the text of an object of the program, such as an error, whose `__str__` may raise."""
    try:
        return str(thing)
    except Exception as error:
        return f"<{type(thing).__name__} without a text: its __str__ raised {type(error).__name__}>"


def escape_arguments(logger: logging.Logger) -> logging.Logger:
    """Return a logger after it was changed to escape the arguments of its records."""
    logger.addFilter(_EscapeArguments())
    return logger


def shown_seconds(seconds: float, digits: int = 6) -> str:
    """Return a number of seconds for a message, such as `1 second` or `0.5 seconds`."""
    number = f"{seconds:.{digits}g}"
    return f"{number} second" if number == "1" else f"{number} seconds"


def shortened(text: str, max_length: int) -> str:
    """Return a text of limited length, with an ellipsis where it was cut."""
    return text if len(text) <= max_length else f"{text[: max_length - 1]}…"


def redact(content: bytes, secrets: Iterable[str]) -> bytes:
    """Replace secrets in a text, in every form in which JSON, HTML or a URL may contain them.

    Short secrets may be parts of words, so they are replaced as whole words only, and schemes of authentication never.
    """
    candidates = {secret for secret in secrets if len(secret) >= _SHORTEST_SECRET and not _is_auth_scheme(secret)}
    patterns = map(_pattern, sorted(candidates, key=len, reverse=True))
    return re.sub(b"|".join(patterns), b"***", content) if candidates else content


def _pattern(secret: str) -> bytes:
    is_word = len(secret) < _LONG_SECRET
    start = _WORD_START if is_word and _WORD.match(secret) else b""
    end = _WORD_END if is_word and _WORD.match(secret[-1]) else b""
    return start + b"".join(map(_encoded_forms, _CHARACTERS.findall(secret))) + end


def _is_auth_scheme(word: str) -> bool:
    """True for the word before the credentials in a header."""
    return word.lower() in _AUTH_SCHEMES


@cache
def _encoded_forms(text: str) -> bytes:
    """Return a pattern for all forms of a character, or of several backslashes: each library encodes other ones.

    In JSON and in URLs, it may be encoded several times. No two of the forms match the same text, as a search could
    take exponential time then.
    """
    if _UNENCODED.match(text):
        return re.escape(text.encode())
    character, count = text[0], len(text)
    raw, utf16 = character.encode(errors="replace"), character.encode("utf-16-be", "surrogatepass").hex()
    names = {name.lower() for name, value in html5.items() if value == character and name.endswith(";")}
    forms = [
        "".join(rf"\\+u{unit}" for unit in re.findall("....", utf16)),
        rf"\\+{_JSON_LETTERS[character]}" if character in _JSON_LETTERS else "",
        "".join(f"%(?:25)*{byte:02x}" for byte in raw),
        f"&(?:{'|'.join([f'#0*{ord(character)};', f'#x0*{ord(character):x};', *sorted(names)])})",
        r"\+" if character == " " else "",  # in a form
    ]
    encoded = f"(?:{'|'.join(filter(None, forms))}){{{count}}}".encode()
    plain = rb"\\{%d,}" % count if character == "\\" else rb"\\*" + re.escape(raw)
    return b"(?i:" + encoded + b"|" + plain + b")"


class _EscapeArguments(logging.Filter):
    """Escape the arguments of a record: names and texts come from the service, and from anyone who can write to it."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.args = tuple(map(_escape_argument, record.args or ()))
        return True


def _escape_argument(argument: Any) -> Any:
    return argument if isinstance(argument, int | float) else escaped(text_of(argument))


class ContainedLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger for the refreshes of clients: errors of handlers, filters and record factories do not reach its callers.

    They are written to stderr, where Python writes those that handlers of its own notice.
    """

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Log a record. It has no extras if a record factory of the program has set one of them."""
        write = self.logger.log
        try:
            try:
                write(level, msg, *args, stacklevel=2, **kwargs)
            except KeyError:
                write(level, msg, *args, stacklevel=2, **{**kwargs, "extra": None})
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:
            if logging.raiseExceptions:
                traceback.print_exc()


logger: Final = ContainedLogger(escape_arguments(logging.getLogger("heksher_client")), {})
