"""Whether the service is well."""

from typing import Final

from fastapi import APIRouter

from heksher_client._version import __version__
from heksher_client.service import store
from heksher_client.service.requests import Transaction

router: Final = APIRouter()


@router.get("/api/health")
def health(connection: Transaction) -> dict[str, str]:
    """Answer, if the database does."""
    store.context_features(connection)
    return {"version": __version__}
