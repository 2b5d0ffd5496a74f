"""The operations of the local service and their examples, read from its OpenAPI document."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from heksher_client.service import create_app


@dataclass(frozen=True)
class Operation:
    """An operation with the request of its example."""

    method: str
    path: str
    """With the example of each parameter."""
    query: Mapping[str, Any]
    body: Any
    responses: Mapping[str, Any]
    """As in the document, by status."""

    @property
    def example(self) -> Any:
        """The example of the body of a successful response; None if there is none."""
        (content,) = [held.get("content", {}) for status, held in self.responses.items() if status.startswith("2")]
        return next((media.get("example") for media in content.values()), None)


def _operations() -> dict[str, Operation]:
    app = create_app()
    paths: dict[str, dict[str, Any]] = app.openapi()["paths"]
    app.state.database.close()
    return {
        f"{method.upper()} {path}": _operation(method.upper(), path, operation)
        for path, operations in paths.items()
        for method, operation in operations.items()
    }


def _operation(method: str, path: str, operation: Mapping[str, Any]) -> Operation:
    values: dict[str, dict[str, Any]] = {"path": {}, "query": {}, "header": {}}
    for parameter in operation.get("parameters", ()):
        if "examples" in parameter:
            values[parameter["in"]][parameter["name"]] = _example(parameter)
    body = _example(operation["requestBody"]["content"]["application/json"]) if "requestBody" in operation else None
    return Operation(method, path.format(**values["path"]), values["query"], body, operation["responses"])


def _example(documented: Mapping[str, Any]) -> Any:
    (example,) = documented["examples"].values()
    return example["value"]


OPERATIONS = _operations()
"""By method and path."""
