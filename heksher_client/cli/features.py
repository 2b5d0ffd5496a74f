"""The command `heksher-client features`: list and change the context features of a service, and their order."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from heksher_client._logging import escaped
from heksher_client.cli.arguments import require_text, yes_option
from heksher_client.cli.command_groups import DefaultCommandGroup
from heksher_client.cli.connection import connect, group_options, service_options
from heksher_client.cli.errors import CommandError, suggestion
from heksher_client.cli.output import count, json_option, print_json, print_table

if TYPE_CHECKING:
    from heksher_client.admin import AdminClient


@click.group(
    cls=DefaultCommandGroup,
    short_help="List and change the context features.",
    subcommand_metavar="[COMMAND] [ARGS]...",
)
@group_options
def features() -> None:
    """List or change the context features of a service, and their order.

    Without a command, they are listed. Conditions on later features are stronger: they decide first which rule wins.
    """


@features.command("list", short_help="List the context features in order.")
@service_options
@json_option
def list_features(profile: str | None, url: str | None, *, as_json: bool) -> None:
    """List the context features in their order, each with the number of settings that are configurable by it."""
    with connect(profile, url) as client:
        names, settings = client.context_features(), client.settings().values()
    counts = [(name, sum(name in setting.configurable_features for setting in settings)) for name in names]
    if as_json:
        print_json([{"name": name, "settings": number} for name, number in counts])
    else:
        print_table(("context feature", "settings"), counts, "No context features.")


_NAME = click.argument("name", callback=require_text)


@features.command(short_help="Add a context feature after all others.")
@_NAME
@service_options
@json_option
def add(name: str, profile: str | None, url: str | None, *, as_json: bool) -> None:
    """Add the context feature NAME after all others: conditions on it are stronger than those on the others."""
    with connect(profile, url) as client:
        if name in client.context_features():
            raise CommandError(f"context feature {name} already exists")
        client.add_context_feature(name)
        _report(client, f"Added context feature {name}", as_json=as_json)


@features.command(short_help="Move a context feature in the order.")
@_NAME
@click.option("--before", metavar="NAME", help="The context feature to move it before.")
@click.option("--after", metavar="NAME", help="The context feature to move it after.")
@yes_option
@service_options
@json_option
def move(
    name: str,
    before: str | None,
    after: str | None,
    profile: str | None,
    url: str | None,
    *,
    yes: bool,
    as_json: bool,
) -> None:
    """Move the context feature NAME before or after another one.

    This changes which rules win in all settings that depend on it and on one that it passes.
    """
    other = after or before or ""
    if not other or (before is not None and after is not None):
        raise click.UsageError("use either --before or --after")
    with connect(profile, url) as client:
        known = client.context_features()
        for feature in (name, other):
            require_feature(known, feature)
        passed = _passed(known, name, other, is_after=after is not None)
        using = [{*data.configurable_features} for data in client.settings().values()]
        affected = [features for features in using if name in features and features & passed]
        if affected and not yes:
            number = count(len(affected), "setting")
            click.confirm(f"Move {name}? This may change which rules win in {number}", abort=True, err=True)
        client.move_context_feature(name, before=before, after=after)
        _report(client, f"Moved context feature {name}", as_json=as_json)


@features.command(short_help="Delete an unused context feature.")
@_NAME
@service_options
@json_option
def delete(name: str, profile: str | None, url: str | None, *, as_json: bool) -> None:
    """Delete the context feature NAME. No setting may be configurable by it."""
    with connect(profile, url) as client:
        require_feature(client.context_features(), name)
        using = sorted(s.name for s in client.settings().values() if name in s.configurable_features)
        if using:
            more = "" if len(using) == 1 else f" and {len(using) - 1} more"
            raise CommandError(f"context feature {name} cannot be deleted: setting {using[0]}{more} depends on it")
        client.delete_context_feature(name)
        _report(client, f"Deleted context feature {name}", as_json=as_json)


def _passed(order: Sequence[str], name: str, other: str, *, is_after: bool) -> set[str]:
    """Return the context features that one passes when it is moved before or after another one."""
    start, target = order.index(name), order.index(other)
    if start < target:
        return {*order[start + 1 : target + is_after]}
    return {*order[target + is_after : start]}


def require_feature(known: tuple[str, ...], name: str) -> None:
    """Check that a context feature exists.

    Raises:
        CommandError: It does not.
    """
    if name not in known:
        hint = suggestion(name, known) or f"; the context features are: {', '.join(known) or '(none)'}"
        raise CommandError(f"context feature {name} does not exist{hint}")


def _report(client: "AdminClient", text: str, *, as_json: bool) -> None:
    names = client.context_features()
    if as_json:
        print_json({"context_features": list(names)})
    else:
        click.echo(escaped(f"{text}. The order is: {', '.join(names) or '(none)'}"))
