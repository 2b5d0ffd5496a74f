"""Forms that pages submit: their fields, and the checks of where they come from."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Final
from urllib.parse import parse_qs

from fastapi import Depends, Request
from pydantic import ValidationError

from heksher_client.service.console import security
from heksher_client.service.console.inputs import Fields
from heksher_client.service.routing import RequestError

MAX_FIELDS: Final = 25_000
"""Fields of a form. A type has room for fewer flags."""


_HIDDEN_FIELDS: Final = ("csrf", "back", "confirmed", "copy", "etag", "filter", "rule", "setting", "tag")
"""Fields that nobody enters, by their names."""


class ExpiredFormError(RequestError):
    """A form of a session that has ended. Its page shows what was entered."""

    def __init__(self, error: RequestError, fields: Fields) -> None:
        super().__init__(error.status, error.message)
        self.entered = entered(fields)


def entered(fields: Fields) -> Mapping[str, Sequence[str]]:
    """Return what somebody has entered into a form, by the names of the inputs or context features."""
    found = {name.removeprefix("if."): [value for value in values if value] for name, values in fields.items()
             if name not in _HIDDEN_FIELDS}  # fmt: skip
    return {name: values for name, values in found.items() if values}


async def _read_form(request: Request) -> Fields:
    """Return the fields of a submitted form, after a check of its origin."""
    security.check_origin(request)
    text = (await request.body()).decode(errors="replace")
    try:
        return parse_qs(text, keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError:
        raise RequestError(413, f"the form has more than {MAX_FIELDS:,} fields") from None


async def _read_checked_form(request: Request, fields: Annotated[Fields, Depends(_read_form)]) -> Fields:
    """Return the fields of a submitted form, after a check of its CSRF token."""
    try:
        security.check_csrf_token(request, fields.get("csrf", [""])[0])
    except RequestError as error:
        raise ExpiredFormError(error, fields) from None
    return fields


LoginForm = Annotated[Fields, Depends(_read_form)]
Form = Annotated[Fields, Depends(_read_checked_form)]


def text(form: Fields, name: str) -> str:
    """Return the first value of a field without surrounding spaces; empty if the form does not have the field."""
    return form.get(name, [""])[0].strip()


def query_fields(request: Request) -> dict[str, list[str]]:
    """Return the fields of a query string, like those of a form."""
    fields: dict[str, list[str]] = {}
    for name, value in request.query_params.multi_items():
        fields.setdefault(name, []).append(value)
    return fields


def resubmitted(form: Fields, **replaced: Sequence[str]) -> dict[str, Sequence[str]]:
    """Return the fields with which a form can be submitted again, once its author has decided what to do.

    Args:
        form: The fields of the form.
        **replaced: Fields that are submitted with other values.
    """
    return {name: values for name, values in form.items() if name not in ("csrf", "confirmed")} | replaced


def condition_errors(error: ValidationError) -> dict[str, str]:
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
