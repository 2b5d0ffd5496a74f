"""The pages of the console, and what their forms do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import parse_qsl, quote

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import Field, ValidationError
from sqlalchemy import Connection
from starlette.staticfiles import StaticFiles

from heksher_client._version import __version__
from heksher_client.service import operations, store
from heksher_client.service.access import token_of
from heksher_client.service.changes import Change, changes, latest_changes
from heksher_client.service.console import security
from heksher_client.service.console.inputs import Fields, InputError, input_for, parse, put_in
from heksher_client.service.console.rendering import render
from heksher_client.service.console.undo import UNDOABLE, undo
from heksher_client.service.console.why import explain, in_priority_order
from heksher_client.service.operations import require_rule, require_setting
from heksher_client.service.query_cache import state
from heksher_client.service.routes.rules import NewRule
from heksher_client.service.routing import RefusalError, RequestDatabase, RuleId, SettingName
from heksher_client.service.schema import LARGEST_KEY
from heksher_client.service.store import StoredRule, StoredSetting
from heksher_client.service.tokens import Role, begin_session, end_session, find_token

router: Final = APIRouter(prefix="/console", include_in_schema=False)
_SETTINGS_SHOWN: Final = 200
_RULES_SHOWN: Final = 200
_CHANGES_SHOWN: Final = 50
_RECENT: Final = 5
"""Changes of a setting on its own page."""
ASSETS: Final = StaticFiles(directory=Path(__file__).parent / "assets")


async def _fields(request: Request) -> Fields:
    """What a form has sent."""
    security.check_origin(request)
    fields: dict[str, list[str]] = {}
    text = (await request.body()).decode(errors="replace")
    for name, value in parse_qsl(text, keep_blank_values=True):
        fields.setdefault(name, []).append(value)
    return fields


async def _checked_fields(request: Request, fields: Annotated[Fields, Depends(_fields)]) -> Fields:
    """What a form of this console has sent, in the session that it was made for."""
    security.check_form(request, fields.get("csrf", [""])[0])
    return fields


Revision = Annotated[int, Field(ge=0, le=LARGEST_KEY)]
AnyForm = Annotated[Fields, Depends(_fields)]
Form = Annotated[Fields, Depends(_checked_fields)]


@dataclass(frozen=True, slots=True)
class Draft:
    """A rule that somebody is about to add, with what is wrong about it."""

    conditions: Mapping[str, str]
    value: Sequence[str]
    errors: Mapping[str, str]
    """By the name of the input; those of the whole form under an empty name."""


# -- settings ----------------------------------------------------------------------------------------------------------


@router.get("")
def list_settings(request: Request, database: RequestDatabase, q: str = "") -> Response:
    """All settings, or those with some text in their names, aliases and metadata."""
    with database.read() as connection:
        numbers = store.numbers_of_rules(connection)
        found = [held for held in store.settings(connection) if q.lower() in _searched(held)]
        shown = [(held, numbers.get(held.id, 0)) for held in found[:_SETTINGS_SHOWN]]
        return _page(request, "settings.html", connection, q=q, found=len(found), settings=shown)


def _searched(held: StoredSetting) -> str:
    return " ".join([held.declaration.name, *held.aliases, str(held.declaration.metadata)]).lower()


@router.get("/settings/{name}")
def show_setting(
    request: Request, name: SettingName, database: RequestDatabase, find: str = "", done: Revision = 0
) -> Response:
    """One setting: its declaration, its rules, why it has the value that it has, and its last changes."""
    with database.read() as connection:
        return _setting_page(request, connection, require_setting(connection, name), find=find, done=done)


def _setting_page(
    request: Request,
    connection: Connection,
    held: StoredSetting,
    *,
    status: int = 200,
    find: str = "",
    done: int = 0,
    draft: Draft | None = None,
    edited: tuple[int, str, Sequence[str]] = (0, "", ()),
) -> Response:
    """The page of a setting.

    Args:
        request: What is answered.
        connection: Of the transaction.
        held: The setting.
        status: Of the answer.
        find: Only rules with this text in their conditions are listed.
        done: The revision of the change that was just made, which can be undone.
        draft: The rule that could not be added.
        edited: The id of the rule that could not be changed, what is wrong, and what was put in.
    """
    order = store.context_features(connection)
    rules = in_priority_order(store.rules(connection, [held.id]), order)
    listed = [rule for rule in rules if find.lower() in _conditions_text(rule, order).lower()]
    type_ = held.declaration.type
    order = [feature for feature in order if feature in held.declaration.configurable_features]
    context = {feature: value for feature in order if (value := request.query_params.get(f"on.{feature}"))}
    return _page(
        request,
        "setting.html",
        connection,
        status=status,
        setting=held.declaration,
        aliases=held.aliases,
        input=input_for(type_),
        put_in={rule.id: put_in(type_, rule.value) for rule in listed[:_RULES_SHOWN]},
        rules=[(rule, rule.conditions_in(order)) for rule in listed[:_RULES_SHOWN]],
        found=len(listed),
        total=len(rules),
        find=find,
        known=_known_values(rules),
        context=context,
        why=explain(rules, order, held.declaration.default_value, context, most=_RULES_SHOWN),
        order=order,
        changes=latest_changes(connection, setting=held.declaration.name, most=_RECENT),
        done=_done(connection, done, held.declaration.name),
        draft=draft or Draft({}, put_in(type_, held.declaration.default_value), {}),
        edited=edited,
    )


def _conditions_text(rule: StoredRule, order: Sequence[str]) -> str:
    return " ".join(f"{feature}={value}" for feature, value in rule.conditions_in(order))


def _known_values(rules: Sequence[StoredRule]) -> dict[str, list[str]]:
    """The values that rules have conditions on, by context feature."""
    known: dict[str, set[str]] = {}
    for rule in rules:
        for feature, value in rule.conditions:
            known.setdefault(feature, set()).add(value)
    return {feature: sorted(values)[:_RULES_SHOWN] for feature, values in known.items()}


def _done(connection: Connection, revision: int, setting: str) -> Change | None:
    """The change that was just made, unless another one followed it."""
    found = changes(connection, after=revision - 1, setting=setting, most=2) if revision > 0 else []
    return found[0] if len(found) == 1 and found[0].revision == revision else None


# -- rules -------------------------------------------------------------------------------------------------------------


@router.post("/settings/{name}/rules")
def add(request: Request, name: SettingName, database: RequestDatabase, form: Form) -> Response:
    """Add a rule."""
    with database.write() as connection:
        held = require_setting(connection, name)
        conditions = {f: text for f in held.declaration.configurable_features if (text := _text(form, f"if.{f}"))}
        errors: dict[str, str] = {}
        value = None
        try:
            value = parse(held.declaration.type, form.get("value", []))
        except InputError as error:
            errors["value"] = str(error)
        try:
            rule = NewRule(setting=held.declaration.name, feature_values=conditions, value=value)
        except ValidationError as error:
            errors |= _errors(error)
        if not errors:
            try:
                operations.add_rule(connection, rule.setting, rule.feature_values, rule.value, rule.metadata)
            except RefusalError as error:
                errors[""] = str(error.args[1])
        if errors:
            draft = Draft(conditions, form.get("value", []), errors)
            return _setting_page(request, connection, held, status=422, draft=draft)
        return _back_to(held, connection)


def _errors(error: ValidationError) -> dict[str, str]:
    """What is wrong with conditions, by the name of the input."""
    found: dict[str, str] = {}
    for problem in error.errors():
        _, *where = problem["loc"]
        message = problem["msg"].removeprefix("Value error, ")
        if where:
            message = "letters, digits and underscores only" if "pattern" in message else message
            found[f"if.{where[0]}"] = message
        else:
            found[""] = "at least one condition is needed" if problem["type"] == "too_short" else message
    return found


@router.post("/rules/{rule_id}/value")
def change(request: Request, rule_id: RuleId, database: RequestDatabase, form: Form) -> Response:
    """Give a rule another value."""
    with database.write() as connection:
        rule, held = require_rule(connection, rule_id, message="there is no such rule any more")
        try:
            value = parse(held.declaration.type, form.get("value", []))
            operations.set_rule_value(connection, held, rule, value)
        except (InputError, RefusalError) as error:
            return _setting_page(
                request, connection, held, status=422, edited=(rule_id, str(error.args[-1]), form.get("value", []))
            )
        return _back_to(held, connection)


@router.post("/rules/{rule_id}/delete")
def delete(rule_id: RuleId, database: RequestDatabase, form: Form) -> Response:  # noqa: ARG001 - it is checked
    """Delete a rule."""
    with database.write() as connection:
        rule, held = require_rule(connection, rule_id, message="there is no such rule any more")
        store.delete_rule(connection, held, rule)
        return _back_to(held, connection)


@router.post("/undo/{revision}")
def undo_change(revision: Revision, database: RequestDatabase, form: Form) -> Response:  # noqa: ARG001 - it is checked
    """Undo a change of a rule."""
    with database.write() as connection:
        found = changes(connection, after=revision - 1, most=1)
        if not found or found[0].revision != revision:
            raise RefusalError(404, "there is no such change")
        return _back_to(undo(connection, found[0]), connection)


def _back_to(held: StoredSetting, connection: Connection) -> Response:
    revision = state(connection).revision
    return RedirectResponse(f"/console/settings/{quote(held.declaration.name)}?done={revision}#done", 303)


# -- changes -----------------------------------------------------------------------------------------------------------


@router.get("/changes")
def list_changes(
    request: Request, database: RequestDatabase, setting: str = "", before: Revision | None = None
) -> Response:
    """The log of changes, the latest first."""
    with database.read() as connection:
        found = latest_changes(connection, before=before, setting=setting or None, most=_CHANGES_SHOWN + 1)
        shown, is_last = found[:_CHANGES_SHOWN], len(found) <= _CHANGES_SHOWN
        more = None if is_last else shown[-1].revision
        return _page(request, "changes.html", connection, changes=shown, setting_name=setting, more=more)


# -- logging in and out ------------------------------------------------------------------------------------------------


@router.get("/login")
def show_login(request: Request, next: str = "/console") -> Response:
    """Ask for a token."""
    return render(request, "login.html", next=next, error="")


@router.post("/login")
def log_in(request: Request, database: RequestDatabase, form: AnyForm) -> Response:
    """Begin a session with a token."""
    target = _text(form, "next")
    with database.read() as connection:
        token = find_token(connection, _text(form, "token"))
    if token is None:
        return render(request, "login.html", 422, next=target, error="this token is unknown, expired or revoked")
    with database.write() as connection:
        session = begin_session(connection, token)
    response = RedirectResponse(target if target.startswith("/console") else "/console", 303)
    security.set_session(request, response, session)
    return response


@router.post("/logout")
def log_out(request: Request, database: RequestDatabase, form: Form) -> Response:  # noqa: ARG001 - it is checked
    """End the session."""
    with database.write() as connection:
        end_session(connection, security.session_of(request))
        response = RedirectResponse("/console/login", 303)
        security.clear_session(response)
        return response


# -- what all of them share --------------------------------------------------------------------------------------------


def _text(form: Fields, name: str) -> str:
    return form.get(name, [""])[0].strip()


def _page(request: Request, template: str, connection: Connection, *, status: int = 200, **values: Any) -> Response:
    token = token_of(request.scope)
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
