"""`heksher-client status|settings|get`: what a service holds, and what it gives in a context."""

import re
from collections.abc import Mapping
from dataclasses import asdict
from fnmatch import fnmatchcase
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

import click

from heksher_client._logging import escaped
from heksher_client.cli.connection import Failure, asking, context_of, setting_names, with_service
from heksher_client.cli.output import (
    as_json_option,
    conditions_in_words,
    print_json,
    print_table,
    progress,
    shown,
)

if TYPE_CHECKING:
    from heksher_client import Resolution, Rule
    from heksher_client._drivers.admin import AdminClient, SettingRecord


_NAME: Final = re.compile("[a-zA-Z_0-9.]+")


@click.command()
@with_service
@as_json_option
def status(profile: str | None, url: str | None, *, as_json: bool) -> None:
    """Show how a service fares, and what it holds."""
    with asking(profile, url) as operator, progress("Asking for the rules") as on_progress:
        started = perf_counter()
        operator.ping()
        seconds = perf_counter() - started
        snapshot = operator.snapshot(on_progress)
    found: dict[str, Any] = {
        "service": operator.service_url,
        "milliseconds": round(seconds * 1000, 1),
        "context_features": list(snapshot.context_features),
        "settings": len(snapshot.settings),
        "rules": sum(len(setting.rules) for setting in snapshot.settings.values()),
        "offers_changes": snapshot.revision is not None,
        "revision": snapshot.revision,
    }
    if as_json:
        print_json(found)
        return
    features = escaped(", ".join(snapshot.context_features)) or "(none)"
    changes = "offered" if snapshot.revision is not None else "not offered: programs ask at intervals"
    rows = [
        ("service", found["service"]),
        ("answers in", f"{found['milliseconds']} ms"),
        ("context features", features),
        ("settings", found["settings"]),
        ("rules", found["rules"]),
        ("changes as they are made", changes),
    ]
    for name, value in rows:
        click.echo(f"{name:<25} {value}")


@click.command()
@click.argument("pattern", default="*", shell_complete=setting_names)
@with_service
@as_json_option
def settings(pattern: str, profile: str | None, url: str | None, *, as_json: bool) -> None:
    """List the settings of a service: all of them, or those whose names are like PATTERN ('shop.*')."""
    with asking(profile, url) as operator:
        found = [data for name, data in sorted(operator.settings().items()) if fnmatchcase(name, pattern)]
    if as_json:
        print_json([asdict(data) for data in found])
        return
    columns = ("name", "type", "default", "context features", "version", "former names")
    rows = [
        (s.name, s.type, shown(s.default_value), ", ".join(s.configurable_features), s.version, ", ".join(s.aliases))
        for s in found
    ]
    print_table(columns, rows, "No settings.")


@click.command()
@click.argument("name", shell_complete=setting_names)
@click.argument("context", nargs=-1, metavar="[FEATURE=VALUE]...")
@click.option("--why", is_flag=True, help="Show the rule that gives the value, and those that it outranks.")
@with_service
@as_json_option
def get(name: str, context: tuple[str, ...], profile: str | None, url: str | None, *, why: bool, as_json: bool) -> None:
    """Show what NAME is in the context that is given, and the defaults of the profile.

    The value is as the service holds it: a program reads it as the type that it has declared.
    """
    given = context_of(context)
    with asking(profile, url) as operator:
        held, features = existing(operator, name), operator.context_features()
        known = _known(held, given, operator.defaults)
        resolution = held.rule_set(features).explain(_filled(held, known))
    if missing := [feature for feature in held.data.configurable_features if feature not in known]:
        click.echo(f"Note: {escaped(' and '.join(missing))} not given, so that no rule on it matches.", err=True)
    if as_json:
        print_json(_described(resolution, known) if why else resolution.value)
        return
    click.echo(shown(resolution.value))
    if not why:
        return
    where = conditions_in_words(known) if known else "a context of which nothing is known"
    if resolution.rule is None:
        click.echo(f"No rule matches {where}: it is the default.")
    else:
        click.echo(f"Rule {_named(resolution.rule)} matches {where}.")
    for rule in resolution.outranked:
        click.echo(f"It outranks rule {_named(rule)}, which gives {shown(rule.value)}.")


def existing(operator: "AdminClient", name: str) -> "SettingRecord":
    """A setting of a service.

    Raises:
        Failure: It has none of that name.
    """
    if not _NAME.fullmatch(name):
        raise Failure(f"{name!r} is no name of a setting: those are of letters, digits, underscores and dots")
    held = operator.setting(name)
    if held is None:
        raise Failure(f"there is no setting {name} at {operator.service_url}; `heksher-client settings` lists them")
    return held


def _known(held: "SettingRecord", given: Mapping[str, str], defaults: Mapping[str, str]) -> Mapping[str, str]:
    """What is known of the context: as it is given, and by default."""
    features = held.data.configurable_features
    if unknown := ", ".join(feature for feature in given if feature not in features):
        there = escaped(", ".join(features))
        raise click.UsageError(f"{held.data.name} does not depend on {unknown}; it does on: {there}")
    everything = {**defaults, **given}
    return {feature: everything[feature] for feature in features if feature in everything}


def _filled(held: "SettingRecord", context: Mapping[str, str]) -> Mapping[str, str]:
    """A context with a value for each feature; where nothing is known, one that no rule can demand."""
    return {feature: context.get(feature, "") for feature in held.data.configurable_features}


def _named(rule: "Rule[Any]") -> str:
    return f"{rule.rule_id} ({conditions_in_words(rule.match_conditions)})"


def _described(resolution: "Resolution[Any]", context: Mapping[str, str]) -> dict[str, Any]:
    return {
        "value": resolution.value,
        "reason": resolution.reason.value,
        "context": dict(context),
        "rule": None if resolution.rule is None else _rule(resolution.rule),
        "outranked": [_rule(rule) for rule in resolution.outranked],
    }


def _rule(rule: "Rule[Any]") -> dict[str, Any]:
    return {"rule_id": rule.rule_id, "conditions": dict(rule.match_conditions), "value": rule.value}
