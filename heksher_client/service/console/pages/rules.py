"""The pages of rules, and their actions: add, duplicate, change and delete."""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from sqlalchemy import Connection

from heksher_client.service import store
from heksher_client.service.changes import rule_changes
from heksher_client.service.console.change_entries import existing
from heksher_client.service.console.forms import Form, query_fields, text
from heksher_client.service.console.inputs import Fields, format_input, input_for, keep_line_breaks
from heksher_client.service.console.listing import address_back
from heksher_client.service.console.pages.confirmation import Plan, carry_out, deletion_of, page_of
from heksher_client.service.console.pages.settings import MAX_RULES_FOR_SUGGESTIONS
from heksher_client.service.console.planned_changes import RuleChange, SettingChanges
from heksher_client.service.console.rendering import page, utc_time
from heksher_client.service.console.rule_form import (
    NOTE,
    Draft,
    DraftError,
    draft_of_form,
    draft_of_rule,
    read_note,
    read_rule,
    read_value,
    removed_features,
    with_value,
)
from heksher_client.service.operations import require_rule, require_setting, rule_etag
from heksher_client.service.routing import RequestDatabase, RequestError, RuleId
from heksher_client.service.rule_search import condition_values
from heksher_client.service.store import StoredRule, StoredSetting

router: Final = APIRouter(prefix="/console", include_in_schema=False)
_RULE_DELETED: Final = "this rule no longer exists"
_MAX_CHANGES: Final = 50
"""Changes in the history of a rule."""


@router.get("/settings/{name}/rules")
def show_new_rule(request: Request, name: str, database: RequestDatabase) -> Response:
    """Show the form for a new rule, with the content of another one if its id is given (`copy`)."""
    with database.read() as connection:
        setting = require_setting(connection, name)
        fields = query_fields(request)
        if "copy" not in fields:
            draft = Draft({}, format_input(setting.declaration.type, setting.declaration.default_value))
        elif (source := _source(connection, setting, fields)) is None:
            raise RequestError(404, _RULE_DELETED)
        else:
            draft = draft_of_rule(setting, source)
        return new_rule_page(request, connection, setting, fields, draft)


@router.post("/settings/{name}/rules")
def add_rule(request: Request, name: str, database: RequestDatabase, form: Form) -> Response:
    """Add a rule."""

    def plan(connection: Connection) -> Plan | Response:
        message = f"the setting {name} does not exist any more. You entered {_listed(form.get('value', []))}."
        setting = require_setting(connection, name, message=message)
        try:
            rule = read_rule(connection, form, setting)
        except DraftError as error:
            return new_rule_page(request, connection, setting, form, error.draft, status=422)
        if (source := _source(connection, setting, form)) is not None:
            metadata = {**_other_metadata(source), **rule.metadata}
            rule = replace(rule, value=keep_line_breaks(rule.value, source.value), metadata=metadata)
        return Plan(form, [SettingChanges(setting, [RuleChange(None, rule)])])

    return carry_out(request, database, plan)


def _source(connection: Connection, setting: StoredSetting, form: Fields) -> StoredRule | None:
    """Return the rule of a setting whose content a form was filled with; None if there is none."""
    digits = text(form, "copy")
    source = store.rule(connection, int(digits)) if re.fullmatch("[0-9]{1,10}", digits) else None
    return source if source is not None and source.setting_id == setting.id else None


def _other_metadata(rule: StoredRule | None) -> dict[str, Any]:
    """Return the metadata of a rule that its form cannot change."""
    metadata = {} if rule is None else rule.metadata
    return {key: value for key, value in metadata.items() if key not in NOTE or not isinstance(value, str)}


def new_rule_page(
    request: Request,
    connection: Connection,
    setting: StoredSetting,
    form: Fields,
    draft: Draft,
    *,
    status: int = 200,
) -> Response:
    """Return the page with the form for a new rule.

    Args:
        request: The request.
        connection: The connection of the transaction.
        setting: The setting.
        form: The fields of the request: `copy` and `back`.
        draft: The content of the form.
        status: The status of the response.
    """
    return page(
        request,
        "new_rule.html",
        connection,
        status=status,
        draft=draft,
        copy=text(form, "copy"),
        metadata=_other_metadata(_source(connection, setting, form)),
        back=f"/{address_back(form, page_of(setting))}",
        **rule_inputs(connection, setting),
    )


def rule_inputs(connection: Connection, setting: StoredSetting) -> dict[str, Any]:
    """Return what the inputs of a rule show: the setting, the input of its values, and suggestions for conditions."""
    return {
        "setting": setting.declaration,
        "input": input_for(setting.declaration.type),
        "order": setting.declaration.configurable_features,
        "suggestions": condition_values(connection, setting.id, MAX_RULES_FOR_SUGGESTIONS),
    }


