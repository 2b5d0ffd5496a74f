"""The `heksher-client` command.

Requires the extra `cli`; the commands `demo`, `serve` and `service` require `service` as well. Each command is in a
module that is imported only when the command runs, so that no command waits for the imports of the others.
"""

import errno
import importlib
import io
import sys
from collections.abc import Iterator
from typing import Final

try:
    import click
    import rich  # noqa: F401
    import yaml  # noqa: F401
except ImportError:  # pragma: no cover - an installation without the extra
    sys.exit("heksher-client requires extra packages: pip install 'heksher_client[cli,service]'")

from heksher_client._version import __version__
from heksher_client.cli import completion as _completion  # noqa: F401 - registers the completion of bash
from heksher_client.cli.arguments import shared_option
from heksher_client.cli.command_groups import SuggestingGroup
from heksher_client.cli.connection import group_options

_COMMAND_MODULES: Final = {
    "changes": "changes",
    "compare": "contexts",
    "completion": "completion",
    "copy": "contexts",
    "demo": "demo",
    "diff": "diff",
    "export": "transfer",
    "features": "features",
    "get": "settings",
    "import": "transfer",
    "login": "login",
    "logout": "login",
    "ping": "login",
    "profiles": "login",
    "rules": "rules",
    "search": "search",
    "serve": "serve",
    "service": "service",
    "settings": "setting_commands",
    "status": "settings",
    "tokens": "tokens",
    "watch": "watch",
}
"""The module of each command."""


_FUNCTION_NAMES: Final = {"export": "export_document", "import": "import_document"}
"""The names of commands in their modules, where they differ."""


class _LazyGroup(SuggestingGroup):
    """A group that imports a command's module when the command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(_COMMAND_MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMAND_MODULES:
            return None
        module = importlib.import_module(f"heksher_client.cli.{_COMMAND_MODULES[cmd_name]}")
        command: click.Command = getattr(module, _FUNCTION_NAMES.get(cmd_name, cmd_name))
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        known = [parameter.name for parameter in command.params] if command is not None else []
        for option in ("profile", "url"):
            if command is not None and shared_option(ctx, option) is not None and option not in known:
                raise click.UsageError(f"`{name}` does not have the option --{option}", ctx)
        return name, command, rest

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise  # click exits silently if the reader of a pipe has gone, as `head` does.
            raise click.ClickException(str(error)) from None


def _show_all_help(context: click.Context, parameter: click.Parameter, value: bool) -> None:  # noqa: ARG001
    """Print the help of the program and of all its commands, and exit. A callback."""
    if value and not context.resilient_parsing:
        click.echo("\n\n".join(_all_help(context)))
        context.exit()


def _all_help(context: click.Context) -> Iterator[str]:
    yield context.get_help()
    group = context.command
    if isinstance(group, click.Group):
        for name in group.list_commands(context):
            if (command := group.get_command(context, name)) is not None:  # pragma: no branch - it lists those it has
                yield from _all_help(click.Context(command, parent=context, info_name=name))


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@group_options
@click.option("--help-all", is_flag=True, is_eager=True, expose_value=False, callback=_show_all_help,
              help="Show the help of all commands and exit.")  # fmt: skip
@click.version_option(__version__, prog_name="heksher-client")
def main() -> None:
    """Manage context-dependent settings.

    The options --profile, --url and --verbose may come before or after a command.

    \b
    Exit status:
      0  success
      1  the request was refused, or an object does not exist
      2  invalid usage or configuration
      3  the service is unavailable; try again later
      4  not signed in, or permission denied
      5  `diff` or `compare` found differences
    """  # noqa: D301 - click keeps the line breaks of a paragraph that begins with this character
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # pragma: no branch - tests replace the streams
            stream.reconfigure(errors="backslashreplace")  # Names and values may contain any character.
