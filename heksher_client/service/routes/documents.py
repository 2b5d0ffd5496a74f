"""The endpoints that export everything as one document, and import such a document."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Body, Query
from fastapi.responses import JSONResponse

from heksher_client.service import document, import_export
from heksher_client.service.history import read_state
from heksher_client.service.routing import (
    NO_ETAG,
    WITHOUT_ETAG,
    RequestDatabase,
    RequestError,
    documented,
    example,
)
from heksher_client.service.schema import MAX_ID

# `document` uses the declarations of this package, so neither module can import names of the other one.

router: Final = APIRouter(strict_content_type=False)  # as all endpoints
MAX_DOCUMENT_BYTES: Final = 64 << 20
"""Bytes of the body of an import. A document with 100,000 rules has about 20 MB."""
_DOCUMENT: Final = {
    "heksher": 1,
    "context_features": ["environment", "user", "theme"],
    "settings": [
        {
            "name": "cache_size",
            "type": "int",
            "default_value": 10,
            "metadata": {"owner": "shop"},
            "version": "1.0",
            "configurable_features": ["environment", "user"],
            "aliases": ["cache_limit"],
            "rules": [
                {"rule_id": 1, "feature_values": {"user": "jim"}, "value": 200, "metadata": {"ticket": "OPS-17"}}
            ],
        }
    ],
}
_IMPORTED: Final = {
    "heksher": 1,
    "context_features": ["environment", "user", "theme"],
    "settings": [
        {
            "name": "cache_size",
            "type": "int",
            "default_value": 10,
            "metadata": {"owner": "shop"},
            "configurable_features": ["environment", "user"],
            "rules": [{"feature_values": {"user": "ann"}, "value": 50}],
        }
    ],
}
_PLANNED: Final = {
    "revision": 9,
    "changes": [
        {
            "action": "rule added",
            "setting": "cache_size",
            "text": "add rule to setting cache_size: user=ann is 50",
        }
    ],
}


@router.get("/api/v1/export", responses=documented(body=_DOCUMENT))
def export_document(database: RequestDatabase) -> JSONResponse:
    """Return all context features, settings and rules as one document, which `POST /api/v1/import` accepts.

    All rules have `starts_at` and `ends_at`, which are null if the rule has no such limit.
    """
    with database.read() as connection:
        database.state(connection)
        return JSONResponse(import_export.export(connection))


@router.post(
    "/api/v1/import",
    response_model=None,
    max_body_size=MAX_DOCUMENT_BYTES,
    dependencies=WITHOUT_ETAG,
    responses=documented(
        NO_ETAG
        | {
            409: "The document conflicts with the settings of the service. `detail` says how, and `path` where in the "
            "document.",
            412: "The service has another revision than `revision`, or `If-Match` was sent.",
            413: f"The body has more than {MAX_DOCUMENT_BYTES:,} bytes.",
            422: "The document is invalid: `detail` says how, and `path` where. Or a parameter is invalid.",
        },
        body=_PLANNED,
    ),
)
def import_document(
    database: RequestDatabase,
    body: Annotated[Any, Body(openapi_examples=example(_IMPORTED))],
    dry_run: Annotated[bool, Query()] = False,
    exact: Annotated[bool, Query()] = False,
    revision: Annotated[int | None, Query(ge=0, le=MAX_ID)] = None,
) -> JSONResponse:
    """Make all changes that a document requires, in one transaction, and return them and the revision after them.

    Fields of settings and rules that the document leaves out stay as they are. With `exact`, they are removed.
    With `dry_run`, return the changes without making them. With `exact`, delete what is not in the document. With
    `revision`, as a dry run returns it, make no change if there was another change since.
    """
    try:
        wanted = document.parse(body)
    except document.DocumentError as error:
        return _refuse(422, error)
    try:
        with database.read() if dry_run else database.write() as connection:
            if revision not in (None, read_state(connection).revision):
                raise RequestError(412, "the service has been changed since; nothing was imported")
            steps = import_export.plan(connection, wanted, exact=exact)
            if not dry_run:
                import_export.apply(connection, steps)
            reached = read_state(connection).revision
    except document.DocumentError as error:
        return _refuse(409, error)
    changes = [{"action": step.action, "setting": step.setting, "text": step.text} for step in steps]
    return JSONResponse({"revision": reached, "changes": changes})


def _refuse(status: int, error: document.DocumentError) -> JSONResponse:
    return JSONResponse({"detail": str(error), "path": list(error.path)}, status)
