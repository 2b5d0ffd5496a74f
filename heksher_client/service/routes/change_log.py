"""The endpoints of changes: the change log, and the event stream."""

from dataclasses import asdict
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import AwareDatetime

from heksher_client.service.access import request_token, visible_changes
from heksher_client.service.change_filter import ChangeFilter
from heksher_client.service.changes import changes, latest_changes
from heksher_client.service.event_stream import EventStream
from heksher_client.service.routes.rules import CONDITIONS_PATTERN, parse_conditions
from heksher_client.service.routing import ContextName, RequestDatabase, SettingName, documented, example
from heksher_client.service.schema import MAX_ID
from heksher_client.service.text_criteria import MAX_TEXT

router: Final = APIRouter()
STREAM_PATH: Final = "/api/v1/changes"
_CHANGE: Final = {
    "revision": 6,
    "at": "2026-01-31T09:30:00+00:00",
    "actor": "ops",
    "action": "rule changed",
    "settings": ["cache_size"],
    "former": {"rule_id": 1, "feature_values": {"user": "jim"}, "value": 100, "metadata": {"ticket": "OPS-17"}},
    "new": {"rule_id": 1, "feature_values": {"user": "jim"}, "value": 200, "metadata": {"ticket": "OPS-17"}},
    "group": 5,
}
_DATA: Final = '{"settings":["cache_size"],"all":false,"within":0.0,"database":"5f0c2d7e9b1a4c36.1764460000000"}'
_EVENT: Final = f"event: change\ndata: {_DATA}\nid: 6\n\n"


@router.get("/api/v1/change_log", responses=documented(body={"changes": [_CHANGE]}))
def read_change_log(  # noqa: PLR0913 - the parameters of the request
    request: Request,
    database: RequestDatabase,
    after: Annotated[
        int, Query(ge=0, le=MAX_ID, openapi_examples=example(5), description="Only changes after this revision.")
    ] = 0,
    setting: Annotated[
        SettingName | None,
        Query(
            openapi_examples=example("cache_size"),
            description="Only changes of the setting with this name, which may be a former one.",
        ),
    ] = None,
    limit: Annotated[int, Query(ge=1, le=1000, openapi_examples=example(1))] = 100,
    *,
    latest: Annotated[
        bool, Query(description="The latest changes instead of the oldest, and the latest first.")
    ] = False,
    before: Annotated[int | None, Query(ge=0, le=MAX_ID, description="Only changes before this revision.")] = None,
    actor: Annotated[
        str, Query(max_length=255, description="Only changes made with the token of this name, or by the `schedule`.")
    ] = "",
    action: Annotated[str, Query(max_length=255, description="Only changes of this kind, such as `rule added`.")] = "",
    since: Annotated[AwareDatetime | None, Query(description="Only changes since this time, with an offset.")] = None,
    until: Annotated[AwareDatetime | None, Query(description="Only changes until this time, with an offset.")] = None,
    setting_part: Annotated[
        str,
        Query(max_length=255, description="Only changes of settings with this text in a name, present or former."),
    ] = "",
    actor_part: Annotated[
        str, Query(max_length=255, description="Only changes made with tokens with this text in their names.")
    ] = "",
    feature: Annotated[
        ContextName | None, Query(description="Only changes of rules with a condition on this context feature.")
    ] = None,
    conditions: Annotated[
        str | None,
        Query(
            pattern=CONDITIONS_PATTERN,
            description="Only changes of rules with these conditions, perhaps with others, like `user:jim,theme:dark`.",
        ),
    ] = None,
    value: Annotated[
        str,
        Query(
            max_length=MAX_TEXT,
            description="Only changes of rules or default values with this text in the JSON of the value, before or "
            "after the change.",
        ),
    ] = "",
    group: Annotated[
        int | None,
        Query(
            ge=1, le=MAX_ID, description="Only changes made together: those with this `group`, their first revision."
        ),
    ] = None,
) -> dict[str, Any]:
    """Return the changes that meet all given criteria: the first ones and the oldest first, or the last ones.

    With `latest`, the last ones, and the latest first. Parts of names and values are found in any case.

    Changes that were made together have the same `group`, which is null for others.

    Without the role `admin`, `former` and `new` are null for `token added` and `token revoked`.
    """
    with database.read() as connection:
        selected = ChangeFilter(
            setting,
            actor,
            action,
            since,
            until,
            setting_part=setting_part,
            actor_part=actor_part,
            feature=feature or "",
            conditions={} if conditions is None else parse_conditions(conditions, "conditions"),
            value=value,
            group=group,
        )
        read = latest_changes if latest else changes
        found = read(connection, selected=selected, after=after, before=before, limit=limit)
        return {"changes": [asdict(change) for change in visible_changes(request.scope, found)]}


class EventStreamResponse(StreamingResponse):
    media_type = "text/event-stream"


# Not with FastAPI's `EventSourceResponse`, which encodes each event again for each subscriber.
@router.get(
    STREAM_PATH,
    response_class=EventStreamResponse,
    responses={200: {"content": {"text/event-stream": {"example": _EVENT}}}},
)
async def follow_changes(
    request: Request,
    last_event_id: Annotated[int | None, Header(ge=0, le=MAX_ID)] = None,
    heksher_database: Annotated[str | None, Header(pattern=r"^[0-9a-f]{1,64}\.[0-9]{1,18}$")] = None,
) -> EventStreamResponse:
    """Stream changes as server-sent events, whose ids are revisions: those after `Last-Event-ID`, and then new ones.

    An event `change` contains the names of the affected `settings`; `all`, which is true if all settings are affected;
    and `within`, the number of seconds over which programs should spread their queries. An event `hello` contains the
    current revision, if no `Last-Event-ID` was given. An event `reset` means that the given revision is unknown. With
    the header `Heksher-Database` of the response that the revision comes from, that includes a revision of another
    database, or of this one before it was restored from a backup. All events contain the `database` that their revision
    belongs to, as in that header.
    """
    event_stream: EventStream = request.app.state.event_stream
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    events = event_stream.subscribe(last_event_id, heksher_database, request_token(request.scope))
    return EventStreamResponse(events, headers=headers)
