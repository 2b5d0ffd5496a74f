"""The command `heksher-client settings`: list, show and change the settings of a service."""

from collections.abc import Mapping
from dataclasses import asdict
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final

import click

from heksher_client._logging import escaped
from heksher_client.cli.arguments import DASH_IN_VALUE, ValueCommand, require_text, value_argument, yes_option
from heksher_client.cli.command_groups import DefaultCommandGroup
from heksher_client.cli.completion import complete_setting
from heksher_client.cli.connection import connect, group_options, service_options
from heksher_client.cli.errors import CommandError, suggestion
from heksher_client.cli.features import require_feature
from heksher_client.cli.json_values import format_value
from heksher_client.cli.output import count, json_option, print_json, print_table
from heksher_client.cli.setting_values import parse_value
from heksher_client.cli.settings import require_declaration

if TYPE_CHECKING:
    from heksher_client._core.refresh.protocol import SettingData

_WILDCARDS: Final = frozenset("*?[")


@click.group(
    cls=DefaultCommandGroup,
    short_help="List, show and change settings.",
    subcommand_metavar="[PATTERN] | COMMAND [ARGS]...",
)
@group_options
def settings() -> None:
    """List, show and change the settings of a service.

    `settings PATTERN` is short for `settings list PATTERN`.
    """


@settings.command("list", short_help="List settings, with their defaults.")
@click.argument("pattern", default="*", shell_complete=complete_setting)
@service_options
@json_option
def list_settings(pattern: str, profile: str | None, url: str | None, *, as_json: bool) -> None:
    """List settings, with their types and default values.

    PATTERN is a part of the names, or a pattern for whole names, such as 'shop.*'. Exits with status 1 if no setting
    matches it.
    """
    with connect(profile, url) as client:
        known = client.settings()
    is_pattern = not _WILDCARDS.isdisjoint(pattern)
    matching = [
        data for name, data in sorted(known.items()) if (fnmatchcase(name, pattern) if is_pattern else pattern in name)
    ]
    if as_json:
        print_json([asdict(data) for data in matching])
    if not matching and pattern != "*":
        hint = suggestion(pattern, known) or f"; list all {len(known)} settings with `heksher-client settings`"
        raise CommandError(f"no setting matches {pattern!r}{hint}")
    if as_json:
        return
    columns = ("name", "type", "default", "context features", "version", "aliases")
    rows = [
        (s.name, s.type, format_value(s.default_value), ", ".join(s.configurable_features), s.version,
         ", ".join(s.aliases))
        for s in matching
    ]  # fmt: skip
    print_table(columns, rows, "No settings.")


_NAME = click.argument("name", shell_complete=complete_setting)


@settings.command(short_help="Show the declaration of a setting.")
@_NAME
@service_options
@json_option
def show(name: str, profile: str | None, url: str | None, *, as_json: bool) -> None:
    """Show the declaration of the setting NAME, and the number of its rules."""
    with connect(profile, url) as client:
        data = require_declaration(client, name)
        rules = client.rule_page(data.name, limit=1).total
    if as_json:
        print_json(asdict(data) | {"rules": rules})
        return
    metadata = dict(data.metadata)
    rows: dict[str, Any] = {
        "name": data.name,
        "description": metadata.pop("description", None),
        "type": data.type,
        "default": data.default_value,
        "context features": ", ".join(data.configurable_features),
        "version": data.version,
        "aliases": ", ".join(data.aliases) or None,
        **{f"metadata {key}": value for key, value in metadata.items()},
        "rules": rules,
    }
    for label, value in rows.items():
        if value is not None or label == "default":
            click.echo(f"{label:<25} {format_value(value)}")


@settings.command(cls=ValueCommand, context_settings=DASH_IN_VALUE, short_help="Create a setting.")
@click.argument("name")
@click.argument("type_", metavar="TYPE", callback=require_text)
@value_argument("default")
@click.option(
    "--feature",
    "features",
    metavar="NAME",
    multiple=True,
    required=True,
    help="Context feature that rules may have conditions on; repeat the option for more.",
)
@click.option("--description", metavar="TEXT", help="Description of the setting.")
@service_options
@json_option
def add(
    name: str,
    type_: str,
    default: str,
    features: tuple[str, ...],
    description: str | None,
    profile: str | None,
    url: str | None,
    *,
    as_json: bool,
) -> None:
    """Create the setting NAME, so that it can have rules before a program declares it.

    TYPE is in the notation of the service, for example int, 'Sequence<str>' or 'Enum["red","blue"]'. DEFAULT is JSON;
    for the type str, it may be plain text. The version is 1.0. The declaration of a program with the same version must
    have the same attributes; one with a higher version may change them.
    """
    from heksher_client._core.refresh.protocol import SettingData

    metadata = {} if description is None else {"description": description}
    data = SettingData(name, list(features), type_, None, metadata, [], "1.0")
    value = parse_value(data, default)
    with connect(profile, url) as client:
        known = client.context_features()
        for feature in features:
            require_feature(known, feature)
        if client.setting(name) is not None or not client.create_setting(
            name, type_, value, features, metadata=metadata
        ):
            raise CommandError(f"setting {name} already exists")
    _report(f"Created setting {name}", data.version, {"name": name}, as_json=as_json)


