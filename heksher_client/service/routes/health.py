"""How the service is: for those who watch over it."""

from typing import Final

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from heksher_client._version import __version__
from heksher_client.service import store
from heksher_client.service.metrics import Metrics
from heksher_client.service.query_cache import state
from heksher_client.service.routing import RefusalError, RequestDatabase, documented

router: Final = APIRouter()


@router.get("/api/health", responses=documented(body={"version": __version__}))
def health(database: RequestDatabase) -> dict[str, str]:
    """Answer, if the database does."""
    with database.read() as connection:
        state(connection)
        return {"version": __version__}


@router.get("/api/ready", responses=documented({503: "The service is stopping."}, body={"revision": 6}))
def ready(request: Request, database: RequestDatabase) -> dict[str, int]:
    """Whether requests should be sent here: not while the database does not answer, nor when it is stopping."""
    with database.read() as connection:
        if request.app.state.feed.is_closed:
            raise RefusalError(503, "the service is stopping")
        return {"revision": state(connection).revision}


@router.get("/metrics", response_class=Response)
def metrics(request: Request, database: RequestDatabase) -> Response:
    """The metrics of this instance, for Prometheus."""
    with database.read() as connection:
        held: Metrics = request.app.state.metrics
        held.revision.set(state(connection).revision)
        held.settings.set(store.number_of_settings(connection))
        held.rules.set(store.number_of_rules(connection))
        return Response(generate_latest(held.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})
