"""The recorded exchanges with the reference service, replayed against the local one."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from heksher_client import __version__
from heksher_client.service import LocalService
from tests.support.http import http_client

WIRE = sorted((Path(__file__).parents[1] / "data" / "wire").glob("*.json"))

OURS_IS_RIGHT = {("context_features", 17): 422, **{("query_feature_names", i): 200 for i in range(11, 16)}}
"""The reference takes an empty name for a context feature, which no rule could ever use; and it loses the rules on
features that a filter names with capitals, digits or underscores."""


def as_recorded(body: Any) -> Any:
    """A body without what means nothing: the order of aliases, which the reference gives as its database likes."""
    if isinstance(body, dict):
        return {k: sorted(v) if k == "aliases" else as_recorded(v) for k, v in body.items()}
    return [as_recorded(element) for element in body] if isinstance(body, list) else body


@pytest.mark.parametrize("path", WIRE, ids=lambda path: path.stem)
def test_the_local_service_answers_as_the_reference_does(path: Path, new_database: Callable[[], str]) -> None:
    """Each recorded request gets the recorded status and body; of a 422, the status and the shape of what is wrong."""
    etags: dict[str, str] = {}
    with LocalService(["environment"], database=new_database()) as service, http_client(service.url) as http:
        for i, exchange in enumerate(json.loads(path.read_text())):
            asked, recorded = exchange["request"], exchange["response"]
            headers = asked.get("headers", {})
            for theirs, ours in etags.items():
                headers = {name: value.replace(theirs, ours) for name, value in headers.items()}
            answer = http.request(
                asked["method"], asked["path"], params=asked.get("query"), json=asked.get("json"), headers=headers
            )

            if "etag" in recorded.get("headers", {}):
                etags[recorded["headers"]["etag"]] = answer.headers["etag"]
            assert answer.status_code == OURS_IS_RIGHT.get((path.stem, i), recorded["status"]), (i, answer.text)
            if path.stem == "health" and i == 0:
                assert answer.json() == {"version": __version__}
            elif recorded["status"] == 422 and isinstance(recorded.get("json"), dict):
                details = answer.json()["detail"]
                assert {frozenset(detail) for detail in details} == {frozenset(["loc", "msg", "type"])}, i
            elif (path.stem, i) not in OURS_IS_RIGHT:
                body = answer.json() if "json" in recorded else answer.text
                # As text, because to Python 1, 1.0 and True are equal.
                expected = as_recorded(recorded.get("json", recorded.get("text", "")))
                assert json.dumps(as_recorded(body), sort_keys=True) == json.dumps(expected, sort_keys=True), i


def test_an_etag_is_of_one_body_only(new_database: Callable[[], str]) -> None:
    """In none of the recorded conversations two different bodies have one ETag."""
    bodies: dict[str, str] = {}
    for path in WIRE:
        with LocalService(["environment"], database=new_database()) as service, http_client(service.url) as http:
            for exchange in json.loads(path.read_text()):
                asked = exchange["request"]
                answer = http.request(asked["method"], asked["path"], params=asked.get("query"), json=asked.get("json"))
                if "etag" in answer.headers:
                    assert bodies.setdefault(answer.headers["etag"], answer.text) == answer.text
    assert len(bodies) >= 14
