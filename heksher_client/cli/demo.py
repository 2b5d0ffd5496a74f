"""`heksher-client demo`: what the package is for, in some ten seconds."""

import click

from heksher_client.cli.output import console


@click.command()
@click.option("--url", metavar="URL", help="Use the Heksher service there, instead of starting one.")
def demo(url: str | None) -> None:
    """Show settings that follow their context, and change while programs run.

    Starts a service, puts some fifty rules on the settings of a shop, runs a worker on asyncio and one with threads,
    shows what they read and why, and changes rules while they run. A service that is there already has the shop's
    settings for as long as the demo runs, and keeps context features that it lacked.
    """
    try:
        from heksher_client import demo as show
    except ImportError as error:
        raise click.ClickException(str(error)) from None
    try:
        show.run(url, console())
    except show.DemoError as error:
        raise click.ClickException(str(error)) from error
