"""Errors of the command line: one line of text, and an exit status that scripts can rely on."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final

import click

from heksher_client._logging import escaped

if TYPE_CHECKING:
    from heksher_client.exceptions import UnexpectedResponseError

_NO_CREDENTIALS: Final = " (the credentials are missing, wrong or insufficient)"
"""A hint of the client for 401 and 403. The second one means that the token lacks a role."""
_REMEDIES: Final = {
    "in a minor version": "; use the next major version, such as --version 2.0",
    "cannot resolve setting type": "; use int, float, str, bool, Enum[...] or Flags[...] with JSON values, "
    "Sequence<TYPE> or Mapping<TYPE>",
}
"""Hints for refusals by a part of their texts."""
_REFUSALS: Final = (400, 409, 412, 422)
"""The statuses whose texts say why the service has refused a request. A proxy may send others, such as 404."""
_MAX_SUGGESTIONS: Final = 3
_SIMILARITY: Final = 0.65
"""How similar a name is to a mistyped one, from 0 to 1, to be suggested."""


class ExitStatus(IntEnum):
    """The exit statuses of commands other than 0, which means success."""

    FAILURE = 1
    """The service refused the request, an object does not exist, or a file cannot be used."""
    USAGE = 2
    """The usage or the configuration is invalid. The value is click's."""
    UNAVAILABLE = 3
    """The service did not respond, or responded that it is unavailable: another attempt may succeed."""
    UNAUTHORIZED = 4
    """Not signed in, or permission denied."""
    DIFFERENT = 5
    """`diff` or `compare` found differences."""


class CommandError(click.ClickException):
    """A failed command: a message in one line, and the exit status."""

    def __init__(self, message: str, status: ExitStatus = ExitStatus.FAILURE) -> None:
        super().__init__(escaped(" ".join(message.split())))
        # click annotates it as a class variable, but reads it from the instance.
        vars(self)["exit_code"] = int(status)


def suggestion(word: str, names: Iterable[str]) -> str:
    """Return a question with the names that are similar to a mistyped one, to append to a message; empty if none is."""
    known = list(names)
    similar = get_close_matches(word, known, _MAX_SUGGESTIONS, _SIMILARITY)
    last_parts = get_close_matches(word, [name.rpartition(".")[2] for name in known], _MAX_SUGGESTIONS, _SIMILARITY)
    others = [name for name in known if (word and word in name) or name.rpartition(".")[2] in last_parts]
    similar += [name for name in others if name not in similar]
    return f"; did you mean {' or '.join(similar[:_MAX_SUGGESTIONS])}?" if similar else ""


def is_temporary(status: int) -> bool:
    """True for the HTTP status of a service that may be available later."""
    return status in (408, 429) or status >= 500


def _refusal(error: "UnexpectedResponseError") -> str:
    """Return why the service has refused a request, in words; an empty text if the response has no reasons."""
    try:
        body = error.json()
        problems = body["conflicts"] if "conflicts" in body else list(map(_problem_text, body["detail"]))
        text = "; ".join(problems)
    except (ValueError, LookupError, TypeError):  # It is of another form.
        is_text = (error.headers or {}).get("content-type", "").startswith("text/plain")
        text = error.content.decode(errors="replace") if is_text and error.status in _REFUSALS else ""
    if not text:
        return ""
    hint = next((hint for part, hint in _REMEDIES.items() if part in text), "")
    return f"the service has refused the request ({error.status}): {text}{hint}"


def _problem_text(problem: Mapping[str, Any]) -> str:
    """Return one of the problems that the service has found in a request, and its place in the body or the query."""
    place = ".".join(map(str, problem["loc"][1:]))
    text = str(problem["msg"]).removeprefix("Value error, ")
    return f"{place}: {text}" if place else text


@contextmanager
def report_errors() -> Iterator[None]:
    """Convert the client's errors to `CommandError`, with the exit status that each kind has."""
    from heksher_client import (
        ConfigError,
        CredentialError,
        HeksherError,
        ServiceUnavailableError,
        UnexpectedResponseError,
    )

    try:
        yield
    except ConfigError as error:
        raise CommandError(str(error), ExitStatus.USAGE) from None
    except CredentialError as error:
        raise CommandError(str(error), ExitStatus.UNAUTHORIZED) from None
    except UnexpectedResponseError as error:
        if error.status == 403:  # `connect` reports 401.
            message = f"{str(error).removesuffix(_NO_CREDENTIALS)}; use a token with the role admin"
            raise CommandError(message, ExitStatus.UNAUTHORIZED) from None
        status = ExitStatus.UNAVAILABLE if is_temporary(error.status) else ExitStatus.FAILURE
        raise CommandError(_refusal(error) or str(error), status) from None
    except ServiceUnavailableError as error:
        url = (error.url or "").partition("/api/")[0]
        hint = f"; check that the service runs at {url}" if url else ""
        raise CommandError(f"{error}{hint}", ExitStatus.UNAVAILABLE) from None
    except (HeksherError, ValueError, ImportError) as error:
        raise CommandError(str(error)) from None
