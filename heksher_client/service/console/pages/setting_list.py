"""The list of all settings, with filters."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from sqlalchemy import Connection

from heksher_client._logging import shortened, visible_json
from heksher_client.service import store
from heksher_client.service.console.listing import PAGE_SIZE, Listing, listing
from heksher_client.service.console.outcomes import done_change
from heksher_client.service.console.pages.settings import Revision
from heksher_client.service.console.rendering import page
from heksher_client.service.declarations import Declaration
from heksher_client.service.routing import RequestDatabase
from heksher_client.service.rule_search import RuleFilter, settings_with_rules
from heksher_client.service.store import StoredSetting

router: Final = APIRouter(prefix="/console", include_in_schema=False)
_FILTERS: Final = ("q", "feature", "value", "type", "owner")
_MAX_DESCRIPTION_LENGTH: Final = 120
_MAX_OWNERS: Final = 200
"""Owners that are suggested."""


@dataclass(frozen=True, slots=True)
class _Row:
    """A setting as the list shows it."""

    declaration: Declaration
    aliases: tuple[str, ...]
    type: str
    """The name of the type."""
    kind: str
    """The type without its parameters, such as `Enum`."""
    value: str
    """The default value as JSON."""
    rules: int
    """The number of rules."""
    owner: str
    description: str


def _sort_key(value: Any, text: str) -> tuple[bool, Any]:
    """Return the key of a default value: numbers are sorted as numbers, before all other values, and those by text."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return (False, value) if is_number else (True, text)


_SORTS: Final[Mapping[str, Callable[[_Row], Any]]] = {
    "name": lambda row: row.declaration.name,
    "value": lambda row: _sort_key(row.declaration.default_value, row.value),
    "rules": lambda row: row.rules,
    "type": lambda row: row.type,
    "owner": lambda row: row.owner,
}


@router.get("")
def list_settings(request: Request, database: RequestDatabase, done: Revision = 0) -> Response:
    """Show a page of the settings that the filters select, and the change that was just made, if any."""
    state = listing(request, "console", _FILTERS, list(_SORTS))
    with database.read() as connection:
        rule_counts = store.count_rules_by_setting(connection)
        settings = store.settings(connection)
        rows = {setting.id: _row(setting, rule_counts.get(setting.id, 0)) for setting in settings}
        is_selected = _selection(connection, state)
        found = sorted(
            (row for setting_id, row in rows.items() if is_selected(setting_id, row)),
            key=_SORTS[state.sort],
            reverse=state.is_descending,
        )
        pages = state.pages(len(found))
        return page(
            request,
            "settings.html",
            connection,
            listing=state,
            back=f"/{state.link()}",
            is_filtered=any(state[name] for name in _FILTERS),
            found=len(found),
            pages=pages,
            settings=found[pages.offset : pages.offset + PAGE_SIZE],
            rules_query=_rules_query(state),
            types=sorted({row.kind for row in rows.values()}),
            owners=sorted({row.owner for row in rows.values() if row.owner})[:_MAX_OWNERS],
            done=done_change(request, connection, done),
        )


def _row(setting: StoredSetting, rules: int) -> _Row:
    declaration = setting.declaration
    metadata, type_ = declaration.metadata, str(declaration.type)
    kind = re.match(r"\w+", type_)
    return _Row(
        declaration,
        setting.aliases,
        type_,
        kind[0] if kind else type_,
        visible_json(declaration.default_value),
        rules,
        _text(metadata.get("owner", "")),
        shortened(" ".join(_text(metadata.get("description", "")).split()), _MAX_DESCRIPTION_LENGTH),
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else visible_json(value)


def _selection(connection: Connection, state: Listing) -> Callable[[int, _Row], bool]:
    """Return a function that decides whether the filters select the setting with an id."""
    text, value, kind, owner = state["q"].lower(), state["value"], state["type"], state["owner"].lower()
    feature, required = state.condition()
    with_condition = settings_with_rules(connection, RuleFilter({feature: required})) if required else set()
    with_value = settings_with_rules(connection, RuleFilter(value=value)) if value else set()

    def is_selected(setting_id: int, row: _Row) -> bool:
        return (
            text in _searchable_text(row)
            and kind in ("", row.kind)
            and owner in ("", row.owner.lower())
            and (not feature or feature in row.declaration.configurable_features)
            and (not required or setting_id in with_condition)
            and (not value or setting_id in with_value or value.lower() in row.value.lower())
        )

    return is_selected


def _rules_query(state: Listing) -> str:
    """Return the query with which the page of a setting shows the rules that the filters have found."""
    feature, required = state.condition()
    filters = {f"if.{feature}": required} if required else {}
    return Listing("", filters).link().removeprefix("?")


def _searchable_text(row: _Row) -> str:
    return " ".join([row.declaration.name, *row.aliases, str(row.declaration.metadata)]).lower()
