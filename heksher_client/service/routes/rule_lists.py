"""The endpoints by which operators list and search rules, also those that are not in effect."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query, Response

from heksher_client.service import json_values, store
from heksher_client.service.operations import require_setting
from heksher_client.service.routes.rules import CONDITIONS_PATTERN, parse_conditions
from heksher_client.service.routing import RequestDatabase, documented, example
from heksher_client.service.rule_search import SORTS, RuleFilter, count_rules, list_rules, search_rules
from heksher_client.service.schema import MAX_ID
from heksher_client.service.setting_types import Primitive
from heksher_client.service.store import StoredRule

router: Final = APIRouter()
_MAX_TEXT_LENGTH: Final = 1_000
"""Characters of a text to search for."""
_RULE: Final = {
    "rule_id": 1,
    "feature_values": [["user", "jim"]],
    "value": 200,
    "metadata": {"ticket": "OPS-17"},
    "in_effect": True,
    "changed_at": "2026-01-31T09:30:00+00:00",
    "changed_by": "ops",
}

Limit = Annotated[int, Query(ge=1, le=1000, openapi_examples=example(1))]
Offset = Annotated[int, Query(ge=0, le=MAX_ID, openapi_examples=example(0))]


@router.get(
    "/api/v1/rules",
    response_model=dict[str, Any],
    responses=documented(body={"rules": [{"setting": "cache_size", **_RULE}], "total": 1}),
)
def list_all_rules(
    database: RequestDatabase,
    only_temporary: Annotated[bool, Query(openapi_examples=example(False))] = False,
    limit: Limit = 100,
    offset: Offset = 0,
) -> Response:
    """Return a page of the rules of all settings, or of the temporary ones, sorted by id."""
    with database.read() as connection:
        database.state(connection)
        found, total = list_rules(connection, only_temporary=only_temporary, limit=limit, offset=offset)
        settings = store.settings(connection, {rule.setting_id for rule in found})
        names = {setting.id: setting.declaration.name for setting in settings}
        order = store.context_features(connection)
        return _page([{"setting": names[rule.setting_id], **_rule_body(rule, order)} for rule in found], total)


@router.get(
    "/api/v1/settings/{name}/rules",
    response_model=dict[str, Any],
    responses=documented({404: "There is no such setting."}, body={"rules": [_RULE], "total": 1}),
)
def list_rules_of_setting(
    name: Annotated[str, Path(openapi_examples=example("cache_size"))],
    database: RequestDatabase,
    conditions: Annotated[str | None, Query(pattern=CONDITIONS_PATTERN, openapi_examples=example("user:jim"))] = None,
    text: Annotated[str, Query(max_length=_MAX_TEXT_LENGTH, openapi_examples=example("user=ji"))] = "",
    value: Annotated[str, Query(max_length=_MAX_TEXT_LENGTH, openapi_examples=example("200"))] = "",
    author: Annotated[str, Query(max_length=_MAX_TEXT_LENGTH)] = "",
    sort: Annotated[str, Query(pattern=f"^-?({'|'.join(SORTS)})$", openapi_examples=example("-changed"))] = "priority",
    limit: Limit = 100,
    offset: Offset = 0,
) -> Response:
    """Return a page of the rules of a setting.

    `conditions` are conditions that the rules have, perhaps with others, like `user:jim,theme:dark`; `text` is a part
    of a condition, like `jim` or `user=jim`; `value` is a part of the value in JSON; and `author` made the last change.
    `total` is the number of rules on all pages. The strongest rules come first, unless `sort` is `rule`, for the id,
    `value`, or `changed`, for the last change first; a hyphen before it reverses the order.
    """
    selected = RuleFilter({} if conditions is None else parse_conditions(conditions, "conditions"), text, value, author)
    with database.read() as connection:
        database.state(connection)
        setting = require_setting(connection, name)
        order = store.context_features(connection)
        total = count_rules(connection, setting.id, selected)
        found = search_rules(
            connection,
            setting.id,
            selected,
            order,
            sort=sort.removeprefix("-"),
            descending=sort.startswith("-"),
            has_numbers=setting.declaration.type in (Primitive("int"), Primitive("float")),
            limit=limit,
            offset=offset,
        )
        return _page([_rule_body(rule, order) for rule in found], total)


def _rule_body(rule: StoredRule, order: Sequence[str]) -> dict[str, Any]:
    return {
        "rule_id": rule.id,
        "feature_values": rule.conditions_in(order),
        "value": rule.value,
        "metadata": dict(rule.metadata),
        **rule.period.as_json(),
        "in_effect": rule.in_effect,
        "changed_at": rule.changed_at and rule.changed_at.isoformat(),
        "changed_by": rule.changed_by,
    }


def _page(rules: Sequence[Mapping[str, Any]], total: int) -> Response:
    return Response(json_values.encode({"rules": rules, "total": total}), media_type="application/json")
