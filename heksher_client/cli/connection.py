"""The connection of a command to a service: the options that select the service, and the client."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from heksher_client.cli.completion import complete_profile
from heksher_client.cli.errors import report_errors

if TYPE_CHECKING:
    from heksher_client._drivers.admin import AdminClient

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
def connect(profile: str | None, url: str | None) -> Iterator["AdminClient"]:
    """Connect to the service of a profile or at a URL. Errors in the block are reported, and the client is closed."""
    with report_errors():
        from heksher_client._drivers.admin import AdminClient
        from heksher_client.profiles._connect import create_request_client

        client = AdminClient(create_request_client(profile, url=url))
        try:
            yield client
        finally:
            client.close()
