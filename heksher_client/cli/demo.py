"""The command `heksher-client demo`: what the package does, in about ten seconds."""

import click

from heksher_client._http.endpoint import parse_service_url
from heksher_client.cli.arguments import share_option
from heksher_client.cli.errors import CommandError, ExitStatus
from heksher_client.cli.output import console


@click.command(short_help="Demonstrate settings that change.")
@click.option(
    "--url", metavar="URL", callback=share_option, help="Use the Heksher service at this URL instead of starting one."
)
def demo(url: str | None) -> None:
    """Demonstrate settings that change while programs run.

    Starts a service with about fifty rules for the settings of a shop, runs an asyncio worker and a thread worker,
    shows the values that they read and the reasons, and changes rules while they run. With --url, the settings of the
    shop are created in that service and deleted at the end; context features that it lacks are added and remain.
    """
    try:
        from heksher_client import demo as program
    except ImportError as error:
        raise click.ClickException(str(error)) from None
    if url is not None:
        try:
            parse_service_url(url, "--url")
        except ValueError as error:
            raise CommandError(str(error), ExitStatus.USAGE) from None
    try:
        program.run(url, console())
    except program.DemoError as error:
        raise CommandError(str(error)) from error
