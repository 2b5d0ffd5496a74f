"""Errors of the command line: one line of text, and an exit status that scripts can rely on."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from enum import IntEnum
from typing import Final

import click

from heksher_client._logging import escaped

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
        if error.status in (401, 403):
            message = f"{error}; sign in with `heksher-client login`, or set HEKSHER_TOKEN"
            raise CommandError(message, ExitStatus.UNAUTHORIZED) from None
        status = ExitStatus.UNAVAILABLE if is_temporary(error.status) else ExitStatus.FAILURE
        raise CommandError(str(error), status) from None
    except ServiceUnavailableError as error:
        url = (error.url or "").partition("/api/")[0]
        hint = f"; check that the service runs at {url}" if url else ""
        raise CommandError(f"{error}{hint}", ExitStatus.UNAVAILABLE) from None
    except (HeksherError, ValueError, ImportError) as error:
        raise CommandError(str(error)) from None
