"""The change log, and undo."""

from datetime import UTC, date, datetime, time
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response
from pydantic import BeforeValidator
from sqlalchemy import Connection

from heksher_client.service.access import visible_changes
from heksher_client.service.change_filter import SCHEDULE, ChangeFilter
from heksher_client.service.changes import ACTIONS, Change, changes, latest_changes, recent_actors
from heksher_client.service.console.change_entries import existing
from heksher_client.service.console.forms import Form
from heksher_client.service.console.listing import PAGE_SIZE, listing
from heksher_client.service.console.outcomes import done_change
from heksher_client.service.console.pages.confirmation import Plan, carry_out
from heksher_client.service.console.pages.rule_selections import MAX_RULES
from heksher_client.service.console.pages.settings import Revision
from heksher_client.service.console.rendering import page
from heksher_client.service.console.undo import undo
from heksher_client.service.routing import RequestDatabase, RequestError

router: Final = APIRouter(prefix="/console", include_in_schema=False)
_PARAMETERS: Final = ("setting", "q", "actor", "action", "feature", "value", "from", "to", "before", "after", "group")
_SORTS: Final = ("newest", "oldest")
"""What comes first."""
_MAX_CHANGES_FOR_ACTORS: Final = 1_000
"""The last changes, whose actors are suggested."""
_Day = Annotated[date | None, BeforeValidator(lambda text: text or None)]
"""A day; None for an empty field of a form."""


@router.get("/changes")
def list_changes(
    request: Request,
    database: RequestDatabase,
    before: Revision | None = None,
    after: Revision = 0,
    done: Revision = 0,
    count: Revision = 1,
    group: Annotated[Revision | None, BeforeValidator(lambda text: text or None)] = None,
    since: Annotated[_Day, Query(alias="from")] = None,
    until: Annotated[_Day, Query(alias="to")] = None,
) -> Response:
    """Show the changes that the filters select, the latest or the oldest first. Days begin and end in UTC."""
    state = listing(request, "console/changes", _PARAMETERS, _SORTS)
    feature, required = state.condition()
    selected = ChangeFilter(
        setting=state["setting"] or None,
        setting_part=state["q"],
        actor_part=state["actor"],
        action=state["action"],
        since=None if since is None else datetime.combine(since, time.min, UTC),
        until=None if until is None else datetime.combine(until, time.max, UTC),
        feature=feature,
        conditions={feature: required} if required else {},
        value=state["value"],
        group=group,
    )
    with database.read() as connection:
        read, bound = (changes, "after") if state.sort == "oldest" else (latest_changes, "before")
        found = read(connection, selected=selected, after=after, before=before, limit=PAGE_SIZE + 1)
        shown, is_last = visible_changes(request.scope, found[:PAGE_SIZE]), len(found) <= PAGE_SIZE
        return page(
            request,
            "changes.html",
            connection,
            listing=state,
            back=f"/{state.link()}",
            changes=shown,
            links=existing(connection, shown),
            next_page=None if is_last else state.link(**{"before": "", "after": "", bound: shown[-1].revision}),
            actors=[*recent_actors(connection, _MAX_CHANGES_FOR_ACTORS), SCHEDULE],
            actions=ACTIONS,
            done=done_change(request, connection, done),
            count=count,
        )


@router.post("/changes/{revision}/undo")
def undo_change(
    request: Request,
    revision: Revision,
    database: RequestDatabase,
    form: Form,
) -> Response:
    """Undo a change of a rule."""

    def plan(connection: Connection) -> Plan | Response:
        return Plan(form, undo(connection, [_require_change(connection, revision)]))

    return carry_out(request, database, plan)


@router.post("/changes/{revision}/undo/all")
def undo_changes(request: Request, revision: Revision, database: RequestDatabase, form: Form) -> Response:
    """Undo all changes of rules that were made together with one, after a preview."""

    def plan(connection: Connection) -> Plan | Response:
        found = [_require_change(connection, revision)]
        if (group := found[0].group) is not None:
            found = changes(connection, after=0, selected=ChangeFilter(group=group), limit=MAX_RULES + 1)
        if len(found) > MAX_RULES:
            raise RequestError(422, f"at most {MAX_RULES:,} changes can be undone at once")
        return Plan(form, undo(connection, found), is_previewed=True)

    return carry_out(request, database, plan)


def _require_change(connection: Connection, revision: int) -> Change:
    found = changes(connection, after=revision - 1, limit=1)
    if not found or found[0].revision != revision:
        raise RequestError(404, f"there is no change with the revision {revision}")
    return found[0]
