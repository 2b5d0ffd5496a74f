"""`heksher-client rules`: the rules of a setting, and their changes."""

import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from heksher_client.cli.connection import Failure, asking, context_of, json_value, setting_names, with_service
from heksher_client.cli.output import as_json_option, conditions_in_words, print_json, print_table, shown
from heksher_client.cli.settings import existing

if TYPE_CHECKING:
    from heksher_client._drivers.admin import RuleRecord, SettingRecord

_ANY = "*"


class _Rules(click.Group):
    """A group whose first word may be the name of a setting, instead of a command."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            args = ["list", *args]
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        # The name of a setting is as good as a command.
        return [*super().shell_complete(ctx, incomplete), *setting_names(ctx, click.Argument(["name"]), incomplete)]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        # Options may come before the name, as in other commands.
        if args and args[0].startswith("-") and args[0] not in ("-h", "--help"):
            if named := next((word for word in args if word in self.commands), None):
                raise click.UsageError(f"options come after the command: rules {named} ...", ctx)
            args = ["list", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_Rules, subcommand_metavar="NAME | COMMAND [ARGS]...")
def rules() -> None:
    """Show the rules of the setting NAME, or change them.

    `rules NAME` is the same as `rules list NAME`.
    """


_NAME = click.argument("name", shell_complete=setting_names)
_CONDITIONS = click.argument("conditions", nargs=-1, metavar="[FEATURE=VALUE]...")
_AS_IT_IS = {"ignore_unknown_options": True}
"""A value may be a negative number."""
_AS_THEY_ARE = "heksher_client.as_they_are"
"""Whether arguments were told from options."""


class _WithValue(click.Command):
    """A command whose value may begin with a dash: a negative number, or after `--` anything."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[_AS_THEY_ARE] = "--" in args
        return super().parse_args(ctx, args)


@rules.command("list")
@_NAME
@with_service
@as_json_option
def list_rules(name: str, profile: str | None, url: str | None, *, as_json: bool) -> None:
    """Show the rules of a setting, the strongest first."""
    with asking(profile, url) as operator:
        held, features = existing(operator, name), operator.context_features()
        by_id = {rule.rule_id: rule for rule in held.rules}
        ranked = [by_id[rule.rule_id] for rule in held.rule_set(features).rules()]
    if as_json:
        print_json([asdict(rule) for rule in ranked])
        return
    own = [feature for feature in features if feature in held.data.configurable_features]
    rows = [[rule.rule_id, *(rule.conditions.get(f, _ANY) for f in own), shown(rule.value)] for rule in ranked]
    rows.append(["default", *(_ANY for _ in own), shown(held.data.default_value)])
    print_table(("rule", *own, "value"), rows, "")


@rules.command(cls=_WithValue, context_settings=_AS_IT_IS)
@_NAME
@click.argument("value")
@_CONDITIONS
@with_service
@as_json_option
def add(
    name: str, value: str, conditions: tuple[str, ...], profile: str | None, url: str | None, *, as_json: bool
) -> None:
    """Add a rule: in contexts that match all conditions, NAME has VALUE.

    VALUE is JSON: 5, true, '["a", "b"]'. Where the setting is of text, it may be text as it is.
    """
    wanted = context_of(conditions)
    _check_no_option(value)
    if not wanted:
        raise click.UsageError("a rule needs a condition, like user=jim; the value for all others is the default")
    with asking(profile, url) as operator:
        held = existing(operator, name)
        if (other := held.rule_with(wanted)) is not None:
            raise Failure(f"rule {other.rule_id} has these conditions already: use `rules set`, or remove it")
        rule_id = operator.add_rule(held.data.name, _value(held, value), wanted)
    _report("added", rule_id, wanted, as_json=as_json)


@rules.command("set", cls=_WithValue, context_settings=_AS_IT_IS)
@_NAME
@click.argument("value")
@_CONDITIONS
@with_service
@as_json_option
def set_value(
    name: str, value: str, conditions: tuple[str, ...], profile: str | None, url: str | None, *, as_json: bool
) -> None:
    """Give VALUE to the rule of NAME that has just these conditions."""
    wanted = context_of(conditions)
    _check_no_option(value)
    with asking(profile, url) as operator:
        held = existing(operator, name)
        rule_id = _rule_id(held, wanted)
        operator.set_rule(rule_id, _value(held, value))
    _report("changed", rule_id, wanted, as_json=as_json)


@rules.command()
@_NAME
@_CONDITIONS
@with_service
@as_json_option
def remove(name: str, conditions: tuple[str, ...], profile: str | None, url: str | None, *, as_json: bool) -> None:
    """Remove the rule of NAME that has just these conditions."""
    wanted = context_of(conditions)
    with asking(profile, url) as operator:
        rule_id = _rule_id(existing(operator, name), wanted)
        operator.remove_rule(rule_id)
    _report("removed", rule_id, wanted, as_json=as_json)


def _rule_id(held: "SettingRecord", conditions: Mapping[str, str]) -> int:
    rule: RuleRecord | None = held.rule_with(conditions)
    if rule is None or rule.rule_id is None:
        words = conditions_in_words(conditions)
        raise Failure(f"{held.data.name} has no rule with just these conditions: {words}; `rules NAME` lists them")
    return rule.rule_id


def _check_no_option(value: str) -> None:
    """Refuse a mistyped option, which these commands take for a value.

    Raises:
        click.UsageError: It may be one.
    """
    is_meant = click.get_current_context().meta[_AS_THEY_ARE] or re.match(r"-\.?\d", value)
    if value.startswith("-") and not is_meant:
        raise click.UsageError(f"no such option: {value} (a value that begins with a dash comes after --)")


def _value(held: "SettingRecord", text: str) -> Any:
    """What is meant by a value on the command line: JSON, or for a setting of text, anything else as it is."""
    is_text = held.data.type == "str"
    try:
        value = json_value(text)
    except RecursionError:
        raise Failure("the value is nested too deeply") from None
    except ValueError:
        if is_text or held.data.type.startswith("Enum["):
            return text
        raise Failure(f"{text!r} is no JSON, and {held.data.name} is of the type {held.data.type}") from None
    return text if is_text and not isinstance(value, str) else value


def _report(what: str, rule_id: int, conditions: Mapping[str, str], *, as_json: bool) -> None:
    if as_json:
        print_json({"rule_id": rule_id})
    else:
        click.echo(f"Rule {rule_id} ({conditions_in_words(conditions)}) was {what}.")
