"""The pages of the console, and the actions of their forms."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import parse_qs, quote

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import Field, ValidationError
from sqlalchemy import Connection
from starlette.staticfiles import StaticFiles

from heksher_client._core.settings.context_values import normalize
from heksher_client._version import __version__
from heksher_client.service import json_values, operations, store
from heksher_client.service.access import request_token
from heksher_client.service.addresses import reference
from heksher_client.service.changes import Change, changes, latest_changes
from heksher_client.service.console import security
from heksher_client.service.console.inputs import Fields, InputError, format_input, input_for, parse_input
from heksher_client.service.console.rendering import render
from heksher_client.service.console.undo import UNDOABLE, undo
from heksher_client.service.console.why import explain, in_priority_order
from heksher_client.service.history import read_state
from heksher_client.service.operations import require_rule, require_setting, rule_etag
from heksher_client.service.routes.rules import NewRule
from heksher_client.service.routing import RequestDatabase, RequestError, RuleId
from heksher_client.service.schema import MAX_ID
from heksher_client.service.store import StoredRule, StoredSetting
from heksher_client.service.tokens import Role, create_session, delete_session, find_token

router: Final = APIRouter(prefix="/console", include_in_schema=False)
_MAX_SETTINGS: Final = 200
_MAX_RULES: Final = 200
_MAX_CHANGES: Final = 50
_MAX_FIELDS: Final = 25_000
"""Fields of a form. A type has room for fewer flags."""
_MAX_LOGIN_BYTES: Final = 1 << 16
"""The body of the login form, which anyone may send. It contains the address of a page, which may be as long."""
_MAX_RECENT_CHANGES: Final = 5
"""Changes on the page of a setting."""
_MAX_VALUE_LENGTH: Final = 120
"""Characters of a value in a message."""
_RULE_DELETED: Final = "this rule no longer exists"
ASSETS: Final = StaticFiles(directory=Path(__file__).parent / "assets")


async def _read_form(request: Request) -> Fields:
    """Return the fields of a submitted form, after a check of its origin."""
    security.check_origin(request)
    text = (await request.body()).decode(errors="replace")
    try:
        return parse_qs(text, keep_blank_values=True, max_num_fields=_MAX_FIELDS)
    except ValueError:
        raise RequestError(413, f"the form has more than {_MAX_FIELDS:,} fields") from None


async def _read_checked_form(request: Request, fields: Annotated[Fields, Depends(_read_form)]) -> Fields:
    """Return the fields of a submitted form, after a check of its CSRF token."""
    security.check_csrf_token(request, fields.get("csrf", [""])[0])
    return fields


Revision = Annotated[int, Field(ge=0, le=MAX_ID)]
LoginForm = Annotated[Fields, Depends(_read_form)]
Form = Annotated[Fields, Depends(_read_checked_form)]


@dataclass(frozen=True, slots=True)
class Draft:
    """The content of the form for a new rule, with the errors in it."""

    conditions: Mapping[str, str]
    value: Sequence[str]
    errors: Mapping[str, str]
    """The messages by the name of the input. The name is empty for errors of the whole form."""


# -- settings ----------------------------------------------------------------------------------------------------------


@router.get("")
def list_settings(request: Request, database: RequestDatabase, q: str = "") -> Response:
    """Show all settings, or those that contain a text in their names, aliases or metadata."""
    with database.read() as connection:
        rule_counts = store.count_rules_by_setting(connection)
        found = [setting for setting in store.settings(connection) if q.lower() in _searchable_text(setting)]
        shown = [(setting, rule_counts.get(setting.id, 0)) for setting in found[:_MAX_SETTINGS]]
        return _page(request, "settings.html", connection, q=q, found=len(found), settings=shown)


def _searchable_text(setting: StoredSetting) -> str:
    return " ".join([setting.declaration.name, *setting.aliases, str(setting.declaration.metadata)]).lower()


@router.get("/settings/{name}")
def show_setting(
    request: Request, name: str, database: RequestDatabase, find: str = "", done: Revision = 0
) -> Response:
    """Show a setting: its declaration, its rules, the explanation of its value, and its last changes."""
    with database.read() as connection:
        return _setting_page(request, connection, require_setting(connection, name), find=find, done=done)


def _setting_page(
    request: Request,
    connection: Connection,
    setting: StoredSetting,
    *,
    status: int = 200,
    find: str = "",
    done: int = 0,
    draft: Draft | None = None,
    edited: tuple[int, str, Sequence[str]] = (0, "", ()),
) -> Response:
    """Return the page of a setting.

    Args:
        request: The request.
        connection: The connection of the transaction.
        setting: The setting.
        status: The status of the response.
        find: List only rules whose conditions contain this text.
        done: The revision of the change that was just made, for an undo button.
        draft: The rule that could not be added.
        edited: The id of the rule that could not be changed, the error, and the content of its input.
    """
    order = store.context_features(connection)
    rules = in_priority_order(store.rules(connection, [setting.id]), order)
    listed = [rule for rule in rules if normalize(find).lower() in _conditions_text(rule, order).lower()]
    shown = [rule for position, rule in enumerate(listed) if position < _MAX_RULES or rule.id == edited[0]]
    declaration = setting.declaration
    order = [feature for feature in order if feature in declaration.configurable_features]
    context = {
        feature: value for feature in order if (value := normalize(request.query_params.get(f"on.{feature}", "")))
    }
    return _page(
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


# -- rules -------------------------------------------------------------------------------------------------------------


@router.post("/settings/{name}/rules")
def add_rule(request: Request, name: str, database: RequestDatabase, form: Form) -> Response:
    """Add a rule."""
    with database.write() as connection:
        message = f"the setting {name} does not exist any more. You entered {_listed(form.get('value', []))}."
        setting = require_setting(connection, name, message=message)
        conditions = _conditions(form, setting)
        errors: dict[str, str] = {}
        value = None
        try:
            value = parse_input(setting.declaration.type, form.get("value", []))
        except InputError as error:
            errors["value"] = str(error)
        try:
            rule = NewRule(setting=setting.declaration.name, feature_values=conditions, value=value)
        except ValidationError as error:
            errors |= _condition_errors(error)
        if not errors:
            try:
                operations.add_rule(connection, rule.setting, rule.feature_values, rule.value, rule.metadata)
            except RequestError as error:
                errors[""] = error.message
        if errors:
            draft = Draft(conditions, form.get("value", []), errors)
            return _setting_page(request, connection, setting, status=422, draft=draft)
        return _redirect_to_setting(request, setting, connection)


def _conditions(form: Fields, setting: StoredSetting) -> dict[str, str]:
    features = setting.declaration.configurable_features
    return {feature: text for feature in features if (text := _text(form, f"if.{feature}"))}


def _condition_errors(error: ValidationError) -> dict[str, str]:
    """Return the messages about conditions by the name of the input."""
    found: dict[str, str] = {}
    for problem in error.errors():
        _, *location = problem["loc"]
        message = problem["msg"].removeprefix("Value error, ")
        if location:
            found[f"if.{location[0]}"] = message
        else:
            found[""] = "at least one condition is required" if problem["type"] == "too_short" else message
    return found


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
            return _setting_page(request, connection, setting, status=409, edited=edited)
        try:
            value = parse_input(setting.declaration.type, content)
            operations.set_rule_value(connection, setting, rule, value)
        except (InputError, RequestError) as error:
            edited = (rule_id, str(error.args[-1]), content)
            return _setting_page(request, connection, setting, status=422, edited=edited)
        return _redirect_to_setting(request, setting, connection)


def _show_deleted_rule(request: Request, connection: Connection, rule_id: int, form: Fields) -> Response:
    """Return the page of a setting whose rule was deleted while its value was edited. The value is that of a new rule.

    Raises:
        RequestError: The setting was deleted as well.
    """
    content = form.get("value", [])
    setting = store.setting(connection, _text(form, "setting"))
    if setting is None:
        raise RequestError(404, f"{_RULE_DELETED}. You entered {_listed(content)}.")
    message = (
        f"Rule {rule_id} was deleted while you edited it, so its value was not changed. You entered "
        f"{_listed(content)}. Add a rule with this value if you still want it."
    )
    return _setting_page(
        request, connection, setting, status=409, draft=Draft(_conditions(form, setting), content, {"": message})
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
            return _setting_page(request, connection, setting, status=409, edited=edited)
        store.delete_rule(connection, setting, rule)
        return _redirect_to_setting(request, setting, connection)


def _conflict(form: Fields, rule: StoredRule) -> str:
    """Return a message if a rule is not as the page of a form has shown it."""
    if _text(form, "etag") in ("", rule_etag(rule)):
        return ""
    value = json_values.shorten(rule.value, _MAX_VALUE_LENGTH)
    return f"This rule has been changed since the page was loaded. Its value is now {value}."


@router.post("/undo/{revision}")
def undo_change(
    request: Request,
    revision: Revision,
    database: RequestDatabase,
    form: Form,  # noqa: ARG001 - for its checks
) -> Response:
    """Undo a change of a rule."""
    with database.write() as connection:
        found = changes(connection, after=revision - 1, limit=1)
        if not found or found[0].revision != revision:
            raise RequestError(404, f"there is no change with the revision {revision}")
        return _redirect_to_setting(request, undo(connection, found[0]), connection)


def _redirect_to_setting(request: Request, setting: StoredSetting, connection: Connection) -> Response:
    revision = read_state(connection).revision
    page = f"console/settings/{quote(setting.declaration.name)}?done={revision}#done"
    return RedirectResponse(reference(request.scope, page), 303)


# -- changes -----------------------------------------------------------------------------------------------------------


@router.get("/changes")
def list_changes(
    request: Request, database: RequestDatabase, setting: str = "", before: Revision | None = None
) -> Response:
    """Show the change log, the latest change first."""
    with database.read() as connection:
        found = latest_changes(connection, before=before, setting=setting or None, limit=_MAX_CHANGES + 1)
        shown, is_last = found[:_MAX_CHANGES], len(found) <= _MAX_CHANGES
        more = None if is_last else shown[-1].revision
        return _page(request, "changes.html", connection, changes=shown, setting_name=setting, more=more)


# -- login and logout --------------------------------------------------------------------------------------------------


@router.get("/login")
def show_login(request: Request, next: str = "/console") -> Response:
    """Show the login form."""
    return render(request, "login.html", next=next, error="")


@router.post("/login", max_body_size=_MAX_LOGIN_BYTES)
def log_in(request: Request, database: RequestDatabase, form: LoginForm) -> Response:
    """Create a session for the owner of a token."""
    target = _text(form, "next")
    with database.read() as connection:
        token = find_token(connection, _text(form, "token"))
    if token is None:
        return render(request, "login.html", 422, next=target, error="this token is unknown, expired or revoked")
    with database.write() as connection:
        session = create_session(connection, token)
    is_page = target.startswith("/console") and not target.startswith("/console/login")
    page = target.lstrip("/") if is_page else "console"
    response = RedirectResponse(reference(request.scope, page), 303)
    security.set_session(request, response, session)
    return response


@router.post("/logout")
def log_out(request: Request, database: RequestDatabase, form: Form) -> Response:  # noqa: ARG001 - for its checks
    """End the session."""
    with database.write() as connection:
        delete_session(connection, security.session_of(request))
    response = RedirectResponse(reference(request.scope, "console/login"), 303)
    security.clear_session(request, response)
    return response


# -- all pages ---------------------------------------------------------------------------------------------------------


def _text(form: Fields, name: str) -> str:
    return form.get(name, [""])[0].strip()


def _page(request: Request, template: str, connection: Connection, *, status: int = 200, **values: Any) -> Response:
    token = request_token(request.scope)
    return render(
        request,
        template,
        status,
        features=store.context_features(connection),
        token=token,
        may_change=token is None or token.role is Role.ADMIN,
        undoable=UNDOABLE,
        version=__version__,
        **values,
    )
