"""The changes: the log of all that there were, and those to come."""

from dataclasses import asdict
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import StreamingResponse

from heksher_client.service.access import token_of
from heksher_client.service.changes import changes
from heksher_client.service.event_stream import Feed
from heksher_client.service.routing import RequestDatabase, SettingName, documented, example
from heksher_client.service.schema import LARGEST_KEY

router: Final = APIRouter()
_CHANGE: Final = {
    "revision": 6,
    "at": "2026-01-31T09:30:00+00:00",
    "actor": "ops",
    "action": "rule changed",
    "settings": ["cache_size"],
    "former": {"rule_id": 1, "feature_values": {"user": "jim"}, "value": 100, "metadata": {"ticket": "OPS-17"}},
    "new": {"rule_id": 1, "feature_values": {"user": "jim"}, "value": 200, "metadata": {"ticket": "OPS-17"}},
}
_EVENT: Final = 'event: change\ndata: {"settings":["cache_size"],"all":false,"within":0.0}\nid: 6\n\n'


@router.get("/api/v1/change_log", responses=documented(body={"changes": [_CHANGE]}))
def read_change_log(
    database: RequestDatabase,
    after: Annotated[int, Query(ge=0, le=LARGEST_KEY, openapi_examples=example(5))] = 0,
    setting: Annotated[SettingName | None, Query(openapi_examples=example("cache_size"))] = None,
    limit: Annotated[int, Query(ge=1, le=1000, openapi_examples=example(1))] = 100,
) -> dict[str, Any]:
    """The changes after a revision, in their order; of all settings, or of one by any name that it had."""
    with database.read() as connection:
        return {"changes": [asdict(change) for change in changes(connection, after=after, setting=setting, most=limit)]}


class EventStream(StreamingResponse):
    media_type = "text/event-stream"


# Not FastAPI's own streams of events, which encode each event for each stream anew.
@router.get(
    "/api/v1/changes",
    response_class=EventStream,
    responses={200: {"content": {"text/event-stream": {"example": _EVENT}}}},
)
async def follow_changes(
    request: Request, last_event_id: Annotated[int | None, Header(ge=0, le=LARGEST_KEY)] = None
) -> EventStream:
    """The changes as they come, as server-sent events whose ids are revisions; after `Last-Event-ID`, if that is given.

    Each event `change` has the names of the `settings` that it touched, or `all` where it touched all of them, and
    `within`: over how many seconds programs should spread their queries, as all of them hear of it at once. An event
    `hello` tells the revision to begin with; `reset` that the one given is none of this database.
    """
    feed: Feed = request.app.state.feed
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return EventStream(feed.stream(last_event_id, token_of(request.scope)), headers=headers)
