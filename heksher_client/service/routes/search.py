"""The endpoint of the search in all settings."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Query

from heksher_client.service import store
from heksher_client.service.routing import RequestDatabase, documented, example
from heksher_client.service.schema import MAX_ID
from heksher_client.service.search import Search
from heksher_client.service.text_criteria import MAX_TEXT

router: Final = APIRouter()
_FOUND: Final = {
    "settings": [
        {
            "name": "cache_size",
            "matches": [],
            "rules": [
                {
                    "rule_id": 1,
                    "feature_values": [["user", "jim"]],
                    "value": 200,
                    "metadata": {"ticket": "OPS-17"},
                    "matches": ["conditions"],
                }
            ],
            "rule_count": 1,
        }
    ],
    "total": 1,
}


@router.get("/api/v1/search", responses=documented(body=_FOUND))
def search_all(
    q: Annotated[str, Query(min_length=1, max_length=MAX_TEXT, openapi_examples=example("jim"))],
    database: RequestDatabase,
    limit: Annotated[int, Query(ge=1, le=100, openapi_examples=example(20))] = 20,
    offset: Annotated[int, Query(ge=0, le=MAX_ID, openapi_examples=example(0))] = 0,
) -> dict[str, Any]:
    """Return the settings that contain a text, in any case, and those whose rules do.

    It is searched for in names, aliases, metadata, default values, and in the conditions, values and metadata of rules.
    A text like `user=ji` is searched for in conditions only: it finds the rules for users whose value begins with `ji`.
    `user ji` finds them as well, and all that contains this text.
    Of each setting, the result contains the first 5 rules; `rule_count` is the number of all that contain the text.
    `total` is the number of settings.
    """
    with database.read() as connection:
        order = store.context_features(connection)
        found = Search(connection, q)
        settings = [
            {
                "name": each.setting.declaration.name,
                "matches": each.matches,
                "rules": [
                    {
                        "rule_id": each_rule.rule.id,
                        "feature_values": each_rule.rule.conditions_in(order),
                        "value": each_rule.rule.value,
                        "metadata": dict(each_rule.rule.metadata),
                        "matches": each_rule.matches,
                    }
                    for each_rule in each.rules
                ],
                "rule_count": each.rule_count,
            }
            for each in found.page(limit, offset)
        ]
        return {"settings": settings, "total": found.total}