@router.get("/rules/{rule_id}")
def show_rule(request: Request, rule_id: RuleId, database: RequestDatabase) -> Response:
    """Show a rule: its content, its metadata, and its history."""
    with database.read() as connection:
        rule, setting = require_rule(connection, rule_id, message=f"rule {rule_id} does not exist")
        draft = draft_of_rule(setting, rule)
        return rule_page(request, connection, setting, rule, query_fields(request), draft)


def rule_page(
    request: Request,
    connection: Connection,
    setting: StoredSetting,
    rule: StoredRule,
    form: Fields,
    draft: Draft,
    *,
    status: int = 200,
) -> Response:
    """Return the page of a rule.

    Args:
        request: The request.
        connection: The connection of the transaction.
        setting: The setting of the rule.
        rule: The rule.
        form: The fields of the request: `back`.
        draft: The content of the form.
        status: The status of the response.
    """
    history = rule_changes(connection, rule.id, limit=_MAX_CHANGES)
    return page(
        request,
        "rule.html",
        connection,
        status=status,
        rule=rule,
        draft=draft,
        # The rule that the content of the form was changed from.
        etag=text(form, "etag") or rule_etag(rule),
        metadata=_other_metadata(rule),
        changes=history,
        links=existing(connection, history)._replace(rules=()),
        back=f"/{address_back(form, page_of(setting))}",
        **rule_inputs(connection, setting),
    )


@router.post("/rules/{rule_id}")
def change_rule(request: Request, rule_id: RuleId, database: RequestDatabase, form: Form) -> Response:
    """Change the conditions, the value, the period, the comment and the link of a rule."""

    def plan(connection: Connection) -> Plan | Response:
        rule = store.rule(connection, rule_id)
        if rule is None:
            return _show_deleted_rule(request, connection, rule_id, form)
        setting = store.setting_of(connection, rule)
        try:
            changed = read_rule(connection, form, setting, rule)
        except DraftError as error:
            return rule_page(request, connection, setting, rule, form, error.draft, status=422)
        return Plan(form, [SettingChanges(setting, [RuleChange(rule, changed)])], {rule_id: text(form, "etag")})

    return carry_out(request, database, plan)


@router.post("/rules/{rule_id}/value")
def set_rule_value(request: Request, rule_id: RuleId, database: RequestDatabase, form: Form) -> Response:
    """Change the value of a rule, and the reason for it."""

    def plan(connection: Connection) -> Plan | Response:
        rule = store.rule(connection, rule_id)
        if rule is None:
            return _show_deleted_rule(request, connection, rule_id, form)
        setting = store.setting_of(connection, rule)
        value, note, errors = read_value(form, setting)
        if errors:
            present, comment, link = draft_of_rule(setting, rule), text(form, "comment"), text(form, "link")
            draft = replace(present, value=form.get("value", []), comment=comment, link=link, errors=errors)
            return rule_page(request, connection, setting, rule, form, draft, status=422)
        changed = with_value(rule, value, note)
        return Plan(form, [SettingChanges(setting, [RuleChange(rule, changed)])], {rule_id: text(form, "etag")})

    return carry_out(request, database, plan)


def _show_deleted_rule(request: Request, connection: Connection, rule_id: int, form: Fields) -> Response:
    """Return the form for a new rule with the content that was entered for a deleted rule.

    Raises:
        RequestError: The setting was deleted as well.
    """
    content = form.get("value", [])
    setting = store.setting(connection, text(form, "setting"))
    if setting is None:
        raise RequestError(404, f"{_RULE_DELETED}. You entered {_listed(content)}.")
    deletion = deletion_of(connection, rule_id)
    author = "" if deletion is None else f" by {deletion.actor or 'somebody'} at {utc_time(deletion.at)}"
    message = (
        f"Rule {rule_id} was deleted{author} while you edited it, so it was not changed. You entered "
        f"{_listed(content)}. Add a rule with this content if you still want it"
    )
    if removed := removed_features(form, setting):
        message = f"{message}. But {removed}"
    draft = replace(draft_of_form(form, setting), errors={"": message})
    return new_rule_page(request, connection, setting, form, draft, status=409)


def _listed(content: Sequence[str]) -> str:
    return ", ".join(content) or "nothing"


@router.post("/rules/{rule_id}/delete")
def delete_rule(request: Request, rule_id: RuleId, database: RequestDatabase, form: Form) -> Response:
    """Delete a rule. The comment and the link are those of the deletion."""

    def plan(connection: Connection) -> Plan | Response:
        rule, setting = require_rule(connection, rule_id, message=_RULE_DELETED)
        errors: dict[str, str] = {}
        note = read_note(form, errors)
        if errors:
            raise RequestError(422, f"the rule was not deleted: {'; '.join(errors.values())}")
        return Plan(form, [SettingChanges(setting, [RuleChange(rule, None)])], {rule_id: text(form, "etag")}, note)

    return carry_out(request, database, plan)
