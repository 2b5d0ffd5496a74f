"""Queries: the rules of settings, as clients ask for them."""

import re
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from sqlalchemy import Connection

from heksher_client.service import store
from heksher_client.service.answers import Answers, Missing, Question, state
from heksher_client.service.answers import etag as find_etag
from heksher_client.service.context_filters import (
    ContextFilters,
    MalformedFilterError,
    RepeatedFeatureError,
    admits,
    parse_context_filters,
)
from heksher_client.service.requests import RefusalError, Transaction, as_json

router: Final = APIRouter()


@router.get("/api/v1/query")
def query(
    request: Request,
    connection: Transaction,
    settings: Annotated[str | None, Query(pattern=r"^([a-zA-Z_0-9.]+(,[a-zA-Z_0-9.]+)*)?$")] = None,
    context_filters: str = "*",
    include_metadata: bool = False,
    if_none_match: Annotated[list[str] | None, Header()] = None,
) -> Response:
    """The default values and rules of settings: all of them, or those named."""
    filters = _filters(context_filters)
    question = Question(settings, context_filters, include_metadata)
    answers: Answers = request.app.state.answers
    now = state(connection)
    etag = answers.etag(question, now) or find_etag(connection, now, question)
    if isinstance(etag, Missing):
        raise RefusalError(404, f"the following are not setting names: {etag.names}")
    answers.remember(question, now, etag)
    if _matches(",".join(if_none_match or ()), etag):
        return Response(status_code=304, headers={"ETag": etag})
    body = answers.body(etag)
    if body is None:
        body = _answer(connection, settings, filters, include_metadata=include_metadata)
        answers.keep(etag, body)
    return Response(body, media_type="application/json", headers={"ETag": etag})


def _filters(text: str) -> ContextFilters | None:
    try:
        return parse_context_filters(text)
    except RepeatedFeatureError as error:
        raise RefusalError(400, str(error)) from None
    except MalformedFilterError as error:
        location = ("query", "context_filters")
        raise RequestValidationError([{"loc": location, "msg": str(error), "type": "value_error"}]) from None


def _answer(
    connection: Connection, settings: str | None, filters: ContextFilters | None, *, include_metadata: bool
) -> bytes:
    keys = None if settings is None else set(store.setting_ids(connection, settings.split(",")).values())
    wanted = store.settings(connection, keys)
    features = store.context_features(connection)
    answers: dict[int, dict[str, Any]] = {
        held.id: {"default_value": held.declaration.default_value, "rules": []} for held in wanted
    }
    for rule in store.rules(connection, keys):
        if not admits(filters, rule.conditions):
            continue
        found = {"value": rule.value, "context_features": rule.conditions_in(features), "rule_id": rule.id}
        answers[rule.setting_id]["rules"].append(
            found | {"metadata": dict(rule.metadata)} if include_metadata else found
        )
    return as_json({"settings": {held.declaration.name: answers[held.id] for held in wanted}})


def _matches(if_none_match: str, etag: str) -> bool:
    return if_none_match.strip() == "*" or etag in re.findall(r'"[^"]*"', if_none_match)
