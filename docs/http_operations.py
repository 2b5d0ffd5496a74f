"""A directive that lists the HTTP operations of the included service, from its OpenAPI document."""

from collections.abc import Iterator, Mapping
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from heksher_client.service import create_app

METHODS = ("get", "post", "put", "patch", "delete")


class HttpOperations(SphinxDirective):
    """A table of the operations on a path, and on the paths below it."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        document = create_app("sqlite://").openapi()
        prefix = self.arguments[0]
        paths = [path for path in document["paths"] if f"{path}/".startswith(f"{prefix}/")]
        if not paths:
            raise self.error(f"the service has no operations on {prefix}")
        lines = ["| request | operation | status |", "| --- | --- | --- |"]
        for path in paths:
            lines += rows(path, document["paths"][path])
        container = nodes.container(classes=["http-operations"])
        self.state.nested_parse(StringList(lines, source=__file__), self.content_offset, container)
        return [container]


def rows(path: str, operations: Mapping[str, Any]) -> Iterator[str]:
    """Yield a row of a table for each operation on a path."""
    for method in METHODS:
        if method in operations:
            operation = operations[method]
            description = " ".join(operation["description"].split("\n\n")[0].split()).replace("|", "\\|")
            parameters = [one["name"] for one in operation.get("parameters", []) if one["in"] == "query"]
            if parameters:
                description += f" Parameters: {', '.join(f'`{name}`' for name in parameters)}."
            statuses = ", ".join(sorted(operation["responses"]))
            yield f"| `{method.upper()} {path}` | {description} | {statuses} |"


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("http-operations", HttpOperations)
    return {"parallel_read_safe": True}
