"""`heksher-client diff`: how two services, profiles or exported files differ."""

from pathlib import Path
from typing import Any

import click
import msgspec
from click.shell_completion import CompletionItem

from heksher_client._core.refresh.protocol import SettingData
from heksher_client._drivers.admin import RuleRecord, ServiceState, SettingRecord
from heksher_client.cli import documents
from heksher_client.cli.connection import DIFFERENT, Failure, asking, profile_names
from heksher_client.cli.differences import differences
from heksher_client.cli.output import as_json_option, console, print_json, progress

_STYLES = {"added": "green", "removed": "red", "changed": "yellow"}


def _places(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    names = [CompletionItem(name) for name in profile_names(context, parameter, incomplete)]
    return [*names, CompletionItem(incomplete, type="file")]


@click.command()
@click.argument("before", shell_complete=_places)
@click.argument("after", shell_complete=_places)
@as_json_option
def diff(before: str, after: str, *, as_json: bool) -> None:
    """Show how BEFORE and AFTER differ: each is a profile, a URL, or a file that `service export` has written.

    Ends with status 5 if they do.
    """
    with progress("Asking for the rules of both") as on_progress:
        first, second = (_snapshot(place, on_progress) for place in (before, after))
    found = list(differences(first, second))
    if as_json:
        print_json([difference._asdict() for difference in found])
    else:
        out = console()
        for difference in found:
            out.print(str(difference), style=_STYLES[difference.kind], markup=False, soft_wrap=True)
    if found:
        click.get_current_context().exit(DIFFERENT)


def _snapshot(place: str, on_progress: Any) -> ServiceState:
    if "://" in place:
        with asking(None, place) as operator:
            return operator.snapshot(on_progress)
    is_file = Path(place).suffix.lower() in documents.SUFFIXES or "/" in place or Path(place).is_file()
    if place == documents.STANDARD or is_file:
        return _from_document(place)
    with asking(place, None) as operator:
        return operator.snapshot(on_progress)


_FORMAT = 1


class _Rule(msgspec.Struct):
    feature_values: dict[str, str]
    value: Any
    rule_id: int | None = None
    metadata: dict[str, Any] = {}


class _Setting(msgspec.Struct):
    name: str
    configurable_features: list[str]
    type: str
    default_value: Any
    version: str
    metadata: dict[str, Any] = {}
    aliases: list[str] = []
    rules: list[_Rule] = []


class _Document(msgspec.Struct):
    heksher: int
    context_features: list[str]
    settings: list[_Setting]


def _from_document(file: str) -> ServiceState:
    try:
        document = msgspec.convert(documents.read(file), _Document)
    except OSError as error:
        raise Failure(f"{file} cannot be read: {error.strerror}") from None
    except msgspec.ValidationError as error:
        raise Failure(f"{file} is no document that `service export` writes: {error}") from None
    if document.heksher != _FORMAT:
        raise Failure(f"{file} is of the format {document.heksher}, and this version knows {_FORMAT}")
    if len({held.name for held in document.settings}) < len(document.settings):
        raise Failure(f"{file} has a setting twice")
    for held in document.settings:
        if len({frozenset(rule.feature_values.items()) for rule in held.rules}) < len(held.rules):
            raise Failure(f"{file} has two rules of {held.name} with the same conditions")
    return ServiceState(tuple(document.context_features), {held.name: _held(held) for held in document.settings})


def _held(s: _Setting) -> SettingRecord:
    data = SettingData(s.name, s.configurable_features, s.type, s.default_value, s.metadata, s.aliases, s.version)
    return SettingRecord(data, tuple(RuleRecord(r.rule_id, r.feature_values, r.value, r.metadata) for r in s.rules))
