"""Export of a database to a document, and import of a document into a database.

An import is planned first: the plan is a list of steps, which can be shown before they are applied.
"""

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Connection

from heksher_client.service import store
from heksher_client.service.changes import record_together
from heksher_client.service.document import FORMAT, Document, parse
from heksher_client.service.import_planner import ImportPlanner, Step


def export(connection: Connection) -> dict[str, Any]:
    """Return all context features, settings and rules as a document of JSON values."""
    order = store.context_features(connection)
    rules: dict[int, list[dict[str, Any]]] = {}
    for rule in store.rules(connection):
        conditions = {feature: value for feature, value in rule.conditions_in(order)}  # noqa: C416 - of lists
        exported = {"rule_id": rule.id, "feature_values": conditions, "value": rule.value}
        # All fields, as an import does not change those that a document leaves out.
        exported |= {"metadata": dict(rule.metadata), "starts_at": None, "ends_at": None, **rule.period.as_json()}
        rules.setdefault(rule.setting_id, []).append(exported)
    return {
        "heksher": FORMAT,
        "context_features": order,
        "settings": [
            store.declaration_as_json(setting.declaration)
            | {"aliases": list(setting.aliases), "rules": rules.get(setting.id, [])}
            for setting in store.settings(connection)
        ],
    }


def plan(connection: Connection, document: Any, *, exact: bool) -> list[Step]:
    """Return the changes that are needed to import a document.

    Args:
        connection: The connection of a transaction.
        document: The document, or its content as `export` returns it.
        exact: Whether to delete what is not in the document.

    Raises:
        DocumentError: The document is invalid, or conflicts with the content of the database.
    """
    valid = document if isinstance(document, Document) else parse(document)
    return list(ImportPlanner(connection, valid, exact=exact).steps())


def apply(
    connection: Connection, steps: Sequence[Step], on_progress: Callable[[int, int], object] | None = None
) -> None:
    """Make changes, and add them to the change log.

    Args:
        connection: The connection of a transaction.
        steps: The changes, as `plan` returns them in the same transaction.
        on_progress: Called with the numbers of changes that are made, and of all.
    """
    with record_together(connection):
        for done, step in enumerate(steps, 1):
            step.apply(connection)
            if on_progress is not None:
                on_progress(done, len(steps))
