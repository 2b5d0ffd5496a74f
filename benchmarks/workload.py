"""Settings and rules for measurements, as the service sends them. They are the same for every run and every client."""

import json
import random
from collections.abc import Iterator
from typing import Any

FEATURES = ["environment", "user", "theme"]
USERS = 75_000
ENVIRONMENTS = ["prod", "staging", "test", "dev", "qa"]
THEMES = 20

SHAPES: dict[str, list[tuple[str, ...]]] = {
    "users": [("user",)],
    "many shapes": [
        *[("user",)] * 12,
        *[("environment", "user")] * 4,
        *[("user", "theme")] * 3,
        ("environment", "user", "theme"),
        ("theme",),
        ("environment",),
        ("environment", "theme"),
    ],
}


def setting_name(index: int) -> str:
    return f"setting_{index}"


def rules(count: int, kind: str, seed: int) -> Iterator[dict[str, Any]]:
    """Generate rules with different conditions, in random order."""
    source = random.Random(seed)
    users = max(USERS, 2 * count)
    seen: set[tuple[tuple[str, str], ...]] = set()
    while len(seen) < count:
        values = {
            "environment": source.choice(ENVIRONMENTS),
            "user": f"user_{source.randrange(users)}",
            "theme": f"theme_{source.randrange(THEMES)}",
        }
        conditions = tuple((feature, values[feature]) for feature in source.choice(SHAPES[kind]))
        if conditions not in seen:
            seen.add(conditions)
            yield {
                "value": source.randrange(1000, 1_000_000),
                "context_features": conditions,
                "rule_id": seed * 10_000_000 + len(seen),
            }


def queried_setting(count: int, kind: str, seed: int, revision: int = 0) -> bytes:
    """Return the JSON object of one setting in the response to a query."""
    body = {"rules": list(rules(count, kind, seed)), "default_value": revision}
    return json.dumps(body, separators=(",", ":")).encode()


def payload(settings: dict[str, bytes]) -> bytes:
    """Return the response to a query."""
    return b'{"settings":{' + b",".join(b'"%s":%s' % (name.encode(), body) for name, body in settings.items()) + b"}}"
