"""What requests may hold, and what their handling has in common: names, values, transactions, refusals."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final

from fastapi import Depends, Path, Request
from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints
from sqlalchemy import Connection

from heksher_client.service.access import token_of
from heksher_client.service.database import Database
from heksher_client.service.setting_types import parse_setting_type

MOST_BYTES: Final = 1 << 20
"""Of the body of a request."""
_LONGEST_NAME: Final = 255
_LONGEST_TYPE: Final = 65_536
_MOST_FEATURES: Final = 100
"""That a setting may be configurable by, and a rule have conditions on."""
_LONGEST_CONDITIONS: Final = 2_000
"""The names and values of a rule's conditions together. They are a key of the database, and its keys have limits."""
_DEEPEST: Final = 100
"""How many lists and objects of a value may be inside each other. JSON libraries stop at a few hundred."""

ContextName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z_0-9]+$", max_length=_LONGEST_NAME)]
SettingName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z_0-9.]+$", max_length=_LONGEST_NAME)]
MetadataKey = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_-]+$", max_length=_LONGEST_NAME)]
Version = Annotated[str, StringConstraints(pattern=r"^[0-9]+\.[0-9]+$", max_length=100)]
Features = Annotated[list[ContextName], Field(min_length=1, max_length=_MOST_FEATURES)]


def _check_type(name: str) -> str:
    _check_json(name)
    parse_setting_type(name)
    return name


def _check_json(value: Any) -> Any:
    if _is_deeper_than(_DEEPEST, value):
        raise ValueError(f"more than {_DEEPEST} lists and objects inside each other")
    as_json(value)  # Python's parser lets NaN and lone surrogates through, which nobody else could read again
    return value


def _is_deeper_than(limit: int, value: Any) -> bool:
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return limit == 0 or any(_is_deeper_than(limit - 1, element) for element in inner)


def _check_digits(text: Any) -> Any:
    if not re.fullmatch("[0-9]{1,18}", str(text)):
        raise ValueError("a rule id is a whole number")
    return text


def _check_conditions(conditions: Mapping[str, str]) -> Mapping[str, str]:
    if sum(len(feature) + len(value) for feature, value in conditions.items()) > _LONGEST_CONDITIONS:
        raise ValueError(f"the conditions of a rule may have {_LONGEST_CONDITIONS} characters, all of them together")
    return conditions


TypeName = Annotated[str, StringConstraints(max_length=_LONGEST_TYPE), AfterValidator(_check_type)]
Conditions = Annotated[
    dict[ContextName, ContextName],
    Field(min_length=1, max_length=_MOST_FEATURES),
    AfterValidator(_check_conditions),
]
RuleId = Annotated[int, BeforeValidator(_check_digits), Path()]
JSONValue = Annotated[Any, AfterValidator(_check_json)]


class RefusalError(Exception):
    """An answer in plain text that is no success."""

    def __init__(self, status: int, text: str = "") -> None:
        super().__init__(status, text)


def _database(request: Request) -> Database:
    database: Database = request.app.state.database
    return database


OpenDatabase = Annotated[Database, Depends(_database)]


def actor_of(request: Request) -> str | None:
    """Who makes the changes of a request, where tokens tell."""
    token = token_of(request.scope)
    return None if token is None else token.name


def _transaction(request: Request, database: OpenDatabase) -> Iterator[Connection]:
    with database.begin(writes=request.method != "GET", actor=actor_of(request)) as connection:
        yield connection


# Of function scope: the transaction is committed before the answer is sent, so that whoever has it can rely on it.
Transaction = Annotated[Connection, Depends(_transaction, scope="function")]


def without(metadata: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Metadata without one of its keys, which must be there."""
    if key not in metadata:
        raise RefusalError(404, f"there is no metadata under the key {key}")
    return {name: value for name, value in metadata.items() if name != key}


def as_json(value: Any) -> bytes:
    """A value in JSON, without anything that is none."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
