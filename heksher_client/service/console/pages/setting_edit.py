"""The page by which the declaration of a setting is changed, and its actions.

Each form contains the ETag of the setting as it was shown. If somebody else has changed the setting since, nothing is
saved: the page shows what the setting is now and what was entered, and asks again.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ValidationError
from sqlalchemy import Connection

from heksher_client.service import feature_operations, json_values, setting_operations, store
from heksher_client.service.change_filter import ChangeFilter
from heksher_client.service.changes import latest_changes
from heksher_client.service.console.forms import Form, text
from heksher_client.service.console.inputs import (
    Fields,
    InputError,
    format_input,
    input_for,
    keep_line_breaks,
    parse_input,
    parse_type,
)
from heksher_client.service.console.metadata_inputs import (
    description_of,
    entered_metadata,
    entered_rows,
    metadata_rows,
)
from heksher_client.service.console.outcomes import (
    Entered,
    FormError,
    done_change,
    redirect_to_done,
    require_admin,
    validation_errors,
)
from heksher_client.service.console.pages.setting_confirmation import change_confirmed, save
from heksher_client.service.console.pages.settings import Revision
from heksher_client.service.console.rendering import page, utc_time
from heksher_client.service.operations import require_setting, setting_etag
from heksher_client.service.routes.settings import NewFeatures, NewMetadata, NewName, NewType, NewVersion
from heksher_client.service.routing import NewSettingName, RequestDatabase, RequestError
from heksher_client.service.rule_search import ALL_RULES, count_rules
from heksher_client.service.store import StoredSetting

router: Final = APIRouter(prefix="/console/settings/{name}/edit", include_in_schema=False)
_MAX_RULES_IN_THE_WAY: Final = 100
_MAX_VALUE_LENGTH: Final = 500
"""Characters of a value in a message."""
_LAST_CHANGES: Final = 50
"""The number of changes among which the last one of the declaration is searched."""

Change = Callable[[Connection, StoredSetting], None]


class NewAlias(BaseModel):
    alias: NewSettingName


@router.get("")
def show_forms(request: Request, name: str, database: RequestDatabase, done: Revision = 0) -> Response:
    """Show the forms for a setting."""
    require_admin(request)
    with database.read() as connection:
        return _page(request, connection, require_setting(connection, name), done=done)


@router.post("/name")
def rename(request: Request, name: str, database: RequestDatabase, form: Form) -> Response:
    """Rename a setting."""

    def change(connection: Connection, setting: StoredSetting) -> None:
        new = NewName(name=text(form, "name"), version=_version(form, setting))
        _refuse_same(new.name == setting.declaration.name, at="name")
        setting_operations.rename(connection, setting, new.name, new.version)

    return _save(request, name, database, form, "name", change)


@router.post("/type")
def set_type(request: Request, name: str, database: RequestDatabase, form: Form) -> Response:
    """Change the type of a setting."""

    def change(connection: Connection, setting: StoredSetting) -> None:
        try:
            new = parse_type(text(form, "type"))
        except InputError as error:
            raise FormError(str(error), at="type") from None
        former = setting.declaration.type
        _refuse_same(new == former, at="type")
        version = _version(form, setting, is_major=not new.is_subtype_of(former))
        checked = NewType(type=text(form, "type"), version=version)
        if conflicts := setting_operations.set_type(connection, setting, new, checked.version):
            rules = setting_operations.rules_not_of_type(connection, setting, new)
            raise FormError(_type_conflict(conflicts, len(rules)), at="type", status=409, rules=rules)

    return _save(request, name, database, form, "type", change)


@router.post("/features")
def set_features(request: Request, name: str, database: RequestDatabase, form: Form) -> Response:
    """Change the configurable features of a setting."""

    def change(connection: Connection, setting: StoredSetting) -> None:
        former = set(setting.declaration.configurable_features)
        new = set(form.get("feature", ()))
        if not new:
            raise FormError("choose at least one context feature: rules need a condition", at="configurable_features")
        _refuse_same(new == former, at="configurable_features")
        if rules := setting_operations.rules_with_conditions_on(connection, setting, former - new):
            raise FormError(
                f"{_count(len(rules), 'rule')} with a condition on a removed feature: delete or change them first",
                at="configurable_features",
                status=409,
                rules=rules,
            )
        version = _version(form, setting, is_major=bool(new - former))
        features = NewFeatures(configurable_features=sorted(new), version=version)
        setting_operations.set_features(connection, setting, features.configurable_features, features.version)

    return _save(request, name, database, form, "features", change)


@router.post("/default")
def set_default_value(request: Request, name: str, database: RequestDatabase, form: Form) -> Response:
    """Change the default value of a setting."""

    def change(connection: Connection, setting: StoredSetting) -> None:
        try:
            value = parse_input(setting.declaration.type, form.get("value", []))
        except InputError as error:
            raise FormError(str(error), at="value") from None
        value = keep_line_breaks(value, setting.declaration.default_value)
        _refuse_same(json_values.is_identical(value, setting.declaration.default_value), at="value")
        new = NewVersion(version=_version(form, setting))
        setting_operations.set_default_value(connection, setting, value, new.version)

    return _save(request, name, database, form, "default", change)


@router.post("/metadata")
def set_metadata(request: Request, name: str, database: RequestDatabase, form: Form) -> Response:
    """Replace the description and the other metadata of a setting."""

    def change(connection: Connection, setting: StoredSetting) -> None:
        metadata = entered_metadata(form)
        _refuse_same(json_values.is_identical(metadata, dict(setting.declaration.metadata)), at="metadata")
        new = NewMetadata(metadata=metadata, version=_version(form, setting))
        setting_operations.set_metadata(connection, setting, new.metadata, new.version)

    return _save(request, name, database, form, "metadata", change)


@router.post("/aliases")
def add_alias(request: Request, name: str, database: RequestDatabase, form: Form) -> Response:
    """Add an alias."""

    def change(connection: Connection, setting: StoredSetting) -> None:
        new = NewAlias(alias=text(form, "alias"))
        _refuse_same(new.alias in setting.aliases, at="alias")
        setting_operations.add_alias(connection, setting, new.alias)

    return _save(request, name, database, form, "aliases", change)


@router.post("/aliases/delete")
def delete_alias(request: Request, name: str, database: RequestDatabase, form: Form) -> Response:
    """Delete an alias."""

    def change(connection: Connection, setting: StoredSetting) -> None:
        setting_operations.delete_alias(connection, setting, text(form, "alias"))

    return _save(request, name, database, form, "aliases", change)


@router.post("/delete")
def delete_setting(request: Request, name: str, database: RequestDatabase, form: Form) -> Response:
    """Delete a setting, if neither it nor its rules have changed since the page showed what is deleted with it."""

    def delete(connection: Connection) -> Response:
        setting = _require_setting(connection, name)
        if text(form, "tag") != setting_operations.content_tag(connection, setting):
            message = (
                "The setting or its rules have been changed since the page was loaded: see below. Delete it again?"
            )
            return _page(request, connection, setting, status=409, entered=Entered("delete", form, {"": message}))
        change_confirmed(connection, form, setting, store.delete_setting)
        return redirect_to_done(request, connection, "console")

    return save(request, database, form, delete)


def _save(request: Request, name: str, database: RequestDatabase, form: Fields, what: str, change: Change) -> Response:
    """Make a change, and redirect to the page; or show the page with the errors, or the one that asks for confirmation.

    Args:
        request: The request.
        name: The name of the setting in the address.
        database: The database of the request.
        form: The form.
        what: The name of the form.
        change: Checks the form, and makes the change.
    """

    def make_change(connection: Connection) -> Response:
        setting = _require_setting(connection, name)
        try:
            _check_unchanged(connection, form, setting, what)
            change_confirmed(connection, form, setting, change)
        except FormError as error:
            status, entered = error.status, Entered(what, form, error.errors, error.rules)
        except ValidationError as error:
            status, entered = 422, Entered(what, form, validation_errors(error))
        except RequestError as error:
            status, entered = error.status, Entered(what, form, {"": error.shown})
        else:
            (changed,) = store.settings(connection, [setting.id])
            return redirect_to_done(request, connection, f"console/settings/{changed.declaration.name}/edit")
        return _page(request, connection, setting, status=status, entered=entered)

    return save(request, database, form, make_change)


def _page(
    request: Request,
    connection: Connection,
    setting: StoredSetting,
    *,
    status: int = 200,
    entered: Entered | None = None,
    done: int = 0,
) -> Response:
    """Return the page of the forms for a setting.

    Args:
        request: The request.
        connection: The connection of the transaction.
        setting: The setting.
        status: The status of the response.
        entered: The form that could not be saved.
        done: The revision of the change that was just made.
    """
    entered = entered or Entered()
    declaration = setting.declaration
    order = store.context_features(connection)
    counts = feature_operations.count_rules_by_feature(connection, order, setting)
    response = page(
        request,
        "setting_edit.html",
        connection,
        status=status,
        setting=declaration,
        aliases=setting.aliases,
        etag=setting_etag(setting),
        tag=setting_operations.content_tag(connection, setting),
        versions=setting_operations.next_versions(setting),
        input=input_for(declaration.type),
        default=format_input(declaration.type, declaration.default_value),
        description=description_of(declaration.metadata),
        rows=entered_rows(entered.fields) if entered.form == "metadata" else metadata_rows(declaration.metadata),
        feature_rules=counts,
        rules=count_rules(connection, setting.id, ALL_RULES),
        in_the_way=[(rule, rule.conditions_in(order)) for rule in entered.rules[:_MAX_RULES_IN_THE_WAY]],
        entered=entered,
        done=done_change(request, connection, done),
        back=f"/console/settings/{declaration.name}/edit",
    )
    if entered.form:  # The form stays where it is on the screen, and a reload shows the page without it.
        response.headers.update({"HX-Reswap": "innerHTML show:none", "HX-Push-Url": "false"})
    return response


def _require_setting(connection: Connection, name: str) -> StoredSetting:
    return require_setting(connection, name, message=f"the setting {name} does not exist any more")


def _check_unchanged(connection: Connection, form: Fields, setting: StoredSetting, what: str) -> None:
    """Check that a setting is as the page of a form has shown it.

    Raises:
        FormError: It has been changed. The message says by whom and when, and what it is now.
    """
    if text(form, "etag") == setting_etag(setting):
        return
    recent = latest_changes(connection, ChangeFilter(setting=setting.declaration.name), limit=_LAST_CHANGES)
    change = next((one for one in recent if not one.action.startswith("rule ")), None)
    author = "Somebody" if change is None or change.actor is None else change.actor
    at = "" if change is None else f" ({utc_time(change.at)})"
    raise FormError(
        f"{author} has changed the setting since the page was loaded{at}. {_present(setting, what)} You entered what "
        "is below: save it again to replace that.",
        status=409,
    )


def _present(setting: StoredSetting, what: str) -> str:
    """Return a sentence with the present state of what a form changes."""
    declaration = setting.declaration
    names: Sequence[str] = setting.aliases
    states: dict[str, tuple[str, Any]] = {
        "name": ("name is", declaration.name),
        "type": ("type is", str(declaration.type)),
        "features": ("configurable features are", list(declaration.configurable_features)),
        "default": ("default value is", declaration.default_value),
        "metadata": ("metadata are", dict(declaration.metadata)),
    }
    noun, value = states.get(what, ("aliases are", list(names)))
    return f"Its {noun} now {json_values.shorten(value, _MAX_VALUE_LENGTH)}."


def _version(form: Fields, setting: StoredSetting, *, is_major: bool = False) -> str:
    """Return the version that was entered, or else the next one."""
    return text(form, "version") or setting_operations.next_versions(setting)[is_major]


def _refuse_same(is_same: bool, *, at: str) -> None:
    if is_same:
        raise FormError("the setting has this already, so nothing was changed", at=at)


def _type_conflict(conflicts: Sequence[str], rules: int) -> str:
    """Return the reasons why a type cannot be changed: those that are about rules as one, since they are listed."""
    others = [conflict for conflict in conflicts if not conflict.startswith("rule ")]
    counted = [f"{_count(rules, 'rule')} with a value that is not of the new type: change or delete them first"]
    return "; ".join(others + (counted if rules else []))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
