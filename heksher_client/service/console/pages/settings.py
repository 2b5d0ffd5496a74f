"""The page of a setting: its declaration, its rules, the explanation of its value, and its last changes."""

from collections.abc import Sequence
from typing import Annotated, Any, Final

from fastapi import APIRouter, Request, Response
from pydantic import Field
from sqlalchemy import Connection

from heksher_client._core.settings.context_values import normalize
from heksher_client.service import clock
from heksher_client.service.change_filter import ChangeFilter
from heksher_client.service.changes import Change, changes, latest_changes
from heksher_client.service.console.change_entries import existing
from heksher_client.service.console.inputs import format_input, input_for
from heksher_client.service.console.listing import PAGE_SIZE, Listing, listing
from heksher_client.service.console.rendering import page
from heksher_client.service.console.rule_form import Draft
from heksher_client.service.console.why import explain
from heksher_client.service.operations import require_setting, rule_etag
from heksher_client.service.routing import RequestDatabase
from heksher_client.service.rule_search import (
    ALL_RULES,
    SORTS,
    RuleFilter,
    condition_values,
    count_rules,
    matching_rules,
    search_rules,
)
from heksher_client.service.schema import MAX_ID
from heksher_client.service.setting_types import Primitive
from heksher_client.service.store import StoredRule, StoredSetting

router: Final = APIRouter(prefix="/console", include_in_schema=False)
RULE_FILTERS: Final = ("find", "value", "by")
"""The parameters that filter rules, in addition to conditions."""
_NUMBERS: Final = (Primitive("int"), Primitive("float"))
MAX_RULES_FOR_SUGGESTIONS: Final = 1_000
"""Rules whose conditions inputs suggest."""
_MAX_RECENT_CHANGES: Final = 5
"""Changes on the page of a setting."""
Revision = Annotated[int, Field(ge=0, le=MAX_ID)]


@router.get("/settings/{name}")
def show_setting(
    request: Request, name: str, database: RequestDatabase, done: Revision = 0, count: Revision = 1
) -> Response:
    """Show a setting: its declaration, its rules, the explanation of its value, and its last changes.

    Args:
        request: The request.
        name: The name of the setting, or an alias.
        database: The database.
        done: The revision of the change that was just made, for an undo button.
        count: The number of changes that were made with it.
    """
    with database.read() as connection:
        return _setting_page(request, connection, require_setting(connection, name), done, count)


def _setting_page(request: Request, connection: Connection, setting: StoredSetting, done: int, count: int) -> Response:
    declaration = setting.declaration
    order = declaration.configurable_features
    path = f"console/settings/{declaration.name}"
    conditional = [f"{prefix}{feature}" for prefix in ("on.", "if.") for feature in order]
    state = listing(request, path, [*RULE_FILTERS, "others", *conditional], SORTS)
    selected = rule_filter(state, order)
    total = count_rules(connection, setting.id, ALL_RULES)
    found = total if selected == ALL_RULES else count_rules(connection, setting.id, selected)
    pages = state.pages(found)
    rules = search_rules(
        connection,
        setting.id,
        selected,
        order,
        sort=state.sort,
        descending=state.is_descending,
        has_numbers=declaration.type in _NUMBERS,
        limit=PAGE_SIZE,
        offset=pages.offset,
    )
    last_changes = latest_changes(connection, ChangeFilter(setting=declaration.name), limit=_MAX_RECENT_CHANGES)
    return page(
        request,
        "setting.html",
        connection,
        setting=declaration,
        aliases=setting.aliases,
        listing=state,
        back=f"/{state.link()}",
        input=input_for(declaration.type),
        inputs={rule.id: format_input(declaration.type, rule.value) for rule in rules},
        etags={rule.id: rule_etag(rule) for rule in rules},
        rules=[(rule, rule.conditions_in(order)) for rule in rules],
        pages=pages,
        found=found,
        total=total,
        is_filtered=selected != ALL_RULES,
        suggestions=condition_values(connection, setting.id, MAX_RULES_FOR_SUGGESTIONS),
        order=order,
        changes=last_changes,
        links=existing(connection, last_changes),
        done=_last_change(connection, done, declaration.name),
        count=count,
        unselected="unselected" in request.query_params,
        draft=Draft({}, format_input(declaration.type, declaration.default_value)),
        now=clock.now(),
        **_explanation(connection, setting, state, total),
    )


def rule_filter(state: Listing, order: Sequence[str]) -> RuleFilter:
    """Return the filter of the rules of a setting's page. Its parameters are `RULE_FILTERS`, and `if.FEATURE`."""
    conditions = {feature: normalize(value) for feature, value in state.values("if.", order).items()}
    return RuleFilter(conditions, normalize(state["find"]), state["value"], state["by"])


def _explanation(connection: Connection, setting: StoredSetting, state: Listing, total: int) -> dict[str, Any]:
    """Return the context of the address, and the explanation of the value in it.

    Args:
        connection: The connection of the transaction.
        setting: The setting.
        state: The state of the page.
        total: The number of rules of the setting.
    """
    declaration = setting.declaration
    order = declaration.configurable_features
    context = {feature: normalize(value) for feature, value in state.values("on.", order).items()}
    matching = matching_rules(connection, setting.id, context, order)
    others: list[StoredRule] = []
    if state["others"]:
        listed = search_rules(connection, setting.id, ALL_RULES, order, limit=PAGE_SIZE + len(matching))
        ids = {rule.id for rule in matching}
        others = [rule for rule in listed if rule.id not in ids][:PAGE_SIZE]
    omitted = total - len(matching) - len(others)
    default = declaration.default_value
    return {
        "context": context,
        "explanation": explain(matching, order, default, context, others=others, omitted=omitted),
    }


def _last_change(connection: Connection, revision: int, setting: str) -> Change | None:
    """Return the change of a revision, if it is the last change of the setting."""
    found = (
        changes(connection, after=revision - 1, selected=ChangeFilter(setting=setting), limit=2) if revision > 0 else []
    )
    return found[0] if len(found) == 1 and found[0].revision == revision else None
