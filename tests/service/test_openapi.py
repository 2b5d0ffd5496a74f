"""The OpenAPI document: its examples are true, and the service gets over whatever else is sent to it."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from heksher_client.service.documentation import EXAMPLES
from tests.support.http import http_client
from tests.support.service import WatchedService

STREAM = "/api/v1/changes"
"""It goes on for ever."""


@pytest.fixture
def described(service: WatchedService) -> WatchedService:
    """A service as the examples are of."""
    declared = EXAMPLES["POST /api/v1/settings/declare"].body
    service.call("POST", "/api/v1/settings/declare", declared)
    rule = {"setting": "cache_size", "feature_values": {"user": "jim"}, "value": 200, "metadata": {"ticket": "OPS-17"}}
    service.call("POST", "/api/v1/rules", rule)
    return service


@pytest.fixture
def http(described: WatchedService) -> Iterator[httpx.Client]:
    with http_client(described.url) as client:
        yield client


@pytest.mark.parametrize("operation", [name for name, held in EXAMPLES.items() if not isinstance(held.answer, str)])
def test_an_example_of_the_documentation_is_true(http: httpx.Client, operation: str) -> None:
    """The request is taken, with the status and the body that the document says."""
    example = EXAMPLES[operation]
    method, path = operation.split()
    documented = http.get("/openapi.json").json()["paths"][path][method.lower()]["responses"]
    answer = http.request(method, path.format(**example.path), params=example.query, json=example.body)
    assert answer.is_success
    if method == "GET" and example.answer is None:
        return
    response = documented[str(answer.status_code)]
    expected = response["content"]["application/json"]["example"] if answer.content else None
    assert _without_times(answer.json() if answer.content else None) == _without_times(expected)


def _without_times(body: Any) -> Any:
    if isinstance(body, dict):
        return {key: _without_times(value) for key, value in body.items() if key != "at"}
    return list(map(_without_times, body)) if isinstance(body, list) else body


def test_every_operation_is_documented_with_an_example(http: httpx.Client) -> None:
    """At `/docs` for people, at `/openapi.json` for programs."""
    assert http.get("/docs").status_code == 200
    assert http.get("/openapi.json").text == http.get("/openapi.json").text
    paths = http.get("/openapi.json").json()["paths"]
    assert {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods} == set(EXAMPLES)


@pytest.mark.generated
def test_whatever_is_sent_is_answered_as_the_document_says(described: WatchedService, tmp_path: Path) -> None:
    """Never with a 500, and always with a status and a body that it has; requests in many orders included."""
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{described.url}/openapi.json"]
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
    options = [
        "--max-examples=20",
        f"--checks={checks}",
        "--no-color",
        "--generation-database=none",
        f"--exclude-path={STREAM}",
    ]
    run = subprocess.run([*command, *options], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout
    assert f"Tested: {len(EXAMPLES) - 1}" in run.stdout
