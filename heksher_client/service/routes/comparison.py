"""The endpoint that compares the values of settings in two contexts."""

from collections.abc import Mapping
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Response

from heksher_client._core.settings.context_comparison import ContextValue, compare_contexts
from heksher_client.service import json_values, store
from heksher_client.service.compared_rules import read_comparison
from heksher_client.service.routes.rules import CONDITIONS_PATTERN, parse_conditions
from heksher_client.service.routing import RequestDatabase, documented, example

router: Final = APIRouter()
_PAIR: Final = {
    "setting": "cache_size",
    "feature_values": [],
    "first": {"value": 200, "rule": {"rule_id": 1, "feature_values": [["user", "jim"]]}},
    "second": {"value": 10},
    "is_different": True,
}


@router.get("/api/v1/compare", response_model=dict[str, Any], responses=documented(body={"pairs": [_PAIR]}))
def compare(
    database: RequestDatabase,
    first: Annotated[str | None, Query(pattern=CONDITIONS_PATTERN, openapi_examples=example("user:jim"))] = None,
    second: Annotated[str | None, Query(pattern=CONDITIONS_PATTERN, openapi_examples=example("user:ann"))] = None,
    include_equal: Annotated[bool, Query(openapi_examples=example(False))] = False,
) -> Response:
    """Return the pairs of values of all settings that differ in two contexts, sorted by setting.

    A context is like `environment:prod,user:jim`. Context features that it does not have meet no condition. If a rule
    for one of the contexts has further conditions, the values in both contexts with these `feature_values` are a pair
    as well. A value without a `rule` is the default value. With `include_equal`, pairs that do not differ are returned
    as well.
    """
    contexts = [
        {} if text is None else parse_conditions(text, name) for name, text in (("first", first), ("second", second))
    ]
    with database.read() as connection:
        database.state(connection)
        order, settings = store.context_features(connection), store.settings(connection)
        found = read_comparison(connection, settings, order, *contexts, is_selection=False)
    pairs = [
        {
            "setting": pair.setting,
            "feature_values": _pairs(pair.further),
            "first": _value_body(pair.first),
            "second": _value_body(pair.second),
            "is_different": pair.is_different,
        }
        for pair in compare_contexts(found.settings, order, *contexts)
        if include_equal or pair.is_different
    ]
    return Response(json_values.encode({"pairs": pairs}), media_type="application/json")


def _value_body(value: ContextValue) -> dict[str, Any]:
    rule = value.rule
    if rule is None:
        return {"value": value.value}
    return {"value": value.value, "rule": {"rule_id": rule.rule_id, "feature_values": _pairs(rule.conditions)}}


def _pairs(conditions: Mapping[str, str]) -> list[list[str]]:
    return [[feature, value] for feature, value in conditions.items()]
