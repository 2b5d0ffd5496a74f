"""Rules for a pasted list of context values: one rule for each, with the same value and the same other conditions."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from fastapi import APIRouter, Request, Response
from pydantic import ValidationError
from sqlalchemy import Connection

from heksher_client.service import store
from heksher_client.service.console.forms import Form, condition_errors, query_fields, text
from heksher_client.service.console.inputs import Fields, format_input
from heksher_client.service.console.listing import address_back
from heksher_client.service.console.pages.confirmation import (
    MAX_LISTED,
    Plan,
    carry_out,
    page_of,
    selected_rules,
    selected_value,
)
from heksher_client.service.console.pages.rule_selections import MAX_RULES
from heksher_client.service.console.pages.rules import rule_inputs
from heksher_client.service.console.planned_changes import RuleChange, SettingChanges
from heksher_client.service.console.rendering import page
from heksher_client.service.console.rule_form import Draft, draft_of_form, parse_rule, removed_features, with_value
from heksher_client.service.operations import require_setting, rule_etag
from heksher_client.service.routes.rules import NewRule
from heksher_client.service.routing import RequestDatabase
from heksher_client.service.store import StoredRule, StoredSetting, encode_conditions

router: Final = APIRouter(prefix="/console", include_in_schema=False)
_SEPARATORS: Final = re.compile("[,\r\n]")


@dataclass(frozen=True, slots=True)
class _Pasted:
    """The rules that a form describes, except for those that exist with the same value and period."""

    new: Sequence[StoredRule]
    changed: Sequence[RuleChange]
    """Changes of rules that exist."""


@router.get("/settings/{name}/rules/list")
def show_list(request: Request, name: str, database: RequestDatabase) -> Response:
    """Show the form for a list of context values."""
    with database.read() as connection:
        setting = require_setting(connection, name)
        draft = Draft({}, format_input(setting.declaration.type, setting.declaration.default_value))
        return _list_page(request, connection, setting, query_fields(request), draft)


def _list_page(
    request: Request,
    connection: Connection,
    setting: StoredSetting,
    form: Fields,
    draft: Draft,
    *,
    existing: Sequence[RuleChange] = (),
    status: int = 200,
) -> Response:
    rules = [change.former for change in existing if change.former is not None]
    return page(
        request,
        "rule_list.html",
        connection,
        status=status,
        draft=draft,
        feature=text(form, "feature") or setting.declaration.configurable_features[-1],
        pasted=form.get("list", [""])[0],
        existing=rules[:MAX_LISTED],
        total=len(rules),
        selected={"rule": [selected_value(rule) for rule in rules]},
        is_outdated=bool(rules) and text(form, "existing") == "change",
        back=f"/{address_back(form, page_of(setting))}",
        **rule_inputs(connection, setting),
    )


@router.post("/settings/{name}/rules/list")
def add_list(request: Request, name: str, database: RequestDatabase, form: Form) -> Response:
    """Add a rule for each value of a list, and change those that exist if the form says so."""

    def plan(connection: Connection) -> Plan | Response:
        setting = require_setting(connection, name)
        rules, errors = _read_list(form, setting)
        if errors:
            draft = replace(draft_of_form(form, setting), errors=errors)
            return _list_page(request, connection, setting, form, draft, status=422)
        pasted = _compare(connection, setting, rules)
        if pasted.changed and not _is_decided(form, pasted.changed):
            draft = draft_of_form(form, setting)
            return _list_page(request, connection, setting, form, draft, existing=pasted.changed, status=409)
        changes = [RuleChange(None, rule) for rule in pasted.new]
        changes += pasted.changed if text(form, "existing") == "change" else []
        return Plan(form, [SettingChanges(setting, changes)])

    return carry_out(request, database, plan)


def _read_list(form: Fields, setting: StoredSetting) -> tuple[list[StoredRule], dict[str, str]]:
    """Return the rules that a form describes, and the errors in it."""
    feature, features = text(form, "feature"), setting.declaration.configurable_features
    values = list(dict.fromkeys(value for part in _SEPARATORS.split(text(form, "list")) if (value := part.strip())))
    # The input of the list's feature is ignored.
    removed = removed_features({**form, f"if.{feature}": [""]}, setting)
    errors = {"": removed} if removed else {}
    if feature not in features:
        return [], errors | {"feature": f"the setting is not configurable by {feature or 'nothing'}"}
    if not 0 < len(values) <= MAX_RULES:
        return [], errors | {"list": f"enter 1 to {MAX_RULES:,} values, not {len(values):,}"}
    # The rule of the first value has all that the others have as well.
    first, errors = parse_rule({**form, f"if.{feature}": values[:1]}, setting)
    if f"if.{feature}" in errors:
        errors["list"] = errors.pop(f"if.{feature}")
    rules: dict[str, StoredRule] = {}
    for value in values if not errors else ():
        try:
            conditions = _checked(setting, {**dict(first.conditions), feature: value}, first)
        except ValidationError as error:
            errors["list"] = "; ".join(condition_errors(error).values())
            break
        # Two values may have the same normal form.
        rules[encode_conditions(conditions)] = replace(first, conditions=tuple(sorted(conditions.items())))
    return list(rules.values()), errors


def _checked(setting: StoredSetting, conditions: Mapping[str, str], rule: StoredRule) -> dict[str, str]:
    return NewRule(setting=setting.declaration.name, feature_values=dict(conditions), value=rule.value).feature_values


def _compare(connection: Connection, setting: StoredSetting, rules: Sequence[StoredRule]) -> _Pasted:
    """Compare rules with those of the setting that have the same conditions."""
    present = {encode_conditions(dict(rule.conditions)): rule for rule in store.rules(connection, [setting.id])}
    new: list[StoredRule] = []
    changed: list[RuleChange] = []
    for rule in rules:
        former = present.get(encode_conditions(dict(rule.conditions)))
        if former is None:
            new.append(rule)
        elif RuleChange(former, replace(with_value(former, rule.value, {}), period=rule.period)).is_effective:
            noted = with_value(former, rule.value, rule.metadata)
            changed.append(RuleChange(former, replace(noted, period=rule.period)))
    return _Pasted(new, changed)


def _is_decided(form: Fields, existing: Sequence[RuleChange]) -> bool:
    """Return True if a form says what to do about rules that exist, and has shown what it changes."""
    if text(form, "existing") != "change":
        return text(form, "existing") == "skip"
    shown = selected_rules(form)
    return all(shown.get(rule.id) == rule_etag(rule) for rule, _ in existing if rule is not None)
