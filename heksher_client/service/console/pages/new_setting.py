"""The page by which a setting is created."""

from typing import Any, Final

from fastapi import APIRouter, Request, Response
from pydantic import ValidationError
from sqlalchemy import Connection

from heksher_client.service import setting_operations
from heksher_client.service.console.forms import Form, text
from heksher_client.service.console.inputs import TYPES, Fields, InputError, parse_text, parse_type
from heksher_client.service.console.metadata_inputs import entered_metadata, entered_rows
from heksher_client.service.console.outcomes import (
    Entered,
    FormError,
    redirect_to_done,
    require_admin,
    validation_errors,
)
from heksher_client.service.console.rendering import page
from heksher_client.service.routes.declarations import DeclaredSetting
from heksher_client.service.routing import RequestDatabase, RequestError

router: Final = APIRouter(prefix="/console", include_in_schema=False)
_FORM: Final = "new"


@router.get("/new")
def show_form(request: Request, database: RequestDatabase) -> Response:
    """Show the form for a new setting."""
    require_admin(request)
    with database.read() as connection:
        return _page(request, connection)


@router.post("/new")
def create_setting(request: Request, database: RequestDatabase, form: Form) -> Response:
    """Create a setting, and redirect to its page."""
    with database.write() as connection:
        try:
            declared = _declared(form)
            setting_operations.create(connection, declared.declaration())
        except FormError as error:
            return _page(request, connection, error.status, Entered(_FORM, form, error.errors))
        except ValidationError as error:
            return _page(request, connection, 422, Entered(_FORM, form, validation_errors(error)))
        except RequestError as error:
            return _page(request, connection, error.status, Entered(_FORM, form, {"": error.message}))
        return redirect_to_done(request, connection, f"console/settings/{declared.name}")


def _page(request: Request, connection: Connection, status: int = 200, entered: Entered | None = None) -> Response:
    rows = [] if entered is None else entered_rows(entered.fields)
    return page(
        request, "new_setting.html", connection, status=status, entered=entered or Entered(), types=TYPES, rows=rows
    )


def _declared(form: Fields) -> DeclaredSetting:
    """Return the setting that a form describes.

    Raises:
        FormError, ValidationError: It is invalid.
    """
    try:
        type_ = parse_type(text(form, "type"))
    except InputError as error:
        raise FormError(str(error), at="type") from None
    try:
        value: Any = parse_text(type_, form.get("value", [""])[0])
    except InputError as error:
        raise FormError(str(error), at="value") from None
    if not form.get("feature"):
        raise FormError("choose at least one context feature: rules need a condition", at="configurable_features")
    return DeclaredSetting(
        name=text(form, "name"),
        type=text(form, "type"),
        default_value=value,
        configurable_features=list(form["feature"]),
        metadata=entered_metadata(form),
    )
