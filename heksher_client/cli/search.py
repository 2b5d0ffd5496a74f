"""The command `heksher-client search`: find a text in all settings and rules of a service."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

import click

from heksher_client._logging import shortened
from heksher_client.cli.arguments import require_text
from heksher_client.cli.connection import connect, service_options
from heksher_client.cli.errors import CommandError
from heksher_client.cli.json_values import format_value
from heksher_client.cli.output import count, format_conditions, json_option, print_json, print_table

if TYPE_CHECKING:
    from heksher_client.admin import FoundSetting

_MAX_LENGTH: Final = 60
"""Characters of a value in the table."""


@click.command(short_help="Find a text in settings and rules.")
@click.argument("text", callback=require_text)
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="The most settings to show.")
@service_options
@json_option
def search(text: str, limit: int, profile: str | None, url: str | None, *, as_json: bool) -> None:
    """Find TEXT, in any case, in the names, aliases, metadata and values of settings, and in their rules.

    A text like user=ji is searched for in conditions only: it finds the rules for users whose value begins with ji. Of
    each setting, the first rules are shown. Exits with status 1 if nothing is found.
    """
    with connect(profile, url) as client:
        found = client.search(text, limit=limit)
    if as_json:
        print_json(asdict(found))
    if not found.settings:
        raise CommandError(f"no setting and no rule contains {text!r}")
    if as_json:
        return
    rows = [row for setting in found.settings for row in _rows(setting)]
    print_table(("setting", "rule", "conditions", "value", "found in"), rows, "")
    if missing := found.total - len(found.settings):
        click.echo(
            f"Note: {count(missing, 'more setting is', 'more settings are')} not shown; use --limit {found.total}.",
            err=True,
        )


def _rows(setting: "FoundSetting") -> Iterator[tuple[object, ...]]:
    """Yield the rows of a setting: one for itself if it contains the text, and one for each rule."""
    if setting.matches:
        yield setting.name, "", "", "", _parts(setting.matches)
    for rule in setting.rules:
        value = shortened(format_value(rule.value), _MAX_LENGTH)
        yield setting.name, rule.rule_id, format_conditions(rule.conditions), value, _parts(rule.matches)
    if more := setting.rule_count - len(setting.rules):
        yield setting.name, f"{more:,} more", "", "", ""


def _parts(matches: tuple[str, ...]) -> str:
    return ", ".join(matches).replace("_", " ")
