"""What requests may hold, and what their handling has in common: names, values, transactions, refusals."""

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, TypeAlias

from fastapi import APIRouter, Depends, Path, Request
from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints
from sqlalchemy import Connection

from heksher_client.service import json_values
from heksher_client.service.access import token_of
from heksher_client.service.database import Database
from heksher_client.service.names import CONTEXT_NAME, SETTING_NAME
from heksher_client.service.setting_types import parse_setting_type

MOST_BYTES: Final = 1 << 20
"""Of the body of a request."""
_LONGEST_NAME: Final = 255
_LONGEST_TYPE: Final = 65_536
_MOST_FEATURES: Final = 100
"""That a setting may be configurable by, and a rule have conditions on."""
_LONGEST_CONDITIONS: Final = 2_000
"""The names and values of a rule's conditions together. They are a key of the database, and its keys have limits."""


def _check_path(name: str) -> str:
    if name in (".", ".."):
        raise ValueError("this name means something else in a path")
    return name


ContextName = Annotated[str, StringConstraints(pattern=f"^{CONTEXT_NAME}$", max_length=_LONGEST_NAME)]
SettingName = Annotated[str, StringConstraints(pattern=f"^{SETTING_NAME}$", max_length=_LONGEST_NAME)]
NewSettingName = Annotated[SettingName, AfterValidator(_check_path)]
MetadataKey = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_-]+$", max_length=_LONGEST_NAME)]
Version = Annotated[str, StringConstraints(pattern=r"^[0-9]+\.[0-9]+$", max_length=100)]
Features = Annotated[list[ContextName], Field(min_length=1, max_length=_MOST_FEATURES)]


def _check_type(name: str) -> str:
    json_values.check(name)
    parse_setting_type(name)
    return name


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
JSONValue = Annotated[Any, AfterValidator(json_values.check)]


class RefusalError(Exception):
    """An answer in plain text that is no success."""

    def __init__(self, status: int, text: str = "") -> None:
        super().__init__(status, text)


async def _database(request: Request) -> Database:
    database: Database = request.app.state.database
    return database


OpenDatabase = Annotated[Database, Depends(_database)]


def actor_of(request: Request) -> str | None:
    """Who makes the changes of a request, where tokens tell."""
    token = token_of(request.scope)
    return None if token is None else token.name


Transaction: TypeAlias = Annotated[Connection, "the transaction of the request"]
"""What an endpoint asks for that reads or writes the database; it is committed before the answer is sent."""


@dataclass(frozen=True, slots=True)
class _Opening:
    """How the transaction of a request is to be opened."""

    database: Database
    writes: bool
    actor: str | None


async def _opening(request: Request) -> _Opening:
    return _Opening(request.app.state.database, request.method not in ("GET", "HEAD"), actor_of(request))


class Router(APIRouter):
    """A router of endpoints that run in one thread from the beginning of their transaction to its end.

    A transaction that is a dependency of its own begins in one thread and goes on in another one. Where all threads
    wait for its turn to end, there is none left for it to end in.
    """

    def add_api_route(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        """Add an endpoint with its transaction around it."""
        super().add_api_route(path, _in_transaction(endpoint), **options)


def _in_transaction(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(endpoint)
    names = [name for name, parameter in signature.parameters.items() if parameter.annotation == Transaction]
    if not names:
        return endpoint
    (name,) = names

    def run(**arguments: Any) -> Any:
        opening: _Opening = arguments.pop(name)
        with opening.database.begin(writes=opening.writes, actor=opening.actor) as connection:
            return endpoint(**arguments, **{name: connection})

    parameters = [
        parameter.replace(
            kind=parameter.KEYWORD_ONLY,
            annotation=Annotated[_Opening, Depends(_opening)] if parameter.name == name else parameter.annotation,
        )
        for parameter in signature.parameters.values()
    ]
    run.__name__, run.__doc__ = endpoint.__name__, endpoint.__doc__
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    run.__annotations__["return"] = signature.return_annotation
    return run


def without(metadata: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Metadata without one of its keys, which must be there."""
    if key not in metadata:
        raise RefusalError(404, f"there is no metadata under the key {key}")
    return {name: value for name, value in metadata.items() if name != key}
