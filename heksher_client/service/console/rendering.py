"""From a template to an answer."""

from datetime import datetime
from typing import Any, Final

from fastapi import Request, Response
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined

from heksher_client.service import json_values
from heksher_client.service.console import security

_LONGEST: Final = 120
"""Characters of a value in a table."""


def _json(value: Any) -> str:
    return json_values.encode(value).decode()


def _short(value: Any) -> str:
    return json_values.shorten(value, _LONGEST)


def _time(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"


_TEMPLATES: Final = Environment(
    loader=PackageLoader("heksher_client.service.console"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters.update(json=_json, short=_short, time=_time)


def render_api() -> Response:
    """The page that documents the API."""
    return HTMLResponse(_TEMPLATES.get_template("api.html").render(), headers=security.HEADERS_OF_API)


def render(request: Request, template: str, status: int = 200, **values: Any) -> Response:
    """A page, with the headers that keep others out of it."""
    secret = security.form_secret(request)
    text = _TEMPLATES.get_template(template).render(csrf=secret, path=request.url.path, **values)
    response = HTMLResponse(text, status, security.HEADERS)
    security.begin_browsing(request, response)
    return response
