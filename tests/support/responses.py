"""Responses to a query for one setting, `s`, with the parts that a test wants to be faulty."""

from typing import Any

from tests.support.service import CannedResponse

NO_RULES = {"default_value": 7, "rules": []}


def rule(value: Any, rule_id: Any = 1, features: Any = (("user", "jim"),)) -> dict[str, Any]:
    return {"value": value, "rule_id": rule_id, "context_features": features}


def query_response(*rules: Any, default: Any = 7) -> CannedResponse:
    """Return a response to a query for `s`."""
    return CannedResponse.of({"settings": {"s": {"default_value": default, "rules": list(rules)}}})
