"""The last changes of the change log, over HTTP."""

from typing import Any

from tests.support.http import http_request
from tests.support.service import WatchedService


def latest(service: WatchedService, **parameters: Any) -> list[Any]:
    query = {"latest": True, **parameters}
    response = http_request("GET", f"{service.url}/api/v1/change_log", params=query)
    assert response.status_code == 200, response.text
    changes: list[Any] = response.json()["changes"]
    return changes


def test_the_latest_changes_come_first(service: WatchedService) -> None:
    """In pages, and filtered by setting, kind, token and time."""
    service.declare("s", "int", 1, ["user"])
    service.declare("t", "int", 1, ["user"])
    service.add_rule("s", 2, user="jim")
    rule, t, s = latest(service, limit=3)
    assert [change["action"] for change in (rule, t, s)] == ["rule added", "setting declared", "setting declared"]
    assert latest(service, before=t["revision"], limit=1) == [s]
    assert latest(service, setting="s") == [rule, s]
    assert latest(service, action="rule added") == [rule]
    assert latest(service, actor="nobody") == []
    assert latest(service, since=rule["at"]) == [rule]
    assert latest(service, setting="nothing") == []


def test_all_criteria_apply_in_both_directions(service: WatchedService) -> None:
    """From the oldest one as well, and a revision after which the latest ones are."""
    service.declare("s", "int", 1, ["user"])
    service.add_rule("s", 2, user="jim")
    service.add_rule("s", 3, user="ann")
    ann, jim, declared = latest(service, limit=3)
    assert latest(service, latest=False, action="rule added") == [jim, ann]
    assert latest(service, latest=False, actor="nobody") == []
    assert latest(service, latest=False, since=ann["at"], setting="s")[-1:] == [ann]
    assert latest(service, latest=False, since="2999-01-01T00:00:00Z") == []
    assert latest(service, latest=False, after=declared["revision"], before=ann["revision"]) == [jim]
    assert latest(service, after=declared["revision"]) == [ann, jim]


def test_invalid_criteria_are_refused(service: WatchedService) -> None:
    """A time needs an offset."""
    for name, value in (("since", "2026-01-31T09:30"), ("before", "-1"), ("latest", "often"), ("actor", "a" * 300)):
        response = http_request("GET", f"{service.url}/api/v1/change_log", params={name: value})
        assert response.status_code == 422
