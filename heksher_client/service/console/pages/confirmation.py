"""Confirmation of changes of rules: conflicts with changes of others, and the preview of what a change does to values.

Nothing is overwritten unseen: a form has the ETag of each rule that it shows, and a confirmation the state for which
the preview was made.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from fastapi import Request, Response
from sqlalchemy import Connection

from heksher_client.service import store
from heksher_client.service.changes import Change, rule_changes
from heksher_client.service.console.forms import resubmitted, text
from heksher_client.service.console.inputs import Fields
from heksher_client.service.console.listing import address_back, redirect_back
from heksher_client.service.console.planned_changes import (
    RuleChange,
    SettingChanges,
    effects,
    make_changes,
    state_of,
)
from heksher_client.service.console.rendering import page
from heksher_client.service.history import read_state
from heksher_client.service.operations import rule_etag
from heksher_client.service.routing import RequestDatabase, RequestError
from heksher_client.service.store import StoredRule, StoredSetting

DEFAULT_PREVIEW_ABOVE: Final = 10
"""Rules that a form changes without a preview, unless one of them is protected, or the service has another number."""
MAX_LISTED: Final = 100
"""Rules and contexts that a page lists. It counts all of them."""
_SELECTED: Final = re.compile('([0-9]{1,18}):("[0-9a-f]+")?')


@dataclass(frozen=True, slots=True)
class Plan:
    """Changes of rules, and the form that asks for them."""

    form: Fields
    parts: Sequence[SettingChanges]
    """The changes by setting."""
    expected: Mapping[int, str] = field(default_factory=dict)
    """The ETags of the rules when the form was loaded, by their ids. An empty one is that of any state."""
    note: Mapping[str, str] = field(default_factory=dict)
    """The comment and the link of deletions."""
    is_previewed: bool = False
    """Whether a preview is shown however many rules change."""
    template: str = "preview.html"
    """The template of the preview."""
    shown: Mapping[str, Any] = field(default_factory=dict)
    """What this template shows in addition."""

    @property
    def changes(self) -> list[RuleChange]:
        """The changes of all settings."""
        return [change for part in self.parts for change in part.changes]

    @property
    def settings(self) -> list[StoredSetting]:
        """The settings of the rules."""
        return [part.setting for part in self.parts]

    @property
    def page(self) -> str:
        """The address of the page to which the form leads back if it does not have another one."""
        return page_of(self.settings[0])


@dataclass(frozen=True, slots=True)
class Conflict:
    """A rule that somebody else has changed or deleted since the form was loaded."""

    rule_id: int
    theirs: StoredRule | None
    """None if the rule was deleted."""
    yours: StoredRule | None
    """None if the form deletes the rule."""
    deletion: Change | None = None


def page_of(setting: StoredSetting) -> str:
    """Return the address of the page of a setting."""
    return f"console/settings/{setting.declaration.name}"


def selected_value(rule: StoredRule) -> str:
    """Return the value of the checkbox that selects a rule: its id, and its ETag as it is now."""
    return f"{rule.id}:{rule_etag(rule)}"


def selected_rules(form: Fields) -> dict[int, str]:
    """Return the ETags of the selected rules by their ids.

    Raises:
        RequestError: The form selects something else.
    """
    found = [_SELECTED.fullmatch(value) for value in form.get("rule", [])]
    if not all(found):
        raise RequestError(422, "the address contains an invalid value")
    return {int(each[1]): each[2] or "" for each in found if each is not None}


def carry_out(
    request: Request, database: RequestDatabase, read_plan: Callable[[Connection], Plan | Response]
) -> Response:
    """Make the changes of a plan and lead back, or return the page that is shown instead.

    That is the page of a form with errors, or the one that asks what to do about conflicts, or for a confirmation.

    Args:
        request: The request.
        database: The database.
        read_plan: A function that returns the plan of the submitted form, or the page with the errors in it.
    """
    # First without the lock of transactions that write: a page about thousands of rules takes a second.
    with database.read() as connection:
        found = _check(request, connection, read_plan(connection))
    if isinstance(found, Response):
        return found
    with database.write() as connection:
        plan = _check(request, connection, read_plan(connection))
        if isinstance(plan, Response):
            return plan
        make_changes(connection, plan.parts, plan.note)
        revision = read_state(connection).revision if plan.changes else 0
        return redirect_back(request, plan.form, plan.page, revision, len(plan.changes))


def _check(request: Request, connection: Connection, plan: Plan | Response) -> Plan | Response:
    """Return a plan without the changes that change nothing, or the page that is shown instead."""
    if isinstance(plan, Response):
        return plan
    conflicts = _conflicts(connection, plan)
    if conflicts:
        return _show_conflicts(request, connection, plan, conflicts)
    plan = replace(plan, parts=[part.effective for part in plan.parts])
    if _needs_preview(request, plan) and text(plan.form, "confirmed") != state_of(connection, plan.settings):
        return preview(request, connection, plan)
    return plan


def _needs_preview(request: Request, plan: Plan) -> bool:
    if not plan.changes:
        return False
    is_large = len(plan.changes) > request.app.state.preview_above
    return plan.is_previewed or is_large or any(part.is_protected for part in plan.parts)


def preview(request: Request, connection: Connection, plan: Plan, *, status: int = 200) -> Response:
    """Return the page that shows what the changes of a plan do, and asks for a confirmation.

    Args:
        request: The request.
        connection: The connection of the transaction.
        plan: The plan.
        status: The status of the response, unless the form confirms a state: this is not the present one.
    """
    found = effects(connection, plan.parts)
    found.sort(key=lambda effect: not effect.is_change)
    state = state_of(connection, plan.settings)
    is_outdated = text(plan.form, "confirmed") not in ("", state)
    return page(
        request,
        plan.template,
        connection,
        status=409 if is_outdated else status,
        settings=[setting.declaration.name for setting in plan.settings],
        changes=len(plan.changes),
        counts=Counter(change.action for change in plan.changes),
        is_protected=any(part.is_protected for part in plan.parts),
        is_outdated=is_outdated,
        effects=found[:MAX_LISTED],
        total=len(found),
        changing=sum(effect.is_change for effect in found),
        fields=resubmitted(plan.form, confirmed=[state]),
        back=f"/{address_back(plan.form, plan.page)}",
        **plan.shown,
    )


def _conflicts(connection: Connection, plan: Plan) -> list[Conflict]:
    by_id = {change.former.id: change for change in plan.changes if change.former is not None}
    found = []
    for rule_id, etag in plan.expected.items():
        change = by_id.get(rule_id)
        if change is None:
            if store.rule(connection, rule_id) is None:
                found.append(Conflict(rule_id, None, None, deletion_of(connection, rule_id)))
        elif change.former is not None and etag not in ("", rule_etag(change.former)):
            found.append(Conflict(rule_id, change.former, change.new))
    return found


def deletion_of(connection: Connection, rule_id: int) -> Change | None:
    """Return the entry of the change log about the deletion of a rule, if there is one."""
    latest = rule_changes(connection, rule_id, limit=1)
    return latest[0] if latest and latest[0].new is None else None


def _show_conflicts(request: Request, connection: Connection, plan: Plan, conflicts: Sequence[Conflict]) -> Response:
    """Return the page that shows the changes of others, and asks what to do.

    One of its forms replaces their changes, and the other one leaves their rules out.
    """
    conflicting = {conflict.rule_id for conflict in conflicts}
    present = {change.former.id: change.former for change in plan.changes if change.former is not None}
    others = [f"{rule_id}:{etag}" for rule_id, etag in plan.expected.items() if rule_id not in conflicting]
    replacing = [selected_value(present[rule_id]) for rule_id in plan.expected if rule_id in present]
    is_list = "rule" in plan.form
    changed = [conflict for conflict in conflicts if conflict.theirs is not None]
    replaced = {"rule": replacing} if is_list else {"etag": [rule_etag(rule) for rule in present.values()]}
    return page(
        request,
        "conflict.html",
        connection,
        status=409,
        setting=plan.settings[0].declaration,
        conflicts=conflicts[:MAX_LISTED],
        total=len(conflicts),
        others=len(others),
        replace_fields=resubmitted(plan.form, **replaced) if changed else None,
        keep_fields=resubmitted(plan.form, rule=others) if is_list and others else None,
        back=f"/{address_back(plan.form, plan.page)}",
    )
