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
    assert latest(service, actor="nobody") == latest(service, actor="\0") == latest(service, actor="schedule") == []
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


def test_changes_that_were_made_together_are_a_group(service: WatchedService) -> None:
    """Of an import. Its name is the first revision."""
    document = service.call("GET", "/api/v1/export").json()
    document["context_features"] += ["region", "plan"]
    service.call("POST", "/api/v1/import", document)
    service.declare("s", "int", 1, ["user"])
    alone, plan, region = latest(service, limit=3)
    assert (alone["group"], plan["group"]) == (None, region["revision"])
    assert latest(service, group=region["revision"]) == [plan, region]
    assert latest(service, group=alone["revision"]) == []


def test_changes_are_found_by_a_part_of_a_name_that_the_setting_has_now_or_had(service: WatchedService) -> None:
    """In any case, also if it was renamed since; and by a part of the name of a token."""
    for name in ("cache_size", "cache_age", "color"):
        service.declare(name, "int", 1, ["user"])
    service.call("PUT", "/api/v1/settings/color/name", {"name": "theme", "version": "1.1"})
    service.call("DELETE", "/api/v1/settings/cache_age")
    deleted, renamed, color, age, size = latest(service, limit=5)
    assert latest(service, setting_part="CACHE") == [deleted, age, size]
    assert latest(service, setting_part="them") == latest(service, setting_part="colo") == [renamed, color]
    assert latest(service, setting_part="e_") == [deleted, age, size]
    assert latest(service, setting_part="c", latest=False) == [size, age, color, renamed, deleted]
    assert latest(service, setting_part='"') == []
    assert latest(service, actor_part="a") == []


def test_changes_are_found_by_conditions_before_or_after(service: WatchedService) -> None:
    """Of rules, with exactly these values: not by metadata or values that look the same."""
    service.declare("s", "Mapping<str>", {"user": "jim"}, ["environment", "user"], metadata={"user": "jim"})
    value = {"a": "b", "user": "jim", "value": "x", "rule_id": "y"}
    rule = service.add_rule("s", value, user='é"}, "value": ')
    path = f"/api/v1/rules/{rule}"
    service.call("POST", f"{path}/metadata", {"metadata": {"user": "jim"}})
    service.call("PUT", f"{path}/conditions", {"feature_values": {"environment": "prod", "user": "jim"}})
    service.call("DELETE", "/api/v1/settings/s")
    _, moved, noted, added, _ = latest(service, limit=5)
    assert latest(service, conditions="user:jim") == [moved]
    assert latest(service, conditions="user:jim,environment:prod") == [moved]
    assert latest(service, conditions='user:é"}~2C "value": ') == [moved, noted, added]
    assert latest(service, conditions="user:ji") == []
    assert latest(service, conditions="a:b") == []
    assert latest(service, feature="environment") == [moved]
    assert latest(service, feature="user", latest=False) == [added, noted, moved]
    assert latest(service, feature="a") == latest(service, feature="rule_id") == []


def test_changes_are_found_by_values_before_or_after(service: WatchedService) -> None:
    """Of rules and default values, by a part of their JSON in any case: not by conditions or metadata."""
    service.declare("s", "str", "Ä b", ["user"], metadata={"note": "jim"})
    rule = service.add_rule("s", 'say "Hi"', user="jim")
    service.call("PUT", f"/api/v1/rules/{rule}/value", {"value": "bye"})
    service.call("POST", f"/api/v1/rules/{rule}/metadata", {"metadata": {"note": "bye, jim"}})
    service.call("DELETE", f"/api/v1/rules/{rule}")
    deleted, noted, changed, added, declared = latest(service, limit=5)
    assert latest(service, value="HI") == latest(service, value='say "h') == [changed, added]
    assert latest(service, value="bye") == [deleted, noted, changed]
    assert latest(service, value="ä") == [declared]
    assert latest(service, value="jim") == latest(service, value="metadata") == []


def test_a_value_that_looks_like_metadata_is_found_as_a_whole(service: WatchedService) -> None:
    value = {"a": {}, "metadata": {"b": "c"}, "z": {"d": "needle"}}
    service.declare("s", "Mapping<Mapping<str>>", value, ["user"], metadata={"note": "pin"})
    service.declare("t", "Mapping<Mapping<str>>", {"a": {}}, ["user"], metadata={"a": {}, "metadata": {}})
    t, s = latest(service, limit=2)
    assert latest(service, value="needle") == [s]
    assert latest(service, value='"a"') == [t, s]


def test_invalid_criteria_are_refused(service: WatchedService) -> None:
    """A time needs an offset."""
    for name, value in (
        ("since", "2026-01-31T09:30"),
        ("before", "-1"),
        ("latest", "often"),
        ("actor", "a" * 300),
        ("feature", "a b"),
        ("conditions", "user"),
        ("conditions", "user:a,user:b"),
    ):
        response = http_request("GET", f"{service.url}/api/v1/change_log", params={name: value})
        assert response.status_code == 422
