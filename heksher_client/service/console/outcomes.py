"""The outcome of a form: errors in it, or the address of the page that says what was changed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from fastapi import Request, Response
from fastapi.responses import RedirectResponse
from pydantic import ValidationError
from sqlalchemy import Connection

from heksher_client.service.access import missing_role, request_token, visible_changes
from heksher_client.service.addresses import reference
from heksher_client.service.changes import Change, changes
from heksher_client.service.console.inputs import Fields
from heksher_client.service.history import read_state
from heksher_client.service.routing import RequestError
from heksher_client.service.store import StoredRule
from heksher_client.service.tokens import Role


class FormError(Exception):
    """A form that cannot be saved as it was entered."""

    def __init__(self, message: str, *, at: str = "", status: int = 422, rules: Sequence[StoredRule] = ()) -> None:
        """Create an error.

        Args:
            message: The message.
            at: The name of the input that the message belongs to; empty for the whole form.
            status: The status of the response.
            rules: The rules that are in the way.
        """
        super().__init__(message)
        self.errors: Mapping[str, str] = {at: message}
        self.status, self.rules = status, rules


@dataclass(frozen=True, slots=True)
class Entered:
    """The content of a form that was not saved, and the errors in it."""

    form: str = ""
    """The name of the form on its page; empty if all forms are as they were loaded."""
    fields: Fields = field(default_factory=dict)
    errors: Mapping[str, str] = field(default_factory=dict)
    """The messages by the name of the input. The name is empty for errors of the whole form."""
    rules: Sequence[StoredRule] = ()
    """The rules that are in the way."""

    def content(self, form: str, name: str, default: str) -> str:
        """Return the content of an input: what was entered, or the default."""
        return self.fields.get(name, [default])[0] if form == self.form else default

    def contents(self, form: str, name: str, default: Sequence[str]) -> Sequence[str]:
        """Return the contents of all inputs with a name, such as the checked checkboxes."""
        return self.fields.get(name, []) if form == self.form else default

    def error(self, form: str, name: str = "") -> str:
        """Return the message at an input; empty if there is none."""
        return self.errors.get(name, "") if form == self.form else ""


def validation_errors(error: ValidationError) -> dict[str, str]:
    """Return the messages of a validation by the name of the field; empty for the whole form."""
    found: dict[str, str] = {}
    for problem in error.errors():
        name = str(problem["loc"][0]) if problem["loc"] else ""
        is_pattern = problem["type"] == "string_pattern_mismatch"
        message = _PATTERNS.get(name, problem["msg"]) if is_pattern else problem["msg"]
        found.setdefault(name, message.removeprefix("Value error, "))
    return found


_SETTING_NAME: Final = "use letters, digits, underscores and dots"
_PATTERNS: Final = {
    "name": _SETTING_NAME,
    "alias": _SETTING_NAME,
    "context_feature": "use letters, digits and underscores",
    "version": "a version consists of two numbers, like 1.0",
}
"""The messages for texts that do not match their pattern, by the name of the field."""


def require_admin(request: Request) -> None:
    """Check that the operator may change something, for pages that consist of forms.

    Raises:
        RequestError: The token does not have the role `admin`.
    """
    token = request_token(request.scope)
    if token is not None and token.role is not Role.ADMIN:
        raise RequestError(403, missing_role(token, Role.ADMIN))


def redirect_to_done(request: Request, connection: Connection, page: str) -> Response:
    """Redirect to a page that says what was changed in this transaction.

    Args:
        request: The request.
        connection: The connection of the transaction.
        page: The path of the page, without a slash at its beginning.
    """
    revision = read_state(connection).revision
    return RedirectResponse(reference(request.scope, f"{page}?done={revision}#done"), 303)


def done_change(request: Request, connection: Connection, revision: int) -> Change | None:
    """Return the change of a revision; None if there is none."""
    found = changes(connection, after=revision - 1, limit=1) if revision > 0 else []
    found = visible_changes(request.scope, found)
    return found[0] if found and found[0].revision == revision else None
