"""The pages of settings: the list of all settings, and the page of each."""

from collections.abc import Sequence
from typing import Annotated, Final

from fastapi import APIRouter, Request, Response
from pydantic import Field
from sqlalchemy import Connection

from heksher_client._core.settings.context_values import normalize
from heksher_client.service import store
from heksher_client.service.changes import Change, changes, latest_changes
from heksher_client.service.console.forms import Draft
from heksher_client.service.console.inputs import Fields, format_input, input_for
from heksher_client.service.console.listing import listing, redirect_back
from heksher_client.service.console.rendering import page
from heksher_client.service.console.why import explain, in_priority_order
from heksher_client.service.history import read_state
from heksher_client.service.operations import require_setting, rule_etag
from heksher_client.service.routing import RequestDatabase
from heksher_client.service.schema import MAX_ID
from heksher_client.service.store import StoredRule, StoredSetting

router: Final = APIRouter(prefix="/console", include_in_schema=False)
_MAX_SETTINGS: Final = 200
_MAX_RULES: Final = 200
_MAX_RECENT_CHANGES: Final = 5
"""Changes on the page of a setting."""
Revision = Annotated[int, Field(ge=0, le=MAX_ID)]


@router.get("")
def list_settings(request: Request, database: RequestDatabase, q: str = "") -> Response:
    """Show all settings, or those that contain a text in their names, aliases or metadata."""
    with database.read() as connection:
        rule_counts = store.count_rules_by_setting(connection)
        found = [setting for setting in store.settings(connection) if q.lower() in _searchable_text(setting)]
        shown = [(setting, rule_counts.get(setting.id, 0)) for setting in found[:_MAX_SETTINGS]]
        return page(request, "settings.html", connection, q=q, found=len(found), settings=shown)


def _searchable_text(setting: StoredSetting) -> str:
    return " ".join([setting.declaration.name, *setting.aliases, str(setting.declaration.metadata)]).lower()


@router.get("/settings/{name}")
def show_setting(request: Request, name: str, database: RequestDatabase, done: Revision = 0) -> Response:
    """Show a setting: its declaration, its rules, the explanation of its value, and its last changes."""
    with database.read() as connection:
        return setting_page(request, connection, require_setting(connection, name), done=done)


def setting_page(
    request: Request,
    connection: Connection,
    setting: StoredSetting,
    *,
    form: Fields | None = None,
    status: int = 200,
    done: int = 0,
    draft: Draft | None = None,
    edited: tuple[int, str, Sequence[str]] = (0, "", ()),
) -> Response:
    """Return the page of a setting.

    Args:
        request: The request.
        connection: The connection of the transaction.
        setting: The setting.
        form: The form that was submitted from the page, if any. The page has the same filters as before.
        status: The status of the response.
        done: The revision of the change that was just made, for an undo button.
        draft: The rule that could not be added.
        edited: The id of the rule that could not be changed, the error, and the content of its input.
    """
    order = store.context_features(connection)
    rules = in_priority_order(store.rules(connection, [setting.id]), order)
    declaration = setting.declaration
    path = f"console/settings/{declaration.name}"
    names = ["find", *(f"on.{feature}" for feature in declaration.configurable_features)]
    state = listing(request, path, names, form=form)
    find = state["find"]
    listed = [rule for rule in rules if normalize(find).lower() in _conditions_text(rule, order).lower()]
    shown = [rule for position, rule in enumerate(listed) if position < _MAX_RULES or rule.id == edited[0]]
    order = [feature for feature in order if feature in declaration.configurable_features]
    context = {feature: normalize(value) for feature, value in state.values("on.", order).items()}
    return page(
        request,
        "setting.html",
        connection,
        status=status,
        setting=declaration,
        aliases=setting.aliases,
        input=input_for(declaration.type),
        inputs={rule.id: format_input(declaration.type, rule.value) for rule in shown},
        etags={rule.id: rule_etag(rule) for rule in shown},
        rules=[(rule, rule.conditions_in(order)) for rule in shown],
        found=len(listed),
        total=len(rules),
        find=find,
        back=f"/{state.link()}",
        suggestions=_condition_values(rules),
        context=context,
        explanation=explain(rules, order, declaration.default_value, context, limit=_MAX_RULES),
        order=order,
        changes=latest_changes(connection, setting=declaration.name, limit=_MAX_RECENT_CHANGES),
        done=_last_change(connection, done, declaration.name),
        draft=draft or Draft({}, format_input(declaration.type, declaration.default_value), {}),
        edited=edited,
    )


def _conditions_text(rule: StoredRule, order: Sequence[str]) -> str:
    return " ".join(f"{feature}={value}" for feature, value in rule.conditions_in(order))


def _condition_values(rules: Sequence[StoredRule]) -> dict[str, list[str]]:
    """Return the values in the conditions of rules, by context feature."""
    found: dict[str, set[str]] = {}
    for rule in rules:
        for feature, value in rule.conditions:
            found.setdefault(feature, set()).add(value)
    return {feature: sorted(values)[:_MAX_RULES] for feature, values in found.items()}


def _last_change(connection: Connection, revision: int, setting: str) -> Change | None:
    """Return the change of a revision, if it is the last change of the setting."""
    found = changes(connection, after=revision - 1, setting=setting, limit=2) if revision > 0 else []
    return found[0] if len(found) == 1 and found[0].revision == revision else None


def redirect_to_setting(request: Request, setting: StoredSetting, connection: Connection, form: Fields) -> Response:
    """Redirect to the page of a setting that was just changed, or to the page that the form was submitted from."""
    default = f"console/settings/{setting.declaration.name}"
    return redirect_back(request, form, default, read_state(connection).revision)
