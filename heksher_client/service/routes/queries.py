"""The endpoint of queries, by which clients read the rules of settings."""

import re
from collections.abc import Sequence
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from sqlalchemy import Connection

from heksher_client._core.settings.names import SETTING_NAME
from heksher_client.service import json_values, store
from heksher_client.service.context_filters import (
    ContextFilters,
    MalformedFilterError,
    RepeatedFeatureError,
    admits,
    parse_context_filters,
)
from heksher_client.service.query_cache import (
    QueryCache,
    QueryParameters,
    UnknownSettingsError,
    compute_etag,
    fragment_keys,
    setting_tags,
)
from heksher_client.service.routing import RequestDatabase, RequestError, documented, example

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
    """Return the default values and rules of all settings, or of those with the given names."""
    filters = _parse_filters(context_filters)
    parameters = QueryParameters(settings, context_filters, include_metadata)
    known_etags = ",".join(if_none_match or ())
    cache: QueryCache = request.app.state.query_cache
    with database.read() as connection:
        state = database.state(connection)
        etag = cache.etag(parameters, state)
        if etag is not None and _matches(known_etags, etag):
            return Response(status_code=304, headers={"ETag": etag})
        try:
            tags = setting_tags(connection, settings)
        except UnknownSettingsError as error:
            raise RequestError(404, str(error)) from None
        etag = compute_etag(state, parameters, tags)
        cache.store_etag(parameters, state, etag)
        if _matches(known_etags, etag):
            return Response(status_code=304, headers={"ETag": etag})
        keys = fragment_keys(state, parameters, tags)
        fragments = {name: fragment for name, key in keys.items() if (fragment := cache.fragment(key)) is not None}
        missing = [name for name in tags if name not in fragments]
        for name, fragment in _read_fragments(connection, missing, filters, include_metadata).items():
            fragments[name] = fragment
            cache.store_fragment(keys[name], fragment)
    body = b",".join(b'"%b":%b' % (name.encode(), fragments[name]) for name in tags)
    return Response(b'{"settings":{%b}}' % body, media_type="application/json", headers={"ETag": etag})


def _parse_filters(text: str) -> ContextFilters | None:
    try:
        return parse_context_filters(text)
    except RepeatedFeatureError as error:
        raise RequestError(400, str(error)) from None
    except MalformedFilterError as error:
        location = ("query", "context_filters")
        raise RequestValidationError([{"loc": location, "msg": str(error), "type": "value_error"}]) from None


def _read_fragments(
    connection: Connection, names: Sequence[str], filters: ContextFilters | None, include_metadata: bool
) -> dict[str, bytes]:
    """Read settings and their rules, and return the JSON for each setting by its name."""
    if not names:
        return {}
    order = store.context_features(connection)
    settings = store.settings(connection, store.setting_ids(connection, names).values())
    rules: dict[int, list[dict[str, Any]]] = {setting.id: [] for setting in settings}
    for rule in store.rules(connection, rules, only_in_effect=True):
        if admits(filters, rule.conditions):
            found = {"value": rule.value, "context_features": rule.conditions_in(order), "rule_id": rule.id}
            metadata = {"metadata": dict(rule.metadata)} if include_metadata else {}
            rules[rule.setting_id].append(found | metadata)
    return {
        setting.declaration.name: json_values.encode(
            {"default_value": setting.declaration.default_value, "rules": rules[setting.id]}
        )
        for setting in settings
    }


def _matches(if_none_match: str, etag: str) -> bool:
    return if_none_match.strip() == "*" or etag in re.findall(r'"[^"]*"', if_none_match)