@settings.command(short_help="Add or delete an alias of a setting.")
@_NAME
@click.argument("alias_name", metavar="ALIAS", callback=require_text)
@click.option("--delete", "is_deleted", is_flag=True, help="Delete the alias.")
@service_options
@json_option
def alias(name: str, alias_name: str, profile: str | None, url: str | None, *, is_deleted: bool, as_json: bool) -> None:
    """Add an alias to the setting NAME, by which programs can read it as well, or delete one.

    The version of the setting stays as it is. `settings rename` adds the former name itself.
    """
    with connect(profile, url) as client:
        data = require_declaration(client, name)
        if is_deleted != (alias_name in data.aliases):
            raise CommandError(
                f"setting {data.name} {'has no' if is_deleted else 'already has the'} alias {alias_name}"
            )
        if is_deleted:
            client.delete_alias(data.name, alias_name)
        else:
            client.add_alias(data.name, alias_name)
    if as_json:
        print_json({"name": data.name, "alias": alias_name})
    else:
        change = f"Deleted alias {alias_name} of" if is_deleted else f"Added alias {alias_name} to"
        click.echo(escaped(f"{change} setting {data.name}."))


_VERSION = click.option(
    "--version",
    metavar="VERSION",
    help="New version of the setting, such as 1.2. Default: the next minor version. Programs that declare an older "
    "version than that get what the service has.",
)


@settings.command(short_help="Rename a setting.")
@_NAME
@click.argument("new_name", callback=require_text)
@_VERSION
@service_options
@json_option
def rename(
    name: str, new_name: str, version: str | None, profile: str | None, url: str | None, *, as_json: bool
) -> None:
    """Rename the setting NAME to NEW_NAME.

    The former name becomes an alias, by which programs go on reading it.
    """
    with connect(profile, url) as client:
        data = require_declaration(client, name)
        version = _new_version(data, version)
        client.rename_setting(data.name, new_name, version=version)
    _report(f"Renamed setting {data.name} to {new_name}", version, {"name": new_name}, as_json=as_json)


@settings.command(short_help="Change the type of a setting.")
@_NAME
@click.argument("new_type", metavar="TYPE", callback=require_text)
@_VERSION
@service_options
@json_option
def retype(
    name: str, new_type: str, version: str | None, profile: str | None, url: str | None, *, as_json: bool
) -> None:
    """Change the type of the setting NAME.

    TYPE is in the notation of the service, for example int, 'Sequence<str>' or 'Enum["red","blue"]'. The default value
    and the values of all rules must be of the new type. If it does not allow all values of the former type, a
    new major version is required: --version 2.0.
    """
    with connect(profile, url) as client:
        data = require_declaration(client, name)
        version = _new_version(data, version)
        client.set_setting_type(data.name, new_type, version=version)
    text = f"Changed the type of setting {data.name} from {data.type} to {new_type}"
    _report(text, version, {"name": data.name}, as_json=as_json)


@settings.command(short_help="Set the description of a setting.")
@_NAME
@click.argument("text")
@_VERSION
@service_options
@json_option
def describe(name: str, text: str, version: str | None, profile: str | None, url: str | None, *, as_json: bool) -> None:
    """Set the description of the setting NAME to TEXT. An empty text removes it.

    It is stored as the metadata key `description`. A program that declares the setting with other metadata and a higher
    version replaces it.
    """
    with connect(profile, url) as client:
        data = require_declaration(client, name)
        version = _new_version(data, version)
        if text:
            client.add_setting_metadata(data.name, {"description": text}, version=version)
        elif "description" in data.metadata:
            client.delete_setting_metadata(data.name, "description", version=version)
        else:
            raise CommandError(f"setting {data.name} has no description")
    action = "Changed" if text else "Removed"
    _report(f"{action} the description of setting {data.name}", version, {"name": data.name}, as_json=as_json)


@settings.command(short_help="Delete a setting with its rules.")
@_NAME
@yes_option
@service_options
@json_option
def delete(name: str, profile: str | None, url: str | None, *, yes: bool, as_json: bool) -> None:
    """Delete the setting NAME with its rules and aliases."""
    with connect(profile, url) as client:
        data = require_declaration(client, name)
        contents = _contents(data, client.rule_page(data.name, limit=1).total)
        if not yes:
            click.confirm(f"Delete setting {contents}?", abort=True, err=True)
        client.delete_setting(data.name)
    if as_json:
        print_json({"name": data.name})
    else:
        click.echo(f"Deleted setting {contents}.")


def _contents(data: "SettingData", rules: int) -> str:
    """Return the name of a setting, and what is deleted with it."""
    contents = [count(rules, "rule")]
    contents += [f"its aliases {', '.join(data.aliases)}"] if data.aliases else []
    return escaped(f"{data.name} with {' and '.join(contents)}")


def _new_version(data: "SettingData", chosen: str | None) -> str:
    """Return the chosen version of a setting after a change, or the next minor one."""
    if chosen is not None:
        return chosen
    major, _, minor = data.version.partition(".")
    return f"{major}.{int(minor) + 1}"


def _report(text: str, version: str, fields: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json({**fields, "version": version})
    else:
        click.echo(f"{escaped(text)}; its version is {version} now.")
