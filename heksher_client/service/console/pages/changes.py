"""The change log, and undo."""

from typing import Final

from fastapi import APIRouter, Request, Response

from heksher_client.service.changes import changes, latest_changes
from heksher_client.service.console.forms import Form
from heksher_client.service.console.pages.settings import Revision, redirect_to_setting
from heksher_client.service.console.rendering import page
from heksher_client.service.console.undo import undo
from heksher_client.service.routing import RequestDatabase, RequestError

router: Final = APIRouter(prefix="/console", include_in_schema=False)
_MAX_CHANGES: Final = 50


@router.get("/changes")
def list_changes(
    request: Request, database: RequestDatabase, setting: str = "", before: Revision | None = None
) -> Response:
    """Show the change log, the latest change first."""
    with database.read() as connection:
        found = latest_changes(connection, before=before, setting=setting or None, limit=_MAX_CHANGES + 1)
        shown, is_last = found[:_MAX_CHANGES], len(found) <= _MAX_CHANGES
        more = None if is_last else shown[-1].revision
        return page(request, "changes.html", connection, changes=shown, setting_name=setting, more=more)


@router.post("/undo/{revision}")
def undo_change(
    request: Request,
    revision: Revision,
    database: RequestDatabase,
    form: Form,
) -> Response:
    """Undo a change of a rule."""
    with database.write() as connection:
        found = changes(connection, after=revision - 1, limit=1)
        if not found or found[0].revision != revision:
            raise RequestError(404, f"there is no change with the revision {revision}")
        return redirect_to_setting(request, undo(connection, found[0]), connection, form)
