"""Groups of commands: suggestions for mistyped names, and the command of a group that runs without its name."""

from collections.abc import Sequence
from typing import Any, Final

import click
from click.shell_completion import CompletionItem

from heksher_client.cli.errors import suggestion

_HELP: Final = ("-h", "--help")


class SuggestingGroup(click.Group):
    """A group whose error for an unknown command names similar ones."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if not ctx.resilient_parsing and not name.startswith("-") and self.get_command(ctx, name) is None:
            raise unknown_command(ctx, self, name)
        return super().resolve_command(ctx, args)


def unknown_command(context: click.Context, group: click.Group, name: str) -> click.UsageError:
    """Return the error for a command that a group does not have."""
    similar = suggestion(name, group.list_commands(context))
    return click.UsageError(f"No such command {name!r}{similar or '.'}", context)


class DefaultCommandGroup(SuggestingGroup):
    """A group that runs its command `list` if its arguments do not begin with the name of a command.

    Options of the group itself may come before either.
    """

    def __init__(self, *args: Any, needs_argument: bool = False, **attributes: Any) -> None:
        """Create it.

        Args:
            *args: As for `click.Group`.
            needs_argument: Whether `list` needs an argument, so that no arguments at all are a request for help.
            **attributes: As for `click.Group`.
        """
        super().__init__(*args, **attributes)
        self._needs_argument = needs_argument

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        start = self._end_of_own_options(args)
        word = args[start] if start < len(args) else None
        if word not in self.commands and word not in _HELP and self._is_list(ctx, args[start:]):
            args = [*args[:start], "list", *args[start:]]
        return super().parse_args(ctx, args)

    def _is_list(self, ctx: click.Context, args: Sequence[str]) -> bool:
        """True if arguments that do not begin with a command are those of `list`.

        Raises:
            click.UsageError: They contain a command, or seem to.
        """
        if not args:
            return not (self._needs_argument or ctx.resilient_parsing)
        if ctx.resilient_parsing:
            return True
        if args[0].startswith("-"):
            if command := next((word for word in args if word in self.commands), None):
                raise click.UsageError(f"options must follow the command: {ctx.info_name} {command} ...", ctx)
            return True
        is_command = len(args) > 1 and not args[1].startswith("-") and "=" not in args[1]
        if is_command and suggestion(args[0], self.commands):
            raise unknown_command(ctx, self, args[0])
        return True

    def _end_of_own_options(self, args: Sequence[str]) -> int:
        """Return the index of the first argument that is neither an option of the group itself nor the value of one."""
        flags = {
            name: option.is_flag for option in self.params if isinstance(option, click.Option) for name in option.opts
        }
        index = 0
        while index < len(args) and args[index].startswith("-"):
            name, has_value, _ = args[index].partition("=")
            if not name.startswith("--") and len(name) > 2:
                name, has_value = name[:2], "attached"  # -pNAME
            if name not in flags:
                break
            index += 1 if flags[name] or has_value else 2
        return min(index, len(args))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        items = super().shell_complete(ctx, incomplete)
        if not incomplete.startswith("-"):
            arguments = (each for each in self.commands["list"].params if isinstance(each, click.Argument))
            items += [item for argument in list(arguments)[:1] for item in argument.shell_complete(ctx, incomplete)]
        return items
