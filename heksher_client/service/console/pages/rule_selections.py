"""Changes of many rules of a setting at once: those that an operator has selected, or all that a filter selects."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs, parse_qsl, quote, urlencode

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from sqlalchemy import Connection

from heksher_client.service import store
from heksher_client.service.addresses import reference
from heksher_client.service.console.forms import Form, query_fields, text
from heksher_client.service.console.inputs import Fields, format_input, input_for
from heksher_client.service.console.listing import Listing, address_back, listing, redirect_unselected
from heksher_client.service.console.pages.confirmation import (
    MAX_LISTED,
    Plan,
    carry_out,
    page_of,
    selected_rules,
)
from heksher_client.service.console.pages.settings import RULE_FILTERS, rule_filter
from heksher_client.service.console.planned_changes import RuleChange, SettingChanges
from heksher_client.service.console.rendering import page
from heksher_client.service.console.rule_form import Draft, read_note, read_value, removed_features, with_value
from heksher_client.service.operations import require_setting
from heksher_client.service.routing import RequestDatabase, RequestError
from heksher_client.service.rule_search import count_rules, search_rules
from heksher_client.service.store import StoredRule, StoredSetting

router: Final = APIRouter(prefix="/console", include_in_schema=False)
MAX_RULES: Final = 10_000
"""Rules that are changed at once."""


@dataclass(frozen=True, slots=True)
class _Selection:
    """The rules that a form selects."""

    rules: list[StoredRule]
    etags: Mapping[int, str]
    """The ETags of the rules when they were selected, also of those that no longer exist; empty for a filter."""

    @property
    def is_empty(self) -> bool:
        """True if nothing is selected, not even rules that no longer exist."""
        return not (self.rules or self.etags)


@router.get("/settings/{name}/rules/selected")
def show_selection(request: Request, name: str, database: RequestDatabase) -> Response:
    """Show the selected rules, and the form that changes or deletes them.

    The fields of the address are `rule` for each selected rule, or `all` and the filter of the page of the setting.
    """
    with database.read() as connection:
        setting = require_setting(connection, name)
        fields = query_fields(request)
        if "all" in fields:
            names = [*RULE_FILTERS, *(name for name in fields if name.startswith("if."))]
            form: Fields = {"filter": [urlencode(listing(request, "", names).parameters)]}
        else:
            form = {"rule": fields.get("rule", [])}
        form = {**form, "back": ["/" + address_back(fields, page_of(setting))]}
        value = format_input(setting.declaration.type, setting.declaration.default_value)
        return _selection_page(request, connection, setting, form, Draft({}, value))


def _selection_page(
    request: Request,
    connection: Connection,
    setting: StoredSetting,
    form: Fields,
    draft: Draft,
    *,
    status: int = 200,
) -> Response:
    selection = _select(connection, setting, form)
    if selection.is_empty:
        return redirect_unselected(request, form, page_of(setting))
    return page(
        request,
        "selected_rules.html",
        connection,
        status=status,
        setting=setting.declaration,
        input=input_for(setting.declaration.type),
        rules=selection.rules[:MAX_LISTED],
        total=len(selection.rules),
        draft=draft,
        fields={key: values for key, values in form.items() if key in ("rule", "filter", "back")},
        back=f"/{address_back(form, page_of(setting))}",
    )


@router.get("/settings/{name}/rules/selected/value")
@router.get("/settings/{name}/rules/selected/delete")
def show_setting_of_form(request: Request, name: str) -> Response:
    """Redirect to the page of a setting: a browser may load the address of a form again, without its fields."""
    return RedirectResponse(reference(request.scope, f"console/settings/{quote(name)}"))


@router.post("/settings/{name}/rules/selected/value")
def set_values(request: Request, name: str, database: RequestDatabase, form: Form) -> Response:
    """Set the value of the selected rules, and the reason for it."""

    def plan(connection: Connection) -> Plan | Response:
        setting = require_setting(connection, name)
        value, note, errors = read_value(form, setting)
        if errors:
            return _invalid(request, connection, setting, form, errors)
        selection = _select(connection, setting, form)
        if selection.is_empty:
            return redirect_unselected(request, form, page_of(setting))
        changes = [RuleChange(rule, with_value(rule, value, note)) for rule in selection.rules]
        return Plan(form, [SettingChanges(setting, changes)], selection.etags, is_previewed="filter" in form)

    return carry_out(request, database, plan)


@router.post("/settings/{name}/rules/selected/delete")
def delete_rules(request: Request, name: str, database: RequestDatabase, form: Form) -> Response:
    """Delete the selected rules. The comment and the link are those of the deletions."""

    def plan(connection: Connection) -> Plan | Response:
        setting = require_setting(connection, name)
        errors: dict[str, str] = {}
        note = read_note(form, errors)
        if errors:
            return _invalid(request, connection, setting, form, errors)
        selection = _select(connection, setting, form)
        if selection.is_empty:
            return redirect_unselected(request, form, page_of(setting))
        changes = [RuleChange(rule, None) for rule in selection.rules]
        return Plan(form, [SettingChanges(setting, changes)], selection.etags, note, is_previewed="filter" in form)

    return carry_out(request, database, plan)


def _invalid(
    request: Request, connection: Connection, setting: StoredSetting, form: Fields, errors: Mapping[str, str]
) -> Response:
    draft = Draft({}, form.get("value", []), errors, comment=text(form, "comment"), link=text(form, "link"))
    return _selection_page(request, connection, setting, form, draft, status=422)


def _select(connection: Connection, setting: StoredSetting, form: Fields) -> _Selection:
    """Return the rules that a form selects.

    Raises:
        RequestError: It selects too many rules, or its filter has a condition that no rule can have.
    """
    if "filter" in form:
        if removed := removed_features(parse_qs(text(form, "filter")), setting):
            raise RequestError(422, removed)
        order = setting.declaration.configurable_features
        selected = rule_filter(Listing("", dict(parse_qsl(text(form, "filter")))), order)
        total = count_rules(connection, setting.id, selected)
        rules = search_rules(connection, setting.id, selected, order, limit=MAX_RULES) if total <= MAX_RULES else []
        etags: dict[int, str] = {}
    else:
        etags = selected_rules(form)
        total = len(etags)
        found = store.rules_with_ids(connection, list(etags)) if total <= MAX_RULES else {}
        rules = [found[rule_id] for rule_id in etags if rule_id in found and found[rule_id].setting_id == setting.id]
    if total > MAX_RULES:
        raise RequestError(422, f"{total:,} rules are selected; at most {MAX_RULES:,} can be changed at once")
    return _Selection(rules, etags)
