"""Confirmation of changes of protected settings: the preview of what a change of a declaration, or a deletion, does.

The change is made, and its entry of the change log is read. If it is not confirmed, the transaction is rolled back, and
the page shows the entry and the values that would change. So it shows what a confirmation does.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from fastapi import Request, Response
from sqlalchemy import Connection

from heksher_client.service import store
from heksher_client.service.changes import Change, changes
from heksher_client.service.console.forms import resubmitted, text
from heksher_client.service.console.inputs import Fields
from heksher_client.service.console.pages.confirmation import MAX_LISTED
from heksher_client.service.console.planned_changes import Effect, rule_from_json, state_of
from heksher_client.service.console.protection import KEYS, is_any_protected, is_protected
from heksher_client.service.console.rendering import page
from heksher_client.service.history import read_state
from heksher_client.service.json_values import is_identical
from heksher_client.service.routing import RequestDatabase
from heksher_client.service.store import StoredRule, StoredSetting

_NO_RULE: Final = StoredRule(0, 0, (), None, {})
"""The place of a rule in the preview, for the contexts that no rule matches."""


@dataclass(frozen=True, slots=True)
class _Preview:
    """A change of a setting that is not confirmed."""

    setting: StoredSetting
    """Before the change."""
    change: Change
    """Its entry of the change log."""
    state: str
    """The state of the setting before the change."""
    effects: list[Effect]


class _UnconfirmedError(Exception):
    """A change has to be rolled back, as it is not confirmed."""

    def __init__(self, preview: _Preview) -> None:
        super().__init__(preview)
        self.preview = preview


def save(
    request: Request, database: RequestDatabase, form: Fields, make_change: Callable[[Connection], Response]
) -> Response:
    """Make a change in a transaction, and return its response; or the page that asks for its confirmation.

    Args:
        request: The request.
        database: The database.
        form: The form.
        make_change: Checks the form, and makes the change with `change_confirmed`.
    """
    try:
        with database.write() as connection:
            return make_change(connection)
    except _UnconfirmedError as error:
        with database.read() as connection:  # So that nobody waits for the page.
            return _preview_page(request, connection, form, error.preview)


def change_confirmed(
    connection: Connection, form: Fields, setting: StoredSetting, change: Callable[[Connection, StoredSetting], None]
) -> None:
    """Change or delete a setting. If that needs a confirmation that the form lacks, `save` rolls it back."""
    state, revision = state_of(connection, [setting]), read_state(connection).revision
    change(connection, setting)
    if text(form, "confirmed") == state:
        return
    (entry,) = changes(connection, after=revision, limit=1)
    changed = next(iter(store.settings(connection, [setting.id])), None)
    rules = [rule_from_json(setting, rule) for rule in entry.former["rules"]] if changed is None else []
    if _needs_confirmation(setting, changed, rules):
        raise _UnconfirmedError(_Preview(setting, entry, state, list(_effects(setting, changed, rules))))


def _needs_confirmation(setting: StoredSetting, changed: StoredSetting | None, rules: list[StoredRule]) -> bool:
    """Return True if a change affects protected values, or the protection itself.

    Args:
        setting: The setting before the change.
        changed: The setting after the change; None if it is deleted.
        rules: Its deleted rules.
    """
    if changed is None:
        return is_any_protected(setting) or any(is_protected(setting, rule) for rule in rules)
    former, new = setting.declaration, changed.declaration
    unprotected = replace(new, metadata=former.metadata, version=former.version)
    states = [[declaration.metadata.get(key) for key in KEYS] for declaration in (former, new)]
    return is_any_protected(setting) and (unprotected != former or not is_identical(*states))


def _effects(setting: StoredSetting, changed: StoredSetting | None, rules: list[StoredRule]) -> Iterator[Effect]:
    """Yield the values that differ after a change. After a deletion, there are none."""
    default = setting.declaration.default_value
    for rule in rules:
        if rule.in_effect:
            yield Effect(setting, rule, rule, rule.value, None, is_protected=is_protected(setting, rule))
    new = None if changed is None else changed.declaration.default_value
    if not is_identical(default, new):
        yield Effect(setting, _NO_RULE, None, default, new, is_protected=is_any_protected(setting))


def _preview_page(request: Request, connection: Connection, form: Fields, preview: _Preview) -> Response:
    name, is_outdated = preview.setting.declaration.name, text(form, "confirmed") != ""
    return page(
        request,
        "setting_preview.html",
        connection,
        status=409 if is_outdated else 200,
        settings=[name],
        change=preview.change,
        is_outdated=is_outdated,
        effects=preview.effects[:MAX_LISTED],
        total=len(preview.effects),
        fields=resubmitted(form, confirmed=[preview.state]),
        back=f"/console/settings/{name}/edit",
    )
