"""The commands `heksher-client status|get`: the contents of a service, and the value of a setting."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from heksher_client._clock import monotonic
from heksher_client._core.settings.names import SETTING_NAME
from heksher_client._logging import escaped
from heksher_client.cli.arguments import context_argument
from heksher_client.cli.completion import complete_setting
from heksher_client.cli.connection import connect, service_options
from heksher_client.cli.errors import CommandError, suggestion
from heksher_client.cli.json_values import format_value
from heksher_client.cli.output import format_conditions, json_option, print_json, progress

if TYPE_CHECKING:
    from heksher_client import Resolution, Rule
    from heksher_client._core.refresh.protocol import SettingData
    from heksher_client._core.settings.rule_set import RuleSet
    from heksher_client.admin import AdminClient, SettingRecord


@click.command(short_help="Show the health and contents of a service.")
@service_options
@json_option
def status(profile: str | None, url: str | None, *, as_json: bool) -> None:
    """Show the health and the contents of a service."""
    with connect(profile, url) as client, progress("Fetching rules") as on_progress:
        started = monotonic()
        client.ping()
        seconds = monotonic() - started
        state = client.service_state(on_progress)
    summary: dict[str, Any] = {
        "service": client.service_url,
        "milliseconds": round(seconds * 1000, 1),
        "context_features": list(state.context_features),
        "settings": len(state.settings),
        "rules": sum(len(setting.rules) for setting in state.settings.values()),
        "offers_changes": state.position is not None,
        "revision": None if state.position is None else state.position.revision,
    }
    if as_json:
        print_json(summary)
        return
    rows = [
        ("service", summary["service"]),
        ("response time", f"{summary['milliseconds']} ms"),
        ("context features", escaped(", ".join(state.context_features)) or "(none)"),
        ("settings", summary["settings"]),
        ("rules", summary["rules"]),
        ("change stream", "available" if summary["offers_changes"] else "not available: clients poll at intervals"),
    ]
    for name, value in rows:
        click.echo(f"{name:<25} {value}")


@click.command(short_help="Show the value of a setting in a context.")
@click.argument("name", shell_complete=complete_setting)
@context_argument("context")
@click.option("--why", is_flag=True, help="Show the matching rule, and the rules that it outranks.")
@service_options
@json_option
def get(
    name: str, context: Mapping[str, str], profile: str | None, url: str | None, *, why: bool, as_json: bool
) -> None:
    """Show the value of the setting NAME in a context.

    Context features that are not given have the defaults of the profile. The value is shown as the service stores it;
    a program converts it to the type that it declares.
    """
    with connect(profile, url) as client:
        record, all_features = require_setting(client, name), client.context_features()
        features = record.data.configurable_features
        check_features(record.data, context)
        values = {**client.defaults, **context}
        values = {feature: values[feature] for feature in features if feature in values}
        # Rules cannot have an empty value, so features without a value match no condition.
        context_values = {feature: values.get(feature, "") for feature in features}
        in_effect = replace(record, rules=tuple(rule for rule in record.rules if rule.in_effect))
        resolution = rule_set_of(in_effect, all_features).explain(context_values)
    if missing := [feature for feature in features if feature not in values]:
        verb, pronoun = ("was", "it") if len(missing) == 1 else ("were", "them")
        names = escaped(" and ".join(missing))
        click.echo(f"Note: {names} {verb} not given, so rules with conditions on {pronoun} do not match.", err=True)
    if as_json:
        print_json(_explanation(resolution, values) if why else resolution.value)
        return
    click.echo(format_value(resolution.value))
    if not why:
        return
    where = format_conditions(values) or "an empty context"
    if resolution.rule is None:
        click.echo(f"No rule matches {where}: this is the default value.")
    else:
        click.echo(f"Rule {_rule_label(resolution.rule)} matches {where}.")
    for rule in resolution.outranked:
        click.echo(f"It outranks rule {_rule_label(rule)} with the value {format_value(rule.value)}.")


def require_setting(client: "AdminClient", name: str) -> "SettingRecord":
    """Return a setting of the service with its rules, by its name or an alias.

    Raises:
        CommandError: The setting does not exist.
    """
    from heksher_client.admin import SettingRecord

    data = require_declaration(client, name)
    return SettingRecord(data, client.rules(data.name))


def require_declaration(client: "AdminClient", name: str) -> "SettingData":
    """Return a setting of the service without its rules, by its name or an alias.

    Raises:
        CommandError: The setting does not exist.
    """
    if not re.fullmatch(SETTING_NAME, name):
        raise CommandError(f"{name!r} is not a valid setting name: use letters, digits, underscores and dots")
    data = client.setting(name)
    if data is None:
        raise CommandError(f"setting {name} does not exist in {client.service_url}{_similar_settings(client, name)}")
    return data


def _similar_settings(client: "AdminClient", name: str) -> str:
    """Return a hint for the name of a setting that does not exist."""
    from heksher_client.exceptions import HeksherError

    try:
        similar = suggestion(name, client.settings())
    except HeksherError:
        similar = ""
    return similar or "; list the settings with `heksher-client settings`"


def check_features(setting: "SettingData", names: Iterable[str]) -> None:
    """Check that a setting is configurable by context features.

    Raises:
        click.UsageError: It is not configurable by one of them.
    """
    features = setting.configurable_features
    unknown = [name for name in names if name not in features]
    if unknown:
        raise click.UsageError(
            f"setting {setting.name} does not depend on {', '.join(unknown)}; its context features are: "
            f"{escaped(', '.join(features))}{suggestion(unknown[0], features)}"
        )


def rule_set_of(record: "SettingRecord", context_features: Sequence[str]) -> "RuleSet[Any]":
    """Return the rules of a setting as a `RuleSet`, which resolves them as a client does."""
    from heksher_client import Reason, Rule
    from heksher_client._core.settings.rule_index import group_by_features
    from heksher_client._core.settings.rule_set import RuleSet

    groups = group_by_features([Rule(rule.conditions, rule.value, rule.rule_id) for rule in record.rules])
    rule_set, _ = RuleSet.build(groups, context_features, record.data.default_value, Reason.SERVER_DEFAULT)
    return rule_set


def _rule_label(rule: "Rule[Any]") -> str:
    return f"{rule.rule_id} ({format_conditions(rule.match_conditions)})"


def _explanation(resolution: "Resolution[Any]", context: Mapping[str, str]) -> dict[str, Any]:
    return {
        "value": resolution.value,
        "reason": resolution.reason.value,
        "context": dict(context),
        "rule": None if resolution.rule is None else _rule_fields(resolution.rule),
        "outranked": [_rule_fields(rule) for rule in resolution.outranked],
    }


def _rule_fields(rule: "Rule[Any]") -> dict[str, Any]:
    return {"rule_id": rule.rule_id, "conditions": dict(rule.match_conditions), "value": rule.value}
