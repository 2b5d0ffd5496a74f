"""The common parts of the endpoints: types of parameters and bodies, errors, transactions, and OpenAPI examples."""

import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from fastapi import Depends, Header, Path, Request
from fastapi.openapi.models import Example
from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, ValidationInfo, WithJsonSchema
from sqlalchemy import Connection
from starlette.types import Scope

from heksher_client._core.settings.context_values import CONTEXT_VALUE, MAX_CONTEXT_VALUE, check_value
from heksher_client._core.settings.names import CONTEXT_NAME, METADATA_KEY, SETTING_NAME, TOKEN_NAME, VERSION
from heksher_client.service import json_values
from heksher_client.service.access import request_token
from heksher_client.service.database import Database
from heksher_client.service.history import State, read_state, set_response_state
from heksher_client.service.setting_types import parse_setting_type
from heksher_client.service.store import encode_conditions

MAX_BODY_BYTES: Final = 1 << 20
_MAX_NAME_LENGTH: Final = 255
_MAX_ID_DIGITS: Final = 18
_MAX_TYPE_LENGTH: Final = 65_536
_MAX_FEATURES: Final = 100
"""Configurable features of a setting, and conditions of a rule."""
MAX_NOTE: Final = 2_000
"""Characters of a comment or a link."""
_MAX_CONDITIONS_LENGTH: Final = 2_600
"""Bytes of the conditions of a rule as they are stored. They are a key, which PostgreSQL limits to 2,704 bytes."""


def _check_path(name: str) -> str:
    if name in (".", ".."):
        raise ValueError(f"{name} is not a valid name, because it has a meaning in paths")
    return name


ContextName = Annotated[str, StringConstraints(pattern=f"^{CONTEXT_NAME}$", max_length=_MAX_NAME_LENGTH)]
SettingName = Annotated[str, StringConstraints(pattern=f"^{SETTING_NAME}$", max_length=_MAX_NAME_LENGTH)]
NewSettingName = Annotated[SettingName, AfterValidator(_check_path)]
ContextValue = Annotated[
    str,
    AfterValidator(check_value),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": MAX_CONTEXT_VALUE, "pattern": f"^{CONTEXT_VALUE}$"}),
]
NewTokenName = Annotated[
    str, StringConstraints(pattern=f"^{TOKEN_NAME}$", max_length=_MAX_NAME_LENGTH), AfterValidator(_check_path)
]
MetadataKey = Annotated[str, StringConstraints(pattern=f"^{METADATA_KEY}$", max_length=_MAX_NAME_LENGTH)]
Version = Annotated[str, StringConstraints(pattern=f"^{VERSION}$", max_length=100)]
Features = Annotated[list[ContextName], Field(min_length=1, max_length=_MAX_FEATURES)]


def _check_type(name: str) -> str:
    json_values.check(name)
    json_values.check(str(parse_setting_type(name)))  # Without escapes, which may be lone surrogates as well.
    return name


def _check_digits(text: Any) -> Any:
    if not re.fullmatch("-?[0-9]+", str(text)):
        raise ValueError("a rule id is a whole number")
    digits = str(text).lstrip("0")
    # No rule has the id 0. Python does not convert very long numbers, and databases do not compare ids with them.
    return digits if re.fullmatch(f"[0-9]{{1,{_MAX_ID_DIGITS}}}", digits) else "0"


def _check_conditions(conditions: Mapping[str, str]) -> Mapping[str, str]:
    length = len(encode_conditions(conditions).encode())
    if length > _MAX_CONDITIONS_LENGTH:
        raise ValueError(
            f"the conditions of a rule may have at most {_MAX_CONDITIONS_LENGTH} bytes in total, in UTF-8 and with 10 "
            f"for each in addition to its name and value; these have {length}"
        )
    return conditions


TypeName = Annotated[str, StringConstraints(max_length=_MAX_TYPE_LENGTH), AfterValidator(_check_type)]
Conditions = Annotated[
    dict[ContextName, ContextValue],
    Field(min_length=1, max_length=_MAX_FEATURES),
    AfterValidator(_check_conditions),
]
RuleId = Annotated[int, BeforeValidator(_check_digits), Path()]


def _parse_time(value: Any) -> datetime:
    try:
        time = value if isinstance(value, datetime) else datetime.fromisoformat(value)
        if time.tzinfo is not None:
            return time.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        pass
    raise ValueError("a time must be a text in ISO 8601 with an offset, like 2027-01-31T09:30:00Z")


def _check_end(ends_at: datetime | None, info: ValidationInfo) -> datetime | None:
    starts_at = info.data.get("starts_at")
    if ends_at is not None and starts_at is not None and ends_at <= starts_at:
        raise ValueError("ends_at must be later than starts_at")
    return ends_at


