"""Queries: the rules of settings, as clients ask for them."""

import hashlib
import re
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Query, Response
from fastapi.exceptions import RequestValidationError
from sqlalchemy import Connection

from heksher_client.service import store
from heksher_client.service.context_filters import (
    MalformedFilterError,
    RepeatedFeatureError,
    admits,
    parse_context_filters,
)
from heksher_client.service.requests import RefusalError, Transaction, as_json
from heksher_client.service.store import StoredSetting

router: Final = APIRouter()


@router.get("/api/v1/query")
def query(
    connection: Transaction,
    settings: Annotated[str | None, Query(pattern=r"^([a-zA-Z_0-9.]+(,[a-zA-Z_0-9.]+)*)?$")] = None,
    context_filters: str = "*",
    include_metadata: bool = False,
    if_none_match: Annotated[list[str] | None, Header()] = None,
) -> Response:
    """The default values and rules of settings: all of them, or those named."""
    try:
        filters = parse_context_filters(context_filters)
    except RepeatedFeatureError as error:
        raise RefusalError(400, str(error)) from None
    except MalformedFilterError as error:
        location = ("query", "context_filters")
        raise RequestValidationError([{"loc": location, "msg": str(error), "type": "value_error"}]) from None
    wanted = _wanted(connection, settings)
    features = store.context_features(connection)
    answers: dict[int, dict[str, Any]] = {
        held.id: {"default_value": held.declaration.default_value, "rules": []} for held in wanted
    }
    for rule in store.rules(connection, None if settings is None else answers):
        if not admits(filters, rule.conditions):
            continue
        found = {"value": rule.value, "context_features": rule.conditions_in(features), "rule_id": rule.id}
        answers[rule.setting_id]["rules"].append(
            found | {"metadata": dict(rule.metadata)} if include_metadata else found
        )
    body = as_json({"settings": {held.declaration.name: answers[held.id] for held in wanted}})
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    if _matches(",".join(if_none_match or ()), etag):
        return Response(status_code=304, headers={"ETag": etag})
    return Response(body, media_type="application/json", headers={"ETag": etag})


def _wanted(connection: Connection, names: str | None) -> list[StoredSetting]:
    if names is None:
        return store.settings(connection)
    asked = dict.fromkeys(names.split(",")) if names else {}
    ids = store.setting_ids(connection, asked)
    if missing := [name for name in asked if name not in ids]:
        raise RefusalError(404, f"the following are not setting names: {missing}")
    return store.settings(connection, ids.values())


def _matches(if_none_match: str, etag: str) -> bool:
    return if_none_match.strip() == "*" or etag in re.findall(r'"[^"]*"', if_none_match)
