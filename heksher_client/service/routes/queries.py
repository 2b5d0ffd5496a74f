"""Queries: the rules of settings, as clients ask for them."""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from sqlalchemy import Connection

from heksher_client.service import json_values, store
from heksher_client.service.context_filters import (
    ContextFilters,
    MalformedFilterError,
    RepeatedFeatureError,
    admits,
    parse_context_filters,
)
from heksher_client.service.names import SETTING_NAME
from heksher_client.service.query_cache import Answers, Part, Question, State, UnknownSettingsError, etag_of, state
from heksher_client.service.query_cache import tags as tags_of
from heksher_client.service.routing import RefusalError, RequestDatabase, documented, example

router: Final = APIRouter()
_RULE: Final = {"value": 200, "context_features": [["user", "jim"]], "rule_id": 1, "metadata": {"ticket": "OPS-17"}}


@router.get(
    "/api/v1/query",
    response_model=dict[str, Any],
    responses=documented(
        {
            400: "The filter names a context feature twice.",
            404: "There are no settings with some of the names.",
        },
        body={"settings": {"cache_size": {"default_value": 10, "rules": [_RULE]}}},
    ),
)
def query(
    request: Request,
    database: RequestDatabase,
    settings: Annotated[
        str | None,
        Query(pattern=f"^({SETTING_NAME}(,{SETTING_NAME})*)?$", openapi_examples=example("cache_size")),
    ] = None,
    context_filters: Annotated[str, Query(openapi_examples=example("environment:(prod),user:*"))] = "*",
    include_metadata: Annotated[bool, Query(openapi_examples=example(True))] = False,
    if_none_match: Annotated[list[str] | None, Header()] = None,
) -> Response:
    """The default values and rules of settings: all of them, or those named."""
    _filters(context_filters)
    question = Question(settings, context_filters, include_metadata)
    asked_for = ",".join(if_none_match or ())
    answers: Answers = request.app.state.answers
    with database.read() as connection:
        now = state(connection)
        etag = answers.etag(question, now)
        if etag is not None and _matches(asked_for, etag):
            return Response(status_code=304, headers=_headers(now, etag))
        try:
            tags = tags_of(connection, settings)
        except UnknownSettingsError as error:
            raise RefusalError(404, str(error)) from None
        etag = etag_of(now, question, tags)
        answers.remember(question, now, etag)
        if _matches(asked_for, etag):
            return Response(status_code=304, headers=_headers(now, etag))
        body = _body(connection, answers, now, question, tags)
        return Response(body, media_type="application/json", headers=_headers(now, etag))


def _headers(now: State, etag: str) -> dict[str, str]:
    # The revision tells programs that changes after it can be followed.
    return {"ETag": etag, "Heksher-Revision": str(now.revision)}


def _filters(text: str) -> ContextFilters | None:
    try:
        return parse_context_filters(text)
    except RepeatedFeatureError as error:
        raise RefusalError(400, str(error)) from None
    except MalformedFilterError as error:
        location = ("query", "context_filters")
        raise RequestValidationError([{"loc": location, "msg": str(error), "type": "value_error"}]) from None


def _body(connection: Connection, answers: Answers, now: State, question: Question, tags: Mapping[str, str]) -> bytes:
    """The answer, put together from what was said of each setting before and what has to be read."""
    parts = {name: Part(tag, now.context_features_tag, *question[1:]) for name, tag in tags.items()}
    bodies = {name: body for name, part in parts.items() if (body := answers.part(part)) is not None}
    for name, body in _read(connection, [name for name in tags if name not in bodies], question).items():
        bodies[name] = body
        answers.keep(parts[name], body)
    return b'{"settings":{%b}}' % b",".join(b'"%b":%b' % (name.encode(), bodies[name]) for name in tags)


def _read(connection: Connection, names: Sequence[str], question: Question) -> dict[str, bytes]:
    """What is answered for settings, each in JSON."""
    if not names:
        return {}
    filters, features = _filters(question.context_filters), store.context_features(connection)
    held = {
        held.id: held.declaration for held in store.settings(connection, store.setting_ids(connection, names).values())
    }
    rules: dict[int, list[dict[str, Any]]] = {key: [] for key in held}
    for rule in store.rules(connection, held):
        if admits(filters, rule.conditions):
            found = {"value": rule.value, "context_features": rule.conditions_in(features), "rule_id": rule.id}
            more = {"metadata": dict(rule.metadata)} if question.include_metadata else {}
            rules[rule.setting_id].append(found | more)
    return {
        declaration.name: json_values.encode({"default_value": declaration.default_value, "rules": rules[key]})
        for key, declaration in held.items()
    }


def _matches(if_none_match: str, etag: str) -> bool:
    return if_none_match.strip() == "*" or etag in re.findall(r'"[^"]*"', if_none_match)
