"""The search in all settings and rules."""

from typing import Final

from fastapi import APIRouter, Request, Response

from heksher_client.service import store
from heksher_client.service.console.listing import listing
from heksher_client.service.console.rendering import page
from heksher_client.service.routing import RequestDatabase, RequestError
from heksher_client.service.search import Search
from heksher_client.service.text_criteria import MAX_TEXT

router: Final = APIRouter(prefix="/console", include_in_schema=False)
_PAGE_SIZE: Final = 20
"""Settings on a page of results, each with some rules."""


@router.get("/search")
def show_results(request: Request, database: RequestDatabase, q: str = "") -> Response:
    """Show the settings that contain a text, and the rules that do."""
    if len(q) > MAX_TEXT:
        raise RequestError(422, f"the text of a search may have at most {MAX_TEXT:,} characters")
    state = listing(request, "console/search", ["q"])
    with database.read() as connection:
        search = Search(connection, state["q"])
        pages = state.pages(search.total, _PAGE_SIZE)
        return page(
            request,
            "search.html",
            connection,
            listing=state,
            total=search.total,
            rule_total=search.rule_total,
            match=search.matcher,
            settings=search.page(_PAGE_SIZE, pages.offset),
            pages=pages,
            order=store.context_features(connection),
        )
