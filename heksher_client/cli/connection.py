"""The connection of a command to a service: the options that select the service, and the client."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import click

from heksher_client._logging import escaped
from heksher_client.cli.arguments import Command, share_option, shared_option
from heksher_client.cli.completion import complete_profile
from heksher_client.cli.errors import CommandError, ExitStatus, is_temporary, report_errors

if TYPE_CHECKING:
    from heksher_client.admin import AdminClient
    from heksher_client.cli.command_client import CommandClient
    from heksher_client.exceptions import UnexpectedResponseError

_CONNECT_SECONDS: Final = 10.0
"""The longest time to connect, also if the response may take minutes."""


def _add_options(command: Command, *, is_group: bool) -> Command:
    option = partial(click.option, callback=share_option)
    options = (
        option(
            "-p",
            "--profile",
            metavar="NAME",
            shell_complete=complete_profile,
            expose_value=not is_group,
            help="Profile from the configuration file. Default: HEKSHER_PROFILE, or the default profile of the file.",
        ),
        option(
            "--url",
            metavar="URL",
            expose_value=not is_group,
            help="URL of the service; overrides the profile's URL.",
        ),
        verbose_option,
    )
    for add in reversed(options):
        command = add(command)
    return command


def verbose_option(command: Command) -> Command:
    """Add the option `--verbose` to a command, which `connect` reads."""
    return click.option(
        "-v",
        "--verbose",
        is_flag=True,
        callback=share_option,
        expose_value=False,
        help="Log each request to standard error, without secrets.",
    )(command)


service_options = partial(_add_options, is_group=False)
"""Add the options `--profile`, `--url` and `--verbose` to a command, which receives the first two."""
group_options = partial(_add_options, is_group=True)
"""Add the same options to a group, whose commands have them as well: so they may come before or after a command."""


@contextmanager
def connect(
    profile: str | None,
    url: str | None,
    *,
    url_name: str = "--url",
    timeout: float | None = None,
    is_anonymous: bool = False,
) -> Iterator["CommandClient"]:
    """Connect to the service of a profile or at a URL. Errors in the block are reported, and the client is closed.

    Args:
        profile: The name of the profile.
        url: The URL.
        url_name: The option or argument with the URL, for error messages.
        timeout: The seconds that the response to a request may take, for requests with much to do.
        is_anonymous: Whether to send no credentials, except those in headers.
    """
    with report_errors():
        import httpx

        from heksher_client.cli.command_client import CommandClient
        from heksher_client.exceptions import UnexpectedResponseError
        from heksher_client.profiles._connect import create_request_client

        overrides: dict[str, Any] = {}
        if timeout is not None:
            overrides = {"timeout": httpx.Timeout(timeout, connect=_CONNECT_SECONDS), "request_timeout": timeout}
        if is_anonymous:
            overrides["auth"] = lambda request: request
        inner = create_request_client(profile, url=url, url_name=url_name, **overrides)
        context = click.get_current_context(silent=True)
        is_verbose = context is not None and shared_option(context, "verbose")
        client = CommandClient(inner, _log if is_verbose else None)
        try:
            yield client
        except UnexpectedResponseError as error:
            if error.status == 401:
                raise _unauthorized(client) from None
            if not is_from_heksher(client, error):
                raise not_heksher(client.service_url, error.status, error.headers or {}) from None
            raise
        finally:
            client.close()


def _log(text: str) -> None:
    click.echo(escaped(text), err=True)


def _unauthorized(client: "CommandClient") -> CommandError:
    problem = "refused the token or password" if client.has_credentials else "requires a token"
    return CommandError(
        f"{client.service_url} {problem} (401); sign in with `heksher-client login`, or set HEKSHER_TOKEN",
        ExitStatus.UNAUTHORIZED,
    )


def is_from_heksher(client: "AdminClient", error: "UnexpectedResponseError") -> bool:
    """True if a response that a Heksher service does not send is one of a Heksher service nevertheless.

    Another server at the URL may respond with any status. So the health of the service is checked, unless the response
    is one of a service that refuses a request, or of a proxy.
    """
    from heksher_client.exceptions import HeksherError, UnexpectedResponseError

    if error.status in (400, 401, 403, 409, 412, 422) or is_temporary(error.status):
        return True
    try:
        client.ping()
    except UnexpectedResponseError as other:
        return other.status in (401, 403) or is_temporary(other.status)
    except HeksherError:
        pass
    return True


def not_heksher(url: str, status: int, headers: Mapping[str, str]) -> CommandError:
    """Return the error for a URL at which there is another server."""
    place = headers.get("location", "").partition("?")[0]
    target = f"; it redirects to {place}" if 300 <= status < 400 and place else ""
    return CommandError(f"{url} is not a Heksher service ({status}){target}")
