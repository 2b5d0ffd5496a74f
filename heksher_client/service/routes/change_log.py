"""The log of all changes: when, who, what, from what, to what."""

from dataclasses import asdict
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query

from heksher_client.service.changes import changes
from heksher_client.service.requests import SettingName, Transaction
from heksher_client.service.schema import LARGEST_KEY

router: Final = APIRouter()


@router.get("/api/v1/change_log")
def read_change_log(
    connection: Transaction,
    after: Annotated[int, Query(ge=0, le=LARGEST_KEY)] = 0,
    setting: SettingName | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> dict[str, Any]:
    """The changes after a revision, in their order; of all settings, or of one by any name that it had."""
    return {"changes": [asdict(change) for change in changes(connection, after=after, setting=setting, most=limit)]}
