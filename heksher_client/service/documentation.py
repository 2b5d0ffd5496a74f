"""What the OpenAPI document says beyond the signatures: an example of each request and answer, and what is refused.

The examples are of a service with the context features `environment`, `user` and `theme`, the setting `cache_size` at
version 1.0 with the metadata `{"owner": "shop"}`, and the rule 1 on it: 200 for user jim, with the metadata
`{"ticket": "OPS-17"}`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from fastapi import FastAPI

from heksher_client._version import __version__
from heksher_client.service.access import needed_role
from heksher_client.service.routing import MOST_BYTES
from heksher_client.service.tokens import Role

_DESCRIPTION: Final = """\
Settings whose values depend on their context: *for user jim in environment prod, `cache_size` is 200*.

Programs **declare** their settings and **query** the rules on them; operators add **rules**. All names are of letters,
digits and underscores; those of settings may have dots as well.

On any other address than loopback requests need a **token**: one for reading, which programs have, or one of an
administrator.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A request, and what comes of it."""

    path: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, Any] = field(default_factory=dict)
    body: Any = None
    answer: Any = None
    """A text where it is no JSON; None where there is no body, or where that is for machines."""
    refused: Mapping[int, str] = field(default_factory=dict)
    """When it would be refused, by the status."""


_SETTING_PATH: Final = {"name": "cache_size"}
_RULE_PATH: Final = {"rule_id": "1"}
_DECLARATION: Final = {
    "name": "cache_size",
    "type": "int",
    "default_value": 10,
    "configurable_features": ["environment", "user"],
    "metadata": {"owner": "shop"},
    "version": "1.0",
}
_SETTING: Final = {
    "name": "cache_size",
    "type": "int",
    "default_value": 10,
    "version": "1.0",
    "configurable_features": ["environment", "user"],
    "metadata": {"owner": "shop"},
    "aliases": [],
}
_RULE: Final = {"value": 200, "context_features": [["user", "jim"]], "rule_id": 1, "metadata": {"ticket": "OPS-17"}}
_NO_SETTING: Final = {404: "There is no such setting."}
_NO_RULE: Final = {404: "There is no such rule."}
_NO_FEATURE: Final = {404: "There is no such context feature."}
_NO_KEY: Final = {404: "There is no such setting or rule, or it has no metadata under that key."}
_NOT_HIGHER: Final = {409: "The setting has that version already, or a higher one."}

EXAMPLES: Final[Mapping[str, Example]] = {
    "GET /api/health": Example(answer={"version": __version__}),
    "GET /api/ready": Example(answer={"revision": 5}, refused={503: "The service is stopping."}),
    "GET /metrics": Example(),
    "GET /api/v1/context_features": Example(answer={"context_features": ["environment", "user", "theme"]}),
    "POST /api/v1/context_features": Example(
        body={"context_feature": "region"}, refused={409: "There is such a context feature already."}
    ),
    "GET /api/v1/context_features/{name}": Example(path={"name": "user"}, answer={"index": 1}, refused=_NO_FEATURE),
    "DELETE /api/v1/context_features/{name}": Example(
        path={"name": "theme"}, refused=_NO_FEATURE | {409: "Some setting is configurable by it."}
    ),
    "PATCH /api/v1/context_features/{name}/index": Example(
        path={"name": "theme"}, body={"to_before": "user"}, refused=_NO_FEATURE
    ),
    "POST /api/v1/settings/declare": Example(
        body=_DECLARATION,
        answer={"outcome": "uptodate"},
        refused={
            400: "A setting that is new has another version than 1.0.",
            404: "There is no such context feature, or no setting of the name given as the alias.",
            409: "It differs from what the service holds in a way that its version does not allow: the outcome is "
            "`rejected` or `mismatch`, and `differences` says why. Or the alias is another setting's.",
        },
    ),
    "GET /api/v1/settings": Example(query={"include_additional_data": True}, answer={"settings": [_SETTING]}),
    "GET /api/v1/settings/{name}": Example(path=_SETTING_PATH, answer=_SETTING, refused=_NO_SETTING),
    "DELETE /api/v1/settings/{name}": Example(path=_SETTING_PATH, refused=_NO_SETTING),
    "PUT /api/v1/settings/{name}/name": Example(
        path=_SETTING_PATH,
        body={"name": "cache_entries", "version": "1.1"},
        refused=_NO_SETTING | {409: "The name is taken, or the version is not higher than the setting's."},
    ),
    "PUT /api/v1/settings/{name}/type": Example(
        path=_SETTING_PATH,
        body={"type": "float", "version": "2.0"},
        refused=_NO_SETTING | {409: "The default value or a rule's does not fit the type: `conflicts` says which. Or "
                                    "the version is not high enough."},
    ),
    "PUT /api/v1/settings/{name}/configurable_features": Example(
        path=_SETTING_PATH,
        body={"configurable_features": ["environment", "user", "theme"], "version": "2.0"},
        refused={404: "There is no such setting or context feature.",
                 409: "Rules have conditions on a feature that goes, or the version is not high enough."},
    ),
    "GET /api/v1/settings/{name}/metadata": Example(
        path=_SETTING_PATH, answer={"metadata": {"owner": "shop"}}, refused=_NO_SETTING
    ),
    "POST /api/v1/settings/{name}/metadata": Example(
        path=_SETTING_PATH, body={"metadata": {"tier": 1}, "version": "1.1"}, refused=_NO_SETTING | _NOT_HIGHER
    ),
    "PUT /api/v1/settings/{name}/metadata": Example(
        path=_SETTING_PATH, body={"metadata": {"owner": "search"}, "version": "1.1"}, refused=_NO_SETTING | _NOT_HIGHER
    ),
    "DELETE /api/v1/settings/{name}/metadata": Example(
        path=_SETTING_PATH, body={"version": "1.1"}, refused=_NO_SETTING | _NOT_HIGHER
    ),
    "PUT /api/v1/settings/{name}/metadata/{key}": Example(
        path=_SETTING_PATH | {"key": "owner"},
        body={"value": "search", "version": "1.1"},
        refused=_NO_SETTING | _NOT_HIGHER,
    ),
    "DELETE /api/v1/settings/{name}/metadata/{key}": Example(
        path=_SETTING_PATH | {"key": "owner"}, body={"version": "1.1"}, refused=_NO_KEY | _NOT_HIGHER
    ),
    "POST /api/v1/rules": Example(
        body={"setting": "cache_size", "feature_values": {"environment": "prod", "user": "ann"}, "value": 500},
        answer={"rule_id": 2},
        refused={
            400: "The setting is not configurable by one of the features, or the value is not of its type.",
            409: "There is a rule with the same conditions.",
            422: "There is no such setting, or some of it cannot be: `detail` says what, and why.",
        },
    ),
    "GET /api/v1/rules/search": Example(
        query={"setting": "cache_size", "feature_values": "user:jim"}, answer={"rule_id": 1}, refused=_NO_RULE
    ),
    "GET /api/v1/rules/{rule_id}": Example(
        path=_RULE_PATH,
        answer={"setting": "cache_size", "value": 200, "feature_values": [["user", "jim"]],
                "metadata": {"ticket": "OPS-17"}},
        refused=_NO_RULE,
    ),
    "DELETE /api/v1/rules/{rule_id}": Example(path=_RULE_PATH, refused=_NO_RULE),
    "PATCH /api/v1/rules/{rule_id}": Example(
        path=_RULE_PATH, body={"value": 300}, refused=_NO_RULE | {400: "The value is not of the setting's type."}
    ),
    "PUT /api/v1/rules/{rule_id}/value": Example(
        path=_RULE_PATH, body={"value": 300}, refused=_NO_RULE | {400: "The value is not of the setting's type."}
    ),
    "GET /api/v1/rules/{rule_id}/metadata": Example(
        path=_RULE_PATH, answer={"metadata": {"ticket": "OPS-17"}}, refused=_NO_RULE
    ),
    "POST /api/v1/rules/{rule_id}/metadata": Example(
        path=_RULE_PATH, body={"metadata": {"until": "2027-01-01"}}, refused=_NO_RULE
    ),
    "PUT /api/v1/rules/{rule_id}/metadata": Example(
        path=_RULE_PATH, body={"metadata": {"ticket": "OPS-18"}}, refused=_NO_RULE
    ),
    "DELETE /api/v1/rules/{rule_id}/metadata": Example(path=_RULE_PATH, refused=_NO_RULE),
    "PUT /api/v1/rules/{rule_id}/metadata/{key}": Example(
        path=_RULE_PATH | {"key": "ticket"}, body={"value": "OPS-18"}, refused=_NO_RULE
    ),
    "DELETE /api/v1/rules/{rule_id}/metadata/{key}": Example(path=_RULE_PATH | {"key": "ticket"}, refused=_NO_KEY),
    "GET /api/v1/query": Example(
        query={"settings": "cache_size", "context_filters": "environment:(prod),user:*", "include_metadata": True},
        answer={"settings": {"cache_size": {"default_value": 10, "rules": [_RULE]}}},
        refused={400: "A context feature is named twice in the filter.", 404: "There are no settings of some names."},
    ),
    "GET /api/v1/change_log": Example(
        query={"after": 4, "setting": "cache_size", "limit": 1},
        answer={"changes": [{
            "revision": 5, "at": "2026-01-31T09:30:00+00:00", "actor": None, "action": "rule added",
            "settings": ["cache_size"], "former": None,
            "new": {"rule_id": 1, "feature_values": {"user": "jim"}, "value": 200, "metadata": {"ticket": "OPS-17"}},
        }]},
    ),
    "GET /api/v1/changes": Example(
        answer='event: change\ndata: {"settings":["cache_size"],"all":false,"within":0.0}\nid: 6\n\n'
    ),
}  # fmt: skip
"""By method and path."""


def document(app: FastAPI) -> None:
    """Have the application's OpenAPI document tell all this."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.description = _DESCRIPTION
            schema = plain()
            schema["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
            for path, operations in schema["paths"].items():
                for method, operation in operations.items():
                    _complete(operation, EXAMPLES[f"{method.upper()} {path}"])
                    _say_who_may(operation, needed_role(method.upper(), path))
        return plain()

    app.openapi = openapi  # type: ignore[method-assign]


def _complete(operation: dict[str, Any], example: Example) -> None:
    for parameter in operation.get("parameters", ()):
        known = {**example.path, **example.query}
        if parameter["name"] in known:
            parameter["example"] = known[parameter["name"]]
    responses, unreadable = operation["responses"], {}
    if example.body is not None:
        operation["requestBody"]["content"]["application/json"]["example"] = example.body
        unreadable = {400: "The body cannot be read.", 413: f"The body has more than {MOST_BYTES:,} bytes."}
    (success,) = (status for status in responses if status.startswith("2"))
    if isinstance(example.answer, str):
        (content,) = responses[success]["content"].values()
        content["example"] = example.answer
    elif example.answer is not None:
        responses[success]["content"] = {"application/json": {"schema": {"type": "object"}, "example": example.answer}}
    if "422" in responses:
        responses["422"]["description"] = "Some of it cannot be: `detail` says what, and why."
    for status, reason in {**unreadable, **example.refused}.items():
        response = responses.setdefault(str(status), {})
        response["description"] = reason
        if "content" in response:
            response["content"]["text/plain"] = {"schema": {"type": "string"}}


def _say_who_may(operation: dict[str, Any], role: Role | None) -> None:
    if role is not None:
        operation["security"] = [{}, {"token": []}]
        operation["responses"]["401"] = {"description": "A token is needed here, and there is none that is valid."}
    if role is Role.ADMIN:
        operation["responses"]["403"] = {"description": "This needs a token with the role `admin`."}
