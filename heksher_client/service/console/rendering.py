"""The templates of the console, and the responses that they are rendered to."""

import re
from datetime import datetime
from typing import Any, Final

from fastapi import Request, Response
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from sqlalchemy import Connection

from heksher_client._logging import escaped, visible_json
from heksher_client._version import __version__
from heksher_client.service import json_values, store
from heksher_client.service.access import is_admin, request_token
from heksher_client.service.addresses import reference, route_path
from heksher_client.service.console import security
from heksher_client.service.console.change_entries import change_entry
from heksher_client.service.console.emoji import with_emoji
from heksher_client.service.console.undo import UNDOABLE

_MAX_VALUE_LENGTH: Final = 120
"""Characters of a value in a table."""


def _json(value: Any) -> str:
    return visible_json(value, separators=(",", ":"))


def _short(value: Any) -> str:
    return json_values.shorten(value, _MAX_VALUE_LENGTH)


def _visible(output: Any) -> Any:
    """Escape invisible characters in all that a page shows. The content of inputs is `Markup`: it must not change."""
    return output if isinstance(output, Markup) else with_emoji(escaped(str(output)))


def utc_time(at: datetime) -> str:
    """Return a time as pages show it."""
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"


def _is_address(value: Any) -> bool:
    """Return True if a link may lead to a value: scripts have addresses as well."""
    return isinstance(value, str) and re.fullmatch(r"https?://[^\s]+", value) is not None


_TEMPLATES: Final = Environment(
    loader=PackageLoader("heksher_client.service.console"),
    autoescape=True,
    undefined=StrictUndefined,
    finalize=_visible,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters.update(json=_json, short=_short, time=utc_time, entry=change_entry)
_TEMPLATES.tests.update(address=_is_address)


def render_api(request: Request) -> Response:
    """Return the page that documents the API."""
    text = _TEMPLATES.get_template("api.html").render(root=reference(request.scope, ""))
    return HTMLResponse(text, headers=security.API_HEADERS)


def render(request: Request, template: str, status: int = 200, **values: Any) -> Response:
    """Return a page with security headers and a session cookie."""
    secret = security.csrf_token(request)
    places = {"path": route_path(request.scope), "root": reference(request.scope, "")}
    text = _TEMPLATES.get_template(template).render(csrf=secret, **places, **values)
    response = HTMLResponse(text, status, security.HEADERS)
    security.ensure_session(request, response)
    return response


def page(request: Request, template: str, connection: Connection, *, status: int = 200, **values: Any) -> Response:
    """Return a page with what all pages of logged-in users show."""
    token = request_token(request.scope)
    return render(
        request,
        template,
        status,
        features=store.context_features(connection),
        token=token,
        may_change=is_admin(request.scope),
        undoable=UNDOABLE,
        version=__version__,
        **values,
    )
