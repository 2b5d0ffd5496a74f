"""The command `heksher-client`. Needs the extra `cli`; its demo needs `service` as well."""

import sys

try:
    import click
    from rich.console import Console
except ImportError:  # pragma: no cover - an installation without the extra
    sys.exit("heksher-client needs more than the library does: pip install 'heksher_client[cli,service]'")

from heksher_client._version import __version__
from heksher_client.cli.serve import serve
from heksher_client.cli.service import service

_PLAIN_WIDTH = 120
"""Columns of what is written where there is no terminal to ask for its width."""


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="heksher-client")
def main() -> None:
    """Context-dependent settings, from the command line."""


@main.command()
@click.option("--url", metavar="URL", help="Use the Heksher service there, instead of starting one.")
def demo(url: str | None) -> None:
    """Show settings that follow their context, and change while programs run.

    Starts a service, puts some fifty rules on the settings of a shop, runs a worker on asyncio and one with threads,
    shows what they read and why, and changes rules while they run. A service that is there already has the shop's
    settings for as long as the demo runs, and keeps context features that it lacked.
    """
    console = Console()
    if not console.is_terminal:
        console.width = _PLAIN_WIDTH
    try:
        from heksher_client import demo as show
    except ImportError as error:
        raise click.ClickException(str(error)) from None
    try:
        show.run(url, console)
    except show.DemoError as error:
        raise click.ClickException(str(error)) from error


main.add_command(serve)
main.add_command(service)
