"""The command `heksher-client`. Needs the extra `cli`; `demo`, `serve` and `service` need `service` as well."""

import errno
import importlib
import io
import sys
from typing import Final

try:
    import click
    import rich  # noqa: F401
    import yaml  # noqa: F401
except ImportError:  # pragma: no cover - an installation without the extra
    sys.exit("heksher-client needs more than the library does: pip install 'heksher_client[cli,service]'")

from heksher_client._version import __version__

_COMMANDS: Final = {
    "completion": "completion",
    "demo": "demo",
    "diff": "diff",
    "get": "settings",
    "login": "login",
    "logout": "login",
    "ping": "login",
    "profiles": "login",
    "rules": "rules",
    "serve": "serve",
    "service": "service",
    "settings": "settings",
    "status": "settings",
    "watch": "watch",
}
"""The module of each. One command is to be had without waiting for what the others import."""


class _Lazily(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(f"heksher_client.cli.{_COMMANDS[cmd_name]}"), cmd_name)
        return command

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise  # click knows what to do where nobody reads any more
            raise click.ClickException(str(error)) from None


@click.group(cls=_Lazily, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="heksher-client")
def main() -> None:
    """Context-dependent settings, from the command line.

    Ends with status 0 if all is done; 1 if it is refused, or not there; 2 for wrong usage or configuration; 3 if the
    service does not answer, or not now; 4 if nobody is signed in, or may not do that; 5 if `diff` finds differences.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # pragma: no branch - and not a stand-in for it
            stream.reconfigure(errors="backslashreplace")  # names and values may have any character
