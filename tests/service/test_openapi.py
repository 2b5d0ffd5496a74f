"""The OpenAPI document: the service responds as documented, to the examples and to generated requests."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.http import http_client
from tests.support.marks import sqlite_only
from tests.support.openapi import OPERATIONS
from tests.support.service import WatchedService

STREAM = "/api/v1/changes"
"""The response does not end."""


@pytest.fixture
def described(service: WatchedService) -> WatchedService:
    """The service that the examples assume."""
    service.call("POST", "/api/v1/settings/declare", OPERATIONS["POST /api/v1/settings/declare"].body)
    rule = {"setting": "cache_size", "feature_values": {"user": "jim"}, "value": 100, "metadata": {"ticket": "OPS-17"}}
    service.call("POST", "/api/v1/rules", rule)
    service.call("PUT", "/api/v1/rules/1/value", {"value": 200})
    service.call("PUT", "/api/v1/settings/cache_size/aliases/cache_limit")
    service.call("POST", "/api/v1/tokens", {"name": "shop", "lifetime": 3600})
    return service


@pytest.fixture
def http(described: WatchedService) -> Iterator[httpx.Client]:
    with http_client(described.url) as client:
        yield client


@pytest.mark.unmeasured
@pytest.mark.parametrize("name", [name for name in OPERATIONS if name != f"GET {STREAM}"])
def test_the_service_answers_the_example_of_an_operation_as_documented(http: httpx.Client, name: str) -> None:
    """The request of the example gets the documented status and body."""
    operation = OPERATIONS[name]
    response = http.request(operation.method, operation.path, params=operation.query, json=operation.body)
    assert str(response.status_code) in operation.responses
    assert response.is_success
    if operation.example is None:
        assert not response.content or name == "GET /metrics"
    else:
        assert _comparable(response.json()) == _comparable(operation.example)


_VARYING = (
    "at", "actor", "group", "changed_at", "changed_by", "created_at", "expires_at", "token", "starts_at", "ends_at",
)  # fmt: skip
"""The last two are null in an export, and FastAPI leaves nulls out of examples."""


def _comparable(body: Any) -> Any:
    if isinstance(body, dict):
        kept = {key: value for key, value in body.items() if key not in _VARYING}
        return {key: _comparable(value) for key, value in kept.items()}
    return list(map(_comparable, body)) if isinstance(body, list) else body


def test_the_document_has_all_operations_with_their_parameters_bodies_and_errors(http: httpx.Client) -> None:
    """`/openapi.json` is for programs, `/docs` for people."""
    assert http.get("/docs").status_code == 200
    document = http.get("/openapi.json")
    assert document.text == http.get("/openapi.json").text
    paths = document.json()["paths"]
    assert {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods} == set(OPERATIONS)
    for name, operation in OPERATIONS.items():
        assert "{" not in operation.path
        assert {"400", "413"} <= operation.responses.keys() or operation.body is None
        assert operation.example is not None or not name.startswith("GET") or name == "GET /metrics"


@pytest.mark.generated
@sqlite_only
def test_generated_requests_are_answered_as_documented(described: WatchedService, tmp_path: Path) -> None:
    """With a documented status and body, and never with the status 500."""
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{described.url}/openapi.json"]
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
    options = [
        "--max-examples=5",
        f"--checks={checks}",
        "--no-color",
        "--generation-database=none",
        f"--exclude-path={STREAM}",
    ]
    run = subprocess.run([*command, *options], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout
    assert f"Tested: {len(OPERATIONS) - 1}" in run.stdout
