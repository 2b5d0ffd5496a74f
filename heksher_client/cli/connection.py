"""The connection of a command to a service: the options that select the service, and the client."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from heksher_client.cli.completion import complete_profile
from heksher_client.cli.errors import CommandError, is_temporary, report_errors

if TYPE_CHECKING:
    from heksher_client.admin import AdminClient
    from heksher_client.cli.command_client import CommandClient
    from heksher_client.exceptions import UnexpectedResponseError

Command = Callable[..., Any]


def service_options(command: Command) -> Command:
    """Add the options `--profile` and `--url` to a command."""
    command = click.option("--url", metavar="URL", help="URL of the service; overrides the profile's URL.")(command)
    return click.option(
        "-p",
        "--profile",
        metavar="NAME",
        shell_complete=complete_profile,
        help="Profile from the configuration file. Default: HEKSHER_PROFILE, or the default profile of the file.",
    )(command)


@contextmanager
def connect(profile: str | None, url: str | None, *, url_name: str = "--url") -> Iterator["CommandClient"]:
    """Connect to the service of a profile or at a URL. Errors in the block are reported, and the client is closed.

    Args:
        profile: The name of the profile.
        url: The URL.
        url_name: The option or argument with the URL, for error messages.
    """
    with report_errors():
        from heksher_client.cli.command_client import CommandClient
        from heksher_client.exceptions import UnexpectedResponseError
        from heksher_client.profiles._connect import create_request_client

        client = CommandClient(create_request_client(profile, url=url, url_name=url_name))
        try:
            yield client
        except UnexpectedResponseError as error:
            if not is_from_heksher(client, error):
                raise not_heksher(client.service_url, error.status, error.headers or {}) from None
            raise
        finally:
            client.close()


def is_from_heksher(client: "AdminClient", error: "UnexpectedResponseError") -> bool:
    """True if a response that a Heksher service does not send is one of a Heksher service nevertheless.

    Another server at the URL may respond with any status. So the health of the service is checked, unless the response
    is one of a service that refuses a request, or of a proxy.
    """
    from heksher_client.exceptions import HeksherError, UnexpectedResponseError

    if error.status in (400, 401, 403, 409, 422) or is_temporary(error.status):
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
