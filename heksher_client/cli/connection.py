"""What the commands that ask a service share: how it is named, and what goes wrong with it in one line."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, Final

import click
from click.shell_completion import CompletionItem

from heksher_client._logging import escaped

if TYPE_CHECKING:
    from heksher_client._drivers.admin import AdminClient

Command = Callable[..., Any]

_WORD: Final = re.compile("[a-zA-Z0-9_]+")
"""What context features and their values in rules are made of."""
FAILED: Final = 1
"""The service refuses, or does not have it, or a file cannot be used."""
MISUSED: Final = 2
"""The command, or the configuration, is wrong."""
UNAVAILABLE: Final = 3
"""There is no answer, so that it may be worth another try."""
FORBIDDEN: Final = 4
"""Nobody is signed in, or may not do that."""
DIFFERENT: Final = 5
"""`diff` has found differences."""


class Failure(click.ClickException):
    """An error in one line, with the status that the command ends with."""

    def __init__(self, message: str, status: int = FAILED) -> None:
        super().__init__(escaped(" ".join(message.split())))
        vars(self)["exit_code"] = status  # of the class, to a type checker


@contextmanager
def in_words() -> Iterator[None]:
    """Say in one line what went wrong, and what to do."""
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
        raise Failure(str(error), MISUSED) from None
    except CredentialError as error:
        raise Failure(str(error), FORBIDDEN) from None
    except UnexpectedResponseError as error:
        if error.status in (401, 403):
            raise Failure(f"{error}; sign in (heksher-client login), or set HEKSHER_TOKEN", FORBIDDEN) from None
        is_passing = error.status in (408, 429) or error.status >= 500
        raise Failure(str(error), UNAVAILABLE if is_passing else FAILED) from None
    except ServiceUnavailableError as error:
        where = (error.url or "").partition("/api/")[0]
        raise Failure(f"{error}; is {where} where the service is?", UNAVAILABLE) from None
    except (HeksherError, ValueError, ImportError) as error:
        raise Failure(str(error)) from None


class Seconds(click.FloatRange):
    """A number of seconds: a range alone lets pass what is none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse what is no number."""
        seconds = super().convert(value, param, ctx)
        if seconds != seconds:
            self.fail(f"{value!r} is no number of seconds", param, ctx)
        return seconds


def profile_names(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001
    """What a shell completes the name of a profile with."""
    from heksher_client.profiles import _config as config

    try:
        return [name for name in config.profile_names(config.config_path()) if name.startswith(incomplete)]
    except ValueError:  # A shell has no place for errors.
        return []


def with_service(command: Command) -> Command:
    """Give a command the options that say which service."""
    command = click.option("--url", metavar="URL", help="Where the service is, in place of the profile's own.")(command)
    return click.option(
        "-p",
        "--profile",
        metavar="NAME",
        shell_complete=profile_names,
        help="The profile of the configuration file; HEKSHER_PROFILE or the default one unless given.",
    )(command)


@contextmanager
def asking(profile: str | None, url: str | None) -> Iterator["AdminClient"]:
    """The service of a profile or of a URL, for as long as it is needed."""
    with in_words():
        from heksher_client._drivers.admin import AdminClient
        from heksher_client.profiles._connect import create_request_client

        operator = AdminClient(create_request_client(profile, url=url))
        try:
            yield operator
        finally:
            operator.close()


def setting_names(
    context: click.Context,
    parameter: click.Parameter,  # noqa: ARG001
    incomplete: str,
) -> list[CompletionItem]:
    """What a shell completes the name of a setting with, if the service answers soon."""
    from heksher_client.profiles._connect import create_request_client

    try:
        client = create_request_client(
            context.params.get("profile"), url=context.params.get("url"), request_timeout=2, timeout=1
        )
        with closing(client):
            found = client.get_settings()
    except Exception:  # A shell has no place for errors, of whatever kind.
        return []
    return [
        CompletionItem(name, help=f"{data.type}, {', '.join(data.configurable_features)}")
        for name, data in sorted(found.items())
        if name.startswith(incomplete)
    ]


def json_value(text: str) -> Any:
    """What a text is in JSON, which has no `NaN` and no `Infinity`.

    Raises:
        ValueError: It is none.
        RecursionError: It is nested too deeply.
    """

    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def context_of(pairs: tuple[str, ...]) -> Mapping[str, str]:
    """The values of context features, written as `user=jim`.

    Raises:
        click.BadParameter: One is not written so, or is there twice.
    """
    context: dict[str, str] = {}
    for pair in pairs:
        feature, _, value = pair.partition("=")
        if not (_WORD.fullmatch(feature) and _WORD.fullmatch(value)):
            raise click.BadParameter(
                f"{pair!r} is not like user=jim: a context feature and its value, of letters, digits and underscores"
            )
        if feature in context:
            raise click.BadParameter(f"{feature} is there twice")
        context[feature] = value
    return context
