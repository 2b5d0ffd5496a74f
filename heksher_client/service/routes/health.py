"""The endpoints for monitoring."""

from typing import Final

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from heksher_client._version import __version__
from heksher_client.service import store
from heksher_client.service.metrics import Metrics
from heksher_client.service.routing import RequestDatabase, RequestError, documented

router: Final = APIRouter()


@router.get("/api/health", responses=documented(body={"version": __version__}))
def health(database: RequestDatabase) -> dict[str, str]:
    """Check that the database is available, and return the version of the service."""
    with database.read() as connection:
        database.state(connection)
        return {"version": __version__}


@router.get("/api/ready", responses=documented({503: "The service is stopping."}, body={"revision": 8}))
def ready(request: Request, database: RequestDatabase) -> dict[str, int]:
    """Check that the instance accepts requests: its database is available, and it is not stopping."""
    with database.read() as connection:
        if request.app.state.event_stream.is_closed:
            raise RequestError(503, "the service is stopping")
        return {"revision": database.state(connection).revision}


@router.get("/metrics", response_class=Response)
def metrics(request: Request, database: RequestDatabase) -> Response:
    """Return the metrics of this instance, in the text format of Prometheus."""
    with database.read() as connection:
        current: Metrics = request.app.state.metrics
        current.revision.set(database.state(connection).revision)
        current.settings.set(store.count_settings(connection))
        current.rules.set(store.count_rules(connection))
        return Response(generate_latest(current.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})
