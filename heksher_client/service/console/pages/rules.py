"""The actions of rules: add, change and delete."""

from collections.abc import Sequence
from typing import Final

from fastapi import APIRouter, Request, Response
from pydantic import ValidationError
from sqlalchemy import Connection

from heksher_client.service import json_values, operations, store
from heksher_client.service.console.forms import Draft, Form, condition_errors, conditions, text
from heksher_client.service.console.inputs import Fields, InputError, format_input, parse_input
from heksher_client.service.console.pages.settings import redirect_to_setting, setting_page
from heksher_client.service.operations import require_rule, require_setting, rule_etag
from heksher_client.service.routes.rules import NewRule
from heksher_client.service.routing import RequestDatabase, RequestError, RuleId
from heksher_client.service.store import StoredRule

router: Final = APIRouter(prefix="/console", include_in_schema=False)
_MAX_VALUE_LENGTH: Final = 120
"""Characters of a value in a message."""
_RULE_DELETED: Final = "this rule no longer exists"


@router.post("/settings/{name}/rules")
def add_rule(request: Request, name: str, database: RequestDatabase, form: Form) -> Response:
    """Add a rule."""
    with database.write() as connection:
        message = f"the setting {name} does not exist any more. You entered {_listed(form.get('value', []))}."
        setting = require_setting(connection, name, message=message)
        required = conditions(form, setting)
        errors: dict[str, str] = {}
        value = None
        try:
            value = parse_input(setting.declaration.type, form.get("value", []))
        except InputError as error:
            errors["value"] = str(error)
        try:
            rule = NewRule(setting=setting.declaration.name, feature_values=required, value=value)
        except ValidationError as error:
            errors |= condition_errors(error)
        if not errors:
            try:
                operations.add_rule(connection, rule.setting, rule.feature_values, rule.value, rule.metadata)
            except RequestError as error:
                errors[""] = error.message
        if errors:
            draft = Draft(required, form.get("value", []), errors)
            return setting_page(request, connection, setting, form=form, status=422, draft=draft)
        return redirect_to_setting(request, setting, connection, form)


@router.post("/rules/{rule_id}/value")
def set_rule_value(request: Request, rule_id: RuleId, database: RequestDatabase, form: Form) -> Response:
    """Change the value of a rule."""
    content = form.get("value", [])
    with database.write() as connection:
        if store.rule(connection, rule_id) is None:
            return _show_deleted_rule(request, connection, rule_id, form)
        rule, setting = require_rule(connection, rule_id)
        if conflict := _conflict(form, rule):
            edited = (rule_id, f"{conflict} Save again to replace it.", content)
            return setting_page(request, connection, setting, form=form, status=409, edited=edited)
        try:
            value = parse_input(setting.declaration.type, content)
            operations.set_rule_value(connection, setting, rule, value)
        except (InputError, RequestError) as error:
            edited = (rule_id, str(error.args[-1]), content)
            return setting_page(request, connection, setting, form=form, status=422, edited=edited)
        return redirect_to_setting(request, setting, connection, form)


def _show_deleted_rule(request: Request, connection: Connection, rule_id: int, form: Fields) -> Response:
    """Return the page of a setting whose rule was deleted while its value was edited. The value is that of a new rule.

    Raises:
        RequestError: The setting was deleted as well.
    """
    content = form.get("value", [])
    setting = store.setting(connection, text(form, "setting"))
    if setting is None:
        raise RequestError(404, f"{_RULE_DELETED}. You entered {_listed(content)}.")
    message = (
        f"Rule {rule_id} was deleted while you edited it, so its value was not changed. You entered "
        f"{_listed(content)}. Add a rule with this value if you still want it."
    )
    return setting_page(
        request,
        connection,
        setting,
        form=form,
        status=409,
        draft=Draft(conditions(form, setting), content, {"": message}),
    )


def _listed(content: Sequence[str]) -> str:
    return ", ".join(content) or "nothing"


@router.post("/rules/{rule_id}/delete")
def delete_rule(
    request: Request,
    rule_id: RuleId,
    database: RequestDatabase,
    form: Form,
) -> Response:
    """Delete a rule."""
    with database.write() as connection:
        rule, setting = require_rule(connection, rule_id, message=_RULE_DELETED)
        if conflict := _conflict(form, rule):
            content = format_input(setting.declaration.type, rule.value)
            edited = (rule_id, f"{conflict} Delete it again if you still want to.", content)
            return setting_page(request, connection, setting, form=form, status=409, edited=edited)
        store.delete_rule(connection, setting, rule)
        return redirect_to_setting(request, setting, connection, form)


def _conflict(form: Fields, rule: StoredRule) -> str:
    """Return a message if a rule is not as the page of a form has shown it."""
    if text(form, "etag") in ("", rule_etag(rule)):
        return ""
    value = json_values.shorten(rule.value, _MAX_VALUE_LENGTH)
    return f"This rule has been changed since the page was loaded. Its value is now {value}."