Time = Annotated[datetime, BeforeValidator(_parse_time), WithJsonSchema({"type": "string", "format": "date-time"})]
EndTime = Annotated[Time | None, AfterValidator(_check_end)]
"""The end of a period. The field `starts_at` of the same model must come before this one."""
JSONValue = Annotated[Any, AfterValidator(json_values.check)]
Note = Annotated[str, StringConstraints(max_length=MAX_NOTE), AfterValidator(json_values.check)]
"""A comment or a link, the reason for a change."""


class RequestError(Exception):
    """A request that is answered with an error status and a message in plain text."""

    def __init__(self, status: int, message: str = "", *, shown: str = "") -> None:
        """Create an error.

        Args:
            status: The status of the response.
            message: The message.
            shown: The message in pages, if it is not the same: the API has those of the reference implementation.
        """
        super().__init__(status, message)
        self.status, self.message, self.shown = status, message, shown or message


@dataclass(slots=True)
class _RequestDatabase:
    """The transactions of a request. Each endpoint opens its own, in its first line."""

    # Not a dependency with `yield`: FastAPI runs the beginning and the end of one as two jobs of its thread pool. All
    # threads may wait for the write lock of an open transaction; then none is left that could end it. An endpoint runs
    # in one thread from the beginning of its transaction to the end.

    _database: Database
    _actor: str | None
    _scope: Scope
    _state: State | None = None
    """The state that a transaction sees that only reads."""

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a transaction that only reads."""
        with self._database.read() as (connection, self._state):
            try:
                yield connection
            finally:
                self._state = None

    def write(self) -> AbstractContextManager[Connection]:
        """Return a transaction whose changes are recorded with the name of the request's token."""
        return self._database.begin(actor=self._actor)

    def state(self, connection: Connection) -> State:
        """Return the state that a transaction sees, which the headers of the response will say."""
        state = self._state or read_state(connection)
        set_response_state(self._scope, state)
        return state


async def _request_database(request: Request) -> _RequestDatabase:
    token = request_token(request.scope)
    return _RequestDatabase(request.app.state.database, None if token is None else token.name, request.scope)


RequestDatabase = Annotated[_RequestDatabase, Depends(_request_database)]


def example(value: Any) -> dict[str, Example]:
    """Return FastAPI's `openapi_examples` with one example of a parameter or a body."""
    return {"example": {"value": value}}


class _Precondition:
    """The preconditions of a change, if the request has one: the ETag of what its author has read."""

    def __init__(
        self,
        if_match: Annotated[list[str] | None, Header(openapi_examples=example("*"))] = None,
        if_none_match: Annotated[list[str] | None, Header(include_in_schema=False)] = None,
    ) -> None:
        self._if_match = None if if_match is None else ",".join(if_match)
        self._if_none_match = ",".join(if_none_match or ())

    def check(self, etag: str) -> None:
        """Check that a rule or a setting has not been changed since it was read.

        Raises:
            RequestError: It has another ETag than the request requires, or one that the request excludes.
        """
        if self._if_none_match.strip() == "*" or etag in re.findall(r'"[^"]*"', self._if_none_match):
            raise RequestError(412, "it exists with an ETag that `If-None-Match` excludes")
        # Proxies that compress responses make strong ETags weak, so both are the same here.
        if self._if_match is None or self._if_match.strip() == "*" or etag in re.findall(r'"[^"]*"', self._if_match):
            return
        raise RequestError(412, "it has been changed since it was read; read it again before you change it")


def _refuse_precondition(if_match: Annotated[str | None, Header(include_in_schema=False)] = None) -> None:
    """Refuse `If-Match`, which must not be ignored. No ETag can match where there is none.

    Raises:
        RequestError: The request has this header.
    """
    if if_match is not None:
        raise RequestError(
            412, "nothing was changed: there is no ETag that `If-Match` could contain here; send the request without it"
        )


WITHOUT_ETAG: Final = [Depends(_refuse_precondition)]
"""The dependencies of changes that have no ETag."""
NO_ETAG: Final = {412: "`If-Match` was sent, and there is no ETag."}
Precondition = Annotated[_Precondition, Depends()]
PRECONDITION_FAILED: Final = {412: "`If-Match` was sent, and does not contain the current ETag."}


def documented(
    errors: Mapping[int, str] | None = None, *, body: Any = None, status: int = 200
) -> dict[int | str, dict[str, Any]]:
    """Return FastAPI's `responses`.

    Args:
        errors: The meaning of each error status.
        body: An example of the body of a successful response. It must not contain None, which FastAPI removes.
        status: The status of a successful response.
    """
    responses: dict[int | str, dict[str, Any]] = {
        error: {"description": meaning} for error, meaning in (errors or {}).items()
    }
    if body is not None:
        responses[status] = {"content": {"application/json": {"example": body}}}
    return responses


def without_key(metadata: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return metadata without a key.

    Raises:
        RequestError: There is no such key.
    """
    if key not in metadata:
        raise RequestError(404, f"there is no metadata key {key}")
    return {name: value for name, value in metadata.items() if name != key}
