"""The page of context features: their order, and the settings and rules that use them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from pydantic import ValidationError
from sqlalchemy import Connection

from heksher_client.service import feature_operations, store
from heksher_client.service.console.forms import Form, text
from heksher_client.service.console.outcomes import Entered, done_change, redirect_to_done, validation_errors
from heksher_client.service.console.pages.settings import Revision
from heksher_client.service.console.planned_changes import state_of
from heksher_client.service.console.protection import is_any_protected, is_protected
from heksher_client.service.console.rendering import page
from heksher_client.service.routes.context_features import NewContextFeature
from heksher_client.service.routing import RequestDatabase, RequestError
from heksher_client.service.store import StoredSetting

router: Final = APIRouter(prefix="/console/features", include_in_schema=False)


@dataclass(frozen=True, slots=True)
class _Affected:
    """A setting in the preview of a move."""

    setting: StoredSetting
    rules: tuple[int, int]
    """The number of rules with a condition on the moved feature only, and on its neighbor only."""
    is_protected: bool

    @property
    def may_change(self) -> bool:
        """True if the setting may have another value in some contexts."""
        return all(self.rules)


@router.get("")
def list_features(request: Request, database: RequestDatabase, done: Revision = 0) -> Response:
    """Show all context features, in their order."""
    with database.read() as connection:
        return _page(request, connection, done=done_change(request, connection, done))


@router.post("")
def add_feature(request: Request, database: RequestDatabase, form: Form) -> Response:
    """Add a context feature after all others."""
    with database.write() as connection:
        try:
            new = NewContextFeature(context_feature=text(form, "context_feature"))
            feature_operations.add(connection, new.context_feature)
        except ValidationError as error:
            return _page(request, connection, 422, entered=Entered("add", form, validation_errors(error)))
        except RequestError as error:
            errors = {"context_feature": error.message}
            return _page(request, connection, error.status, entered=Entered("add", form, errors))
        return redirect_to_done(request, connection, "console/features")


@router.post("/{name}/move")
def move_feature(request: Request, name: str, database: RequestDatabase, form: Form) -> Response:
    """Exchange a context feature with its neighbor, after a preview if values may change, or a setting is protected.

    The confirmation is bound to the state of the settings that the preview has shown.
    """
    is_after = text(form, "direction") == "down"
    with database.write() as connection:
        order = store.context_features(connection)
        index = _require_index(order, name)
        neighbor = index + (1 if is_after else -1)
        if not 0 <= neighbor < len(order):
            raise RequestError(409, f"the context feature {name} cannot be moved further")
        other = order[neighbor]
        affected = list(_affected(connection, name, other))
        shown = state_of(connection, [each.setting for each in affected])
        confirmed = text(form, "confirmed")
        if affected and confirmed != shown:
            move = {"name": name, "other": other, "is_after": is_after, "affected": affected, "shown": shown}
            return _page(request, connection, 409 if confirmed else 200, move=move, is_changed=bool(confirmed))
        feature_operations.move(connection, name, other, is_after=is_after)
        return redirect_to_done(request, connection, "console/features")


@router.post("/{name}/delete")
def delete_feature(request: Request, name: str, database: RequestDatabase, form: Form) -> Response:  # noqa: ARG001
    """Delete a context feature that no setting is configurable by."""
    with database.write() as connection:
        _require_index(store.context_features(connection), name)
        try:
            feature_operations.delete(connection, name)
        except RequestError as error:
            return _page(request, connection, error.status, entered=Entered(f"delete {name}", {}, {"": error.message}))
        return redirect_to_done(request, connection, "console/features")


def _affected(connection: Connection, name: str, other: str) -> Iterator[_Affected]:
    """Yield the settings whose values may change if two neighbors are exchanged, and the protected ones of both."""
    moved = {name, other}
    counts = {each.name: each.rules for each in feature_operations.affected_settings(connection, name, other)}
    for setting in store.settings(connection):
        if not moved.issubset(setting.declaration.configurable_features):
            continue
        rules = counts.get(setting.declaration.name, (0, 0))
        protected = is_any_protected(setting) or (
            any(rules)
            and any(
                is_protected(setting, rule) and len(moved.intersection(dict(rule.conditions))) == 1
                for rule in store.rules(connection, [setting.id])
            )
        )
        if any(rules) or protected:
            yield _Affected(setting, rules, protected)


def _page(request: Request, connection: Connection, status: int = 200, **values: Any) -> Response:
    shown = {
        "done": None,
        "back": "/console/features",
        "entered": Entered(),
        "move": None,
        "is_changed": False,
    } | values
    return page(
        request, "features.html", connection, status=status, uses=feature_operations.feature_uses(connection), **shown
    )


def _require_index(order: list[str], name: str) -> int:
    if name not in order:
        raise RequestError(404, f"the context feature {name} does not exist any more")
    return order.index(name)
