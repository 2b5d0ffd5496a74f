"""Recorded exchanges with the reference implementation, replayed with the local service."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from heksher_client import __version__
from heksher_client.service import LocalService
from tests.support.http import http_client
from tests.support.marks import sqlite_only

WIRE = sorted((Path(__file__).parents[1] / "data" / "wire").glob("*.json"))

DELIBERATE_DIFFERENCES = {
    ("context_features", 17): 422,
    ("query", 25): 200,
    **{("query_feature_names", i): 200 for i in range(11, 16)},
}
"""Statuses by file and exchange. The reference accepts an empty name of a context feature, which no rule can use; it
refuses values with hyphens in context filters, and ignores filters whose names contain capitals, digits or
underscores."""
VALUES_THAT_THE_REFERENCE_REFUSES = {("rules", 16): "has-dash", ("rules", 17): "has space"}
"""Rules that this service adds. They would change the responses to later requests, so they are not sent."""


def normalize(body: Any) -> Any:
    """Sort aliases, whose order in the reference depends on its database."""
    if isinstance(body, dict):
        return {k: sorted(v) if k == "aliases" else normalize(v) for k, v in body.items()}
    return [normalize(element) for element in body] if isinstance(body, list) else body


@pytest.mark.unmeasured
@pytest.mark.parametrize("path", WIRE, ids=lambda path: path.stem)
def test_the_local_service_responds_like_the_reference(path: Path, new_database: Callable[[], str]) -> None:
    """With the recorded status and body; for the status 422, with a body of the recorded form."""
    etags: dict[str, str] = {}
    with LocalService(["environment"], database=new_database()) as service, http_client(service.url) as http:
        for i, exchange in enumerate(json.loads(path.read_text())):
            request, recorded = exchange["request"], exchange["response"]
            if (value := VALUES_THAT_THE_REFERENCE_REFUSES.get((path.stem, i))) is not None:
                assert (recorded["status"], request["json"]["feature_values"]) == (422, {"user": value})
                continue
            headers = request.get("headers", {})
            for theirs, ours in etags.items():
                headers = {name: value.replace(theirs, ours) for name, value in headers.items()}
            response = http.request(
                request["method"],
                request["path"],
                params=request.get("query"),
                json=request.get("json"),
                headers=headers,
            )

            if "etag" in recorded.get("headers", {}):
                etags[recorded["headers"]["etag"]] = response.headers["etag"]
            assert response.status_code == DELIBERATE_DIFFERENCES.get((path.stem, i), recorded["status"]), (
                i,
                response.text,
            )
            if path.stem == "health" and i == 0:
                assert response.json() == {"version": __version__}
            elif response.status_code == 422 and isinstance(recorded.get("json"), dict):
                details = response.json()["detail"]
                assert {frozenset(detail) for detail in details} == {frozenset(["loc", "msg", "type"])}, i
            elif (path.stem, i) not in DELIBERATE_DIFFERENCES:
                body = response.json() if "json" in recorded else response.text
                # As text, because 1, 1.0 and True are equal in Python.
                expected = normalize(recorded.get("json", recorded.get("text", "")))
                assert json.dumps(normalize(body), sort_keys=True) == json.dumps(expected, sort_keys=True), i


@pytest.mark.slow
@pytest.mark.unmeasured
@sqlite_only
def test_different_bodies_have_different_etags(new_database: Callable[[], str]) -> None:
    """In all recorded exchanges."""
    bodies: dict[str, str] = {}
    for path in WIRE:
        with LocalService(["environment"], database=new_database()) as service, http_client(service.url) as http:
            for exchange in json.loads(path.read_text()):
                request = exchange["request"]
                response = http.request(
                    request["method"], request["path"], params=request.get("query"), json=request.get("json")
                )
                if "etag" in response.headers:
                    assert bodies.setdefault(response.headers["etag"], response.text) == response.text
    assert len(bodies) >= 14
