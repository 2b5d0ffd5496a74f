"""Forms that pages submit: their fields, the checks of where they come from, and the rules that they describe."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Final
from urllib.parse import parse_qs

from fastapi import Depends, Request
from pydantic import ValidationError

from heksher_client.service.console import security
from heksher_client.service.console.inputs import Fields
from heksher_client.service.routing import RequestError
from heksher_client.service.store import StoredSetting

MAX_FIELDS: Final = 25_000
"""Fields of a form. A type has room for fewer flags."""


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
    security.check_csrf_token(request, fields.get("csrf", [""])[0])
    return fields


LoginForm = Annotated[Fields, Depends(_read_form)]
Form = Annotated[Fields, Depends(_read_checked_form)]


@dataclass(frozen=True, slots=True)
class Draft:
    """The content of the form for a new rule, with the errors in it."""

    conditions: Mapping[str, str]
    value: Sequence[str]
    errors: Mapping[str, str]
    """The messages by the name of the input. The name is empty for errors of the whole form."""


def text(form: Fields, name: str) -> str:
    """Return the first value of a field without surrounding spaces; empty if the form does not have the field."""
    return form.get(name, [""])[0].strip()


def conditions(form: Fields, setting: StoredSetting) -> dict[str, str]:
    """Return the conditions that a form contains, by context feature."""
    features = setting.declaration.configurable_features
    return {feature: value for feature in features if (value := text(form, f"if.{feature}"))}


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
