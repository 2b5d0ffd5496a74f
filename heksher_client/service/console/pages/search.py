"""The search in all settings and rules."""

from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response

from heksher_client.service import store
from heksher_client.service.console.rendering import page
from heksher_client.service.routing import RequestDatabase
from heksher_client.service.search import search
from heksher_client.service.text_criteria import MAX_TEXT

router: Final = APIRouter(prefix="/console", include_in_schema=False)
_MAX_SETTINGS: Final = 20
"""Settings on a page of results."""
_MAX_PAGE: Final = 1_000_000


@router.get("/search")
def show_results(
    request: Request,
    database: RequestDatabase,
    q: str = "",
    number: Annotated[int, Query(alias="page", ge=1, le=_MAX_PAGE)] = 1,
) -> Response:
    """Show the settings that contain a text, and the rules that do."""
    with database.read() as connection:
        result = search(connection, q[:MAX_TEXT], limit=_MAX_SETTINGS, offset=(number - 1) * _MAX_SETTINGS)
        pages = -(-result.total // _MAX_SETTINGS)
        return page(
            request,
            "search.html",
            connection,
            q=q,
            result=result,
            order=store.context_features(connection),
            number=number,
            pages=pages,
        )
