"""The flows of administration, driven by hand with exchanges that were recorded with the reference implementation."""

import json
from collections.abc import Callable, Mapping
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from heksher_client import HeksherError, ServiceUnavailableError, Setting, UnexpectedResponseError
from heksher_client._core.refresh.administration import Administration
from heksher_client._core.refresh.effects import Exchange, Flow, Reply, Request, Response
from heksher_client._core.refresh.options import Options
from heksher_client._core.refresh.positions import Positions
from heksher_client._core.refresh.records import (
    ChangeRecord,
    ComparedValues,
    FoundRule,
    FoundSetting,
    ImportedChange,
    ImportResult,
    ResolvedValue,
    RulePage,
    RuleRecord,
    SearchResult,
    TokenRecord,
)
from heksher_client._core.refresh.service_requests import ServiceRequests


class Color(Enum):
    RED = "r"
    BLUE = "b"


WIRE = Path(__file__).parents[2] / "data" / "wire"
FEATURES = Response(200, b'{"context_features": ["environment", "user", "theme"]}')
LACKING = Response(404)
"""The response of the reference implementation to requests for lists of rules."""
Operation = Callable[[Administration], Flow[Any]]


def administration() -> Administration:
    options = Options.checked({"update_interval": 60}, can_follow=True)
    return Administration(ServiceRequests("http://service", options, Positions("http://service", lambda: 0.0)))


STORED = Response(
    200,
    b'{"name": "s", "type": "int", "default_value": 0, "configurable_features": ["user", "theme"], "metadata": {}, '
    b'"aliases": [], "version": "1.0"}',
)


def run(operation: Operation, *replies: Reply) -> tuple[Any, list[Request]]:
    """Run a flow with these replies. Return its result, or its error, and the requests that it has sent."""
    requests: list[Request] = []
    remaining = list(replies)
    try:
        flow = operation(administration())
        effect = next(flow)
        while True:
            assert isinstance(effect, Exchange)
            requests += effect.requests
            effect = flow.send((remaining.pop(0),))
    except StopIteration as end:
        assert remaining == []
        return end.value, requests
    except (HeksherError, ValueError, TypeError) as error:
        return error, requests


def of_json(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(status, json.dumps(body).encode(), headers or {})


def add_rule(setting: str, value: Any, metadata: Any = None, **conditions: Any) -> Operation:
    return lambda admin: admin.add_rule(setting, value, conditions, metadata or {})


RULE_1 = RuleRecord(1, {"user": "john"}, 100, {})
RECORDED: dict[str, dict[int, tuple[Operation, Any]]] = {
    "context_features": {
        0: (lambda admin: admin.add_context_feature("user"), None),
        2: (lambda admin: admin.context_features(), ("environment", "user", "theme")),
        5: (lambda admin: admin.add_context_feature("user"), "409: 'context feature already exists'"),
        6: (lambda admin: admin.move_context_feature("theme", "user", None), None),
        8: (lambda admin: admin.move_context_feature("theme", None, "user"), None),
        10: (lambda admin: admin.move_context_feature("nosuch", None, "user"), "404"),
        13: (lambda admin: admin.delete_context_feature("user"), "409: \"context feature can't be deleted"),
        14: (lambda admin: admin.delete_context_feature("theme"), None),
        15: (lambda admin: admin.delete_context_feature("theme"), "404"),
    },
    "settings": {
        16: (lambda admin: admin.set_setting_type("cache_size", "float", "1.1"), '409: \'{"conflicts":'),
        17: (lambda admin: admin.set_setting_type("cache_size", float, "2.0"), None),
        19: (lambda admin: admin.set_setting_type("cache_size", "float", "1.0"), "409: 'the setting cache_size is at"),
        20: (lambda admin: admin.set_configurable_features("cache_size", ["user"], "3.0"), "409: "),
        22: (
            lambda admin: admin.set_configurable_features("background_color", ("environment", "user", "theme"), "2.0"),
            None,
        ),
        23: (lambda admin: admin.add_setting_metadata("cache_size", {"a": 1}, "2.1"), None),
        24: (lambda admin: admin.replace_setting_metadata("cache_size", {"b": 2}, "2.2"), None),
        27: (lambda admin: admin.delete_setting_metadata("cache_size", "c", "2.4"), None),
        31: (lambda admin: admin.delete_setting("cache_size"), None),
        32: (lambda admin: admin.delete_setting("cache_size"), "404: 'setting name not found'"),
    },
    "aliases": {
        17: (lambda admin: admin.rename_setting("foo", "fresh", "1.2"), None),
        19: (lambda admin: admin.rename_setting("fresh", "third", "1.3"), "409: 'name already exists'"),
        20: (lambda admin: admin.rename_setting("nosuch", "x", "1.3"), "404: 'setting does not exist'"),
    },
    "rules": {
        4: (add_rule("cache_size", 100, user="john"), 1),
        11: (add_rule("cache_size", 1, user="john"), "409: 'rule already exists'"),
        12: (add_rule("cache_size", "x", user="joe"), "400: 'rule value is incompatible with setting type int'"),
        13: (add_rule("nosuch", 1, user="joe"), "422: 'setting not found with name nosuch'"),
        14: (add_rule("background_color", "red", user="joe"), '400: "setting is not configurable'),
        16: (add_rule("cache_size", 1, user="has-dash"), "422: "),
        18: (add_rule("cache_size", 1, {"by": "ops", "n": 1}, user="meta"), 8),
        19: (lambda admin: admin.rule(1), RULE_1),
        27: (lambda admin: admin.set_rule(1, 101, None), None),
        29: (lambda admin: admin.set_rule(1, "x", None), "400: 'rule value is incompatible with setting type int'"),
        32: (lambda admin: admin.add_rule_metadata(1, {"a": 1}, None), None),
        35: (lambda admin: admin.replace_rule_metadata(1, {"c": 3}, None), None),
        38: (lambda admin: admin.delete_rule_metadata(1, "c", None), None),
        42: (lambda admin: admin.remove_rule(1, None), None),
        43: (lambda admin: admin.remove_rule(1, None), "404"),
    },
}
"""By file and index of the recorded exchange: the operation that sends its request, and its result or error."""


@pytest.mark.parametrize("name", RECORDED)
def test_operations_send_the_recorded_requests_and_return_what_the_responses_say(name: str) -> None:
    """A refusal is an `UnexpectedResponseError` with the status and the text of the reference implementation."""
    exchanges = json.loads((WIRE / f"{name}.json").read_text())
    for i, (operation, expected) in RECORDED[name].items():
        request, recorded = exchanges[i]["request"], exchanges[i]["response"]
        content = json.dumps(recorded["json"]) if "json" in recorded else recorded.get("text", "")
        result, (sent,) = run(operation, Response(recorded["status"], content.encode(), recorded.get("headers", {})))
        assert (sent.method, sent.target.replace("%2E", ".")) == (request["method"], request["path"]), i
        assert (sent.content and json.loads(sent.content)) == request.get("json"), i
        assert ("Content-Type" in sent.headers) == ("json" in request), i
        if isinstance(expected, str):
            assert isinstance(result, UnexpectedResponseError), i
            assert f"the service responded with {expected}" in str(result), (i, result)
            assert result.status == recorded["status"]
        else:
            assert result == expected, i


def test_lists_are_parsed_as_recorded() -> None:
    """All settings, one of them, one by an alias, and the rules of one."""
    recorded = {
        (name, i): exchange["response"]
        for name in ("settings", "aliases", "rules")
        for i, exchange in enumerate(json.loads((WIRE / f"{name}.json").read_text()))
    }

    settings, _ = run(lambda admin: admin.settings(), of_json(recorded["settings", 12]["json"]))
    assert {name: data.type for name, data in settings.items()} == {"background_color": "str", "cache_size": "int"}
    cache_size, _ = run(lambda admin: admin.setting("cache_size"), of_json(recorded["settings", 14]["json"]))
    assert (cache_size.configurable_features, cache_size.version) == (["environment", "user", "theme"], "1.0")
    renamed, (sent,) = run(lambda admin: admin.setting("foo"), of_json(recorded["aliases", 5]["json"]))
    assert (renamed.name, renamed.aliases, sent.target) == ("bar", ["foo"], "/api/v1/settings/foo")

    reply = of_json(recorded["rules", 44]["json"])
    rules, (_, sent) = run(lambda admin: admin.rules("cache_size", {}), LACKING, reply)
    target = "/api/v1/query?settings=cache_size&context_filters=*&include_metadata=true"
    assert (sent.target, rules[0]) == (target, RuleRecord(2, {"user": "jim"}, 50, {}))
    found, _ = run(lambda admin: admin.rules("cache_size", {"environment": "prod"}), Response(405), reply)
    assert [rule.value for rule in found] == [20, 30]
    by_alias, _ = run(lambda admin: admin.rules("foo", {}), LACKING, of_json(recorded["aliases", 8]["json"]))
    assert [rule.value for rule in by_alias] == [5]


def test_conditions_on_an_unknown_context_feature_are_an_error() -> None:
    """A script that removes all rules of a user must notice a misspelled feature. A request more tells."""
    none = of_json({"settings": {"s": {"default_value": 0, "rules": []}}})
    for operation in (lambda admin: admin.rules("s", {"usr": "jim"}), lambda admin: admin.find_rule("s", {"usr": "x"})):
        error, sent = run(operation, LACKING, none, STORED)
        assert str(error) == "setting s has no context feature usr; it has: user, theme"
        assert sent[2].target == "/api/v1/settings/s"
    assert run(lambda admin: admin.rules("s", {"user": "jim"}), LACKING, none, STORED)[0] == ()
    assert run(lambda admin: admin.rules("s", {"usr": "jim"}), LACKING, none, Response(404), FEATURES)[0] == ()
    error, sent = run(lambda admin: admin.rules("s", {"a b": "x"}), none, STORED)
    assert (str(error).split(";")[0], "conditions" in sent[0].target) == ("setting s has no context feature a b", False)


def test_arguments_that_no_service_accepts_are_not_sent() -> None:
    for operation, error in (
        (lambda admin: admin.rename_setting("s", "t", "v2"), "'v2' is not a valid version: it must be like '1.0'"),
        (add_rule("s", 1), "conditions must not be empty: a rule requires a value of at least one context feature"),
    ):
        raised, sent = run(operation)
        assert (str(raised), sent) == (error, [])


def test_a_rule_is_found_by_its_conditions() -> None:
    """With exactly these, in any order. It is requested again by its id, for its ETag."""
    rules = [
        {"rule_id": 1, "context_features": [["user", "jim"], ["theme", "dark"]], "value": 1},
        {"rule_id": 2, "context_features": [["user", "jim"]], "value": 2, "metadata": {"a": 1}},
    ]
    query = of_json({"settings": {"s": {"default_value": 0, "rules": rules}}})
    single = {"setting": "s", "value": 2**70, "feature_values": [["user", "jim"]], "metadata": {"a": 1}}
    rule, sent = run(
        lambda admin: admin.find_rule("s", {"user": "jim"}), LACKING, query, of_json(single, headers={"etag": '"x"'})
    )
    assert rule == RuleRecord(2, {"user": "jim"}, 2**70, {"a": 1}, '"x"')
    assert [request.target for request in sent[2:]] == ["/api/v1/rules/2"]
    conditions = {"theme": "dark", "user": "jim"}
    _, sent = run(lambda admin: admin.find_rule("s", conditions), LACKING, query, of_json(single))
    assert sent[2].target == "/api/v1/rules/1"
    assert run(lambda admin: admin.find_rule("s", {"user": "ann"}), LACKING, query, STORED)[0] is None
    assert run(lambda admin: admin.find_rule("s", {"theme": "dark"}), LACKING, query)[0] is None


def listed_rule(rule_id: int, **more: Any) -> dict[str, Any]:
    return {"rule_id": rule_id, "feature_values": [["user", f"u{rule_id}"]], "value": rule_id, "metadata": {}} | more


def test_rules_are_listed_in_pages() -> None:
    """Those with the conditions, with what only lists contain."""
    author: dict[str, Any] = {
        "in_effect": False,
        "starts_at": "2030-01-01T00:00:00+00:00",
        "changed_at": "x",
        "changed_by": "ops",
    }
    pages = [[listed_rule(i) for i in range(1, 1001)], [listed_rule(1001, **author)]]
    replies = [of_json({"rules": page, "total": 1001}) for page in pages]
    rules, sent = run(lambda admin: admin.rules("shop.s", {}), *replies)
    assert [request.target for request in sent] == [
        f"/api/v1/settings/shop%2Es/rules?sort=rule&limit=1000&offset={offset}" for offset in (0, 1000)
    ]
    assert [rule.rule_id for rule in rules] == list(range(1, 1002))
    assert rules[-1] == RuleRecord(1001, {"user": "u1001"}, 1001, {}, **author)
    assert rules[-1].period == {"starts_at": author["starts_at"]}
    page = of_json({"rules": [listed_rule(1)], "total": 1})
    found, (only,) = run(lambda admin: admin.rules("s", {"user": "u1"}), page)
    assert (len(found), only.target) == (1, "/api/v1/settings/s/rules?sort=rule&conditions=user:u1&limit=1000&offset=0")
    _, sent = run(lambda admin: admin.rules("s", {"user": "a,\xe9"}), page)
    assert "&conditions=user:a~2C%C3%A9&" in sent[0].target


def test_rules_are_listed_again_if_something_changes_between_pages() -> None:
    """A rule may be on no page otherwise. If it changes all the time, the last attempt counts."""

    def pages(revision: int, last: int) -> list[Response]:
        positions = ({"heksher-revision": str(number), "heksher-database": "a1.1"} for number in (revision, last))
        bodies = ([listed_rule(i) for i in range(1, 1001)], [listed_rule(1001)])
        return [
            of_json({"rules": body, "total": 1001}, headers=one) for body, one in zip(bodies, positions, strict=True)
        ]

    rules, sent = run(lambda admin: admin.rules("s", {}), *pages(1, 2), *pages(2, 2))
    assert (len(rules), len(sent)) == (1001, 4)
    replies = [reply for attempt in range(5) for reply in pages(2 * attempt + 10, 2 * attempt + 11)]
    rules, sent = run(lambda admin: admin.rules("s", {}), *replies)
    assert (len(rules), len(sent)) == (1001, 10)
    shrunk = of_json({"rules": [], "total": 5})  # The rules are gone.
    assert run(lambda admin: admin.rules("s", {}), shrunk) == ((), [Request("GET", sent[0].target)])


def test_a_page_of_rules_is_requested_alone() -> None:
    """With the criteria, the order, and the number of all rules. A large page is several of the service."""
    page = of_json({"rules": [listed_rule(3)], "total": 5})
    criteria = {"text": "user=j", "value": "a&b", "author": ""}
    result, (sent,) = run(lambda admin: admin.rule_page("s", {"user": "jim"}, criteria, "-changed", 1, 2), page)
    assert (result, sent.target) == (
        RulePage((RuleRecord(3, {"user": "u3"}, 3, {}),), 5),
        "/api/v1/settings/s/rules?sort=-changed&text=user%3Dj&value=a%26b&conditions=user:jim&limit=1&offset=2",
    )
    pages = [[listed_rule(i) for i in range(1, 1001)], [listed_rule(1001)]]
    replies = [of_json({"rules": rules, "total": 5000}) for rules in pages]
    result, sent_pages = run(lambda admin: admin.rule_page("s", {}, {}, "rule", 1001, 0), *replies)
    assert (len(result.rules), result.total) == (1001, 5000)
    assert [request.target.partition("&")[2] for request in sent_pages] == [
        "limit=1000&offset=0",
        "limit=1&offset=1000",
    ]


def test_other_services_have_the_order_of_rules_but_no_criteria() -> None:
    """The client sorts and selects itself what the service does not list."""
    conditions = [{"user": "jim"}, {"theme": "dark"}, {"environment": "prod", "theme": "dark"}]
    rules = [
        {"rule_id": i, "context_features": list(required.items()), "value": i} for i, required in enumerate(conditions)
    ]
    query = of_json({"settings": {"s": {"default_value": 0, "rules": rules}}})
    for sort, ids in (("priority", [2, 1]), ("-priority", [0, 1])):
        page, _ = run(partial(Administration.rule_page, setting="s", conditions={}, criteria={}, sort=sort, limit=2,
                              offset=0), LACKING, query, FEATURES)  # fmt: skip
        assert ([rule.rule_id for rule in page.rules], page.total) == (ids, 3)
    page, _ = run(lambda admin: admin.rule_page("s", {}, {}, "-rule", 2, 1), LACKING, query)
    assert [rule.rule_id for rule in page.rules] == [1, 0]
    operations: list[Operation] = [
        lambda admin: admin.rules("s", {}, {"text": "jim"}),
        lambda admin: admin.rules("s", {}, {}, "changed"),
    ]
    for operation in operations:
        refused, _ = run(operation, LACKING)
        assert str(refused).startswith("the setting does not exist, or this service cannot filter and sort rules: GET")


def test_temporary_rules_are_listed_by_setting() -> None:
    listed = [listed_rule(i, setting=setting) for i, setting in enumerate(("a", "b", "a"))]
    result, (sent,) = run(lambda admin: admin.temporary_rules(), of_json({"rules": listed, "total": 3}))
    assert {name: [rule.rule_id for rule in rules] for name, rules in result.items()} == {"a": [0, 2], "b": [1]}
    assert sent.target == "/api/v1/rules?only_temporary=true&limit=1000&offset=0"
    refused, _ = run(lambda admin: admin.temporary_rules(), LACKING)
    assert str(refused).startswith("this service does not have temporary rules: GET /api/v1/rules")


def test_a_comparison_returns_the_values_in_both_contexts() -> None:
    """Of the service; or of its state, if it cannot compare. A context must be valid."""
    rule = {"rule_id": 1, "feature_values": [["user", "jim"]]}
    pair = {"setting": "s", "feature_values": [["theme", "a"]], "first": {"value": 2, "rule": rule},
            "second": {"value": 1}, "is_different": True}  # fmt: skip
    context = {"user": "jim", "environment": "a,b"}
    result, (sent,) = run(lambda admin: admin.compare(context, {}, False, None), of_json({"pairs": [pair]}))
    first = ResolvedValue(2, 1, {"user": "jim"})
    assert result == (ComparedValues("s", {"theme": "a"}, first, ResolvedValue(1), is_different=True),)
    assert sent.target == "/api/v1/compare?include_equal=false&first=user:jim,environment:a~2Cb"

    listed = of_json({"settings": [SETTING]})
    rules = {"s": {"rules": [{"rule_id": 1, "context_features": [["user", "jim"]], "value": 2}]}}
    replies = [LACKING, FEATURES, listed, of_json({"settings": rules}), LACKING]
    result, _ = run(lambda admin: admin.compare(context, {}, False, None), *replies)
    assert result == (ComparedValues("s", {}, first, ResolvedValue(1), is_different=True),)
    equal, _ = run(lambda admin: admin.compare({}, {}, True, None), *replies)
    assert [one.is_different for one in equal] == [False]

    assert run(lambda admin: admin.compare({}, {}, False, None), Response(500))[0].status == 500
    assert "with invalid values" in str(run(lambda admin: admin.compare({}, {}, False, None), of_json({}))[0])
    assert isinstance(run(lambda admin: admin.compare({"a b": "c"}, {}, False, None))[0], ValueError)


def test_a_search_returns_settings_with_the_rules_that_contain_the_text() -> None:
    """In pages of the service, which may have fewer settings than requested."""
    rule = {"rule_id": 1, "feature_values": [["user", "jim"]], "value": 2, "metadata": {}, "matches": ["conditions"]}
    setting = {"name": "s", "matches": ["name"], "rules": [rule], "rule_count": 7}
    replies = [of_json({"settings": [setting], "total": 130}) for _ in range(2)]
    result, sent = run(lambda admin: admin.search("jim & co", 500, 0), *replies)
    found = FoundSetting("s", ("name",), (FoundRule(1, {"user": "jim"}, 2, {}, ("conditions",)),), 7)
    assert result == SearchResult((found, found), 130)
    assert [request.target for request in sent] == [
        f"/api/v1/search?q=jim%20%26%20co&limit=100&offset={offset}" for offset in (0, 100)
    ]
    result, (only,) = run(lambda admin: admin.search("x", 5, 2), of_json({"settings": [], "total": 130}))
    assert (result, only.target) == (SearchResult((), 130), "/api/v1/search?q=x&limit=5&offset=2")
    assert run(lambda admin: admin.search("x", 5, 0), LACKING)[0].status == 404
    assert "with invalid results of a search" in str(run(lambda admin: admin.search("x", 5, 0), of_json({}))[0])


@pytest.mark.parametrize(
    ("limit", "offset", "sort", "message"),
    [
        (0, 0, "rule", "limit must be at least 1"),
        (1, -1, "rule", "offset must not be negative"),
        ("1", 0, "rule", "limit must be of type int, not str"),
        (1, 0, "name", "'name' is not a valid sort: use one of rule, priority, value, changed, or - and one of them"),
    ],
)
def test_an_impossible_page_is_not_requested(limit: Any, offset: int, sort: str, message: str) -> None:
    error, sent = run(lambda admin: admin.rule_page("s", {}, {}, sort, limit, offset))
    assert (str(error), sent) == (message, [])


LISTS = of_json({"rules": [], "total": 0})
"""The response of services with lists of rules to the request that tells whether they have them."""


def test_several_attributes_of_a_rule_are_changed_with_one_request() -> None:
    """If the service is one of this package. One attribute that every service can change needs no check."""
    changes = {"value": 1, "metadata": {"comment": "x"}, "conditions": {"user": "e\u0301"}, **TEMPORARY}
    _, sent = run(lambda admin: admin.change_rule(1, changes, '"x"'), LISTS, Response(204))
    assert (sent[1].method, sent[1].target, sent[1].headers["If-Match"]) == ("PATCH", "/api/v1/rules/1", '"x"')
    body = {"value": 1, "metadata": {"comment": "x"}, "feature_values": {"user": "\xe9"}, **TEMPORARY}
    assert json.loads(sent[1].content or b"") == body
    setting = Setting("color", Color, ["user"], Color.RED)
    _, (single,) = run(lambda admin: admin.change_rule(1, {"value": Color.BLUE}, None, setting), Response(204))
    assert (single.method, single.target, single.content) == ("PUT", "/api/v1/rules/1/value", b'{"value": "b"}')


def test_other_services_change_the_value_and_the_metadata_of_a_rule_one_after_the_other() -> None:
    """They would ignore what else is in the request."""
    changes = {"value": 1, "metadata": {"comment": "x"}}
    _, sent = run(lambda admin: admin.change_rule(1, changes, None), LACKING, Response(204), Response(204))
    assert [(request.method, request.target, json.loads(request.content or b"")) for request in sent[1:]] == [
        ("PUT", "/api/v1/rules/1/value", {"value": 1}),
        ("PUT", "/api/v1/rules/1/metadata", {"metadata": {"comment": "x"}}),
    ]
    refused, sent = run(lambda admin: admin.change_rule(1, {"value": 1, "ends_at": None}, None), LACKING)
    assert str(refused).startswith("this service cannot change the conditions and the period of a rule: GET ")
    assert len(sent) == 1
    error, sent = run(lambda admin: admin.change_rule(1, {}, None))
    assert (str(error), sent) == ("change_rule() requires a new value, conditions, metadata or a period", [])


def test_the_reason_for_a_removal_is_sent() -> None:
    reason = {"comment": "no & more", "link": "https://example.com/1"}
    _, (sent,) = run(lambda admin: admin.remove_rule(1, None, reason), Response(204))
    assert sent.target == "/api/v1/rules/1?comment=no%20%26%20more&link=https%3A%2F%2Fexample.com%2F1"


TEMPORARY = {"starts_at": "2030-01-01T00:00:00+00:00", "ends_at": None}


def test_a_temporary_rule_is_added_only_if_the_service_has_periods() -> None:
    """Others ignore the period, and would apply the rule at once."""
    operation = partial(
        Administration.add_rule, setting="s", value=1, conditions={"user": "jim"}, metadata={}, period=TEMPORARY
    )
    rule_id, sent = run(operation, of_json({"rules": [], "total": 0}), of_json({"rule_id": 5}, 201))
    assert (rule_id, sent[0].target) == (5, "/api/v1/rules?only_temporary=true&limit=1")
    assert json.loads(sent[1].content or b"")["starts_at"] == TEMPORARY["starts_at"]
    assert "ends_at" not in json.loads(sent[1].content or b"")
    for status in (404, 405):
        refused, (_,) = run(operation, Response(status))
        assert str(refused).startswith("this service does not have temporary rules: GET /api/v1/rules")
    assert run(operation, Response(500))[0].status == 500


def test_the_period_and_the_conditions_of_a_rule_are_replaced() -> None:
    _, (sent,) = run(partial(Administration.set_rule_period, rule_id=1, period=TEMPORARY, etag=None), Response(204))
    assert (sent.method, sent.target) == ("PUT", "/api/v1/rules/1/period")
    assert json.loads(sent.content or b"") == TEMPORARY
    conditions = {"user": "e\u0301"}
    _, (sent,) = run(lambda admin: admin.set_rule_conditions(1, conditions, None), Response(204))
    assert (sent.method, sent.target) == ("PUT", "/api/v1/rules/1/conditions")
    assert json.loads(sent.content or b"") == {"feature_values": {"user": "\xe9"}}


@pytest.mark.parametrize("operation", [lambda admin: admin.rule(9), lambda admin: admin.setting("nosuch")])
def test_what_does_not_exist_is_none(operation: Operation) -> None:
    """Unless the server is another one: that has no context features either."""
    result, sent = run(operation, Response(404), FEATURES)
    assert (result, [request.target for request in sent[1:]]) == (None, ["/api/v1/context_features"])
    result, _ = run(operation, Response(404), Response(404, b"<html>"))
    assert isinstance(result, UnexpectedResponseError)
    assert "GET /api/v1/context_features" in str(result)


def test_changes_send_the_etag_that_they_are_given() -> None:
    """So that a change by somebody else is not lost."""
    operations: list[Operation] = [
        lambda admin: admin.set_rule(1, 2, '"x"'),
        lambda admin: admin.remove_rule(1, '"x"'),
        lambda admin: admin.add_rule_metadata(1, {}, '"x"'),
        lambda admin: admin.replace_rule_metadata(1, {}, '"x"'),
        lambda admin: admin.delete_rule_metadata(1, "a", '"x"'),
        lambda admin: admin.set_rule_conditions(1, {"user": "jim"}, '"x"'),
        lambda admin: admin.set_rule_period(1, TEMPORARY, '"x"'),
    ]
    for operation in operations:
        result, (sent,) = run(operation, Response(412, b"changed"))
        assert (sent.headers["If-Match"], result.status) == ('"x"', 412)


def test_a_setting_of_the_program_stands_for_its_name_and_type() -> None:
    """Its value is converted to that of the service."""
    setting = Setting("shop.sizes", Mapping[str, float], ["user"], {})
    _, (sent,) = run(lambda admin: admin.add_rule(setting, {"a": 2}, {"user": "jim"}, {}), of_json({"rule_id": 1}, 201))
    assert json.loads(sent.content or b"") == {
        "setting": "shop.sizes",
        "feature_values": {"user": "jim"},
        "value": {"a": 2.0},
    }
    _, (sent,) = run(lambda admin: admin.delete_setting(setting), Response(204))
    assert sent.target == "/api/v1/settings/shop%2Esizes"
    for value, setting_or_name in (({"a": 2}, setting), ({"a": 2.0}, "shop.sizes"), ({"a": 2.0}, None)):
        _, (sent,) = run(
            partial(Administration.set_rule, rule_id=1, value=value, etag=None, setting=setting_or_name), Response(204)
        )
        assert sent.content == b'{"value": {"a": 2.0}}'


def test_values_outside_the_protocol_are_named_if_a_service_refuses_them() -> None:
    """A service that announces that it accepts them refuses the rule for another reason."""
    operation = add_rule("s", 1, user="jim", region="eu-west-1")
    refused, _ = run(operation, Response(422, b"no"))
    assert str(refused) == (
        "this service accepts only letters, digits and underscores in the value of region, not "
        "'eu-west-1': POST /api/v1/rules: the service responded with 422: 'no'"
    )
    assert (refused.status, refused.content) == (422, b"no")
    for other in (operation, add_rule("s", 1, user="jim")):
        refused, _ = run(other, Response(422, b"no", {"heksher-context-values": "any"}))
        assert str(refused) == "POST /api/v1/rules: the service responded with 422: 'no'"


def test_values_of_conditions_are_normalized() -> None:
    """As the service stores them."""
    stored = {"rule_id": 1, "context_features": [["user", "\xe9"]], "value": 1}
    query = of_json({"settings": {"s": {"default_value": 0, "rules": [stored]}}})
    assert len(run(lambda admin: admin.rules("s", {"user": "e\u0301"}), LACKING, query)[0]) == 1
    single = {"setting": "s", "value": 1, "feature_values": [["user", "\xe9"]]}
    found, _ = run(lambda admin: admin.find_rule("s", {"user": "e\u0301"}), LACKING, query, of_json(single))
    assert found.rule_id == 1
    _, (sent,) = run(add_rule("s", 1, user="e\u0301"), of_json({"rule_id": 1}, 201))
    assert json.loads(sent.content or b"")["feature_values"] == {"user": "\xe9"}


def test_a_change_is_sent_once_even_if_a_replica_responds() -> None:
    """Reads are repeated until the response is not older than a former one."""
    admin = administration()
    old, new = ({"heksher-revision": str(revision), "heksher-database": "a1.1"} for revision in (3, 5))
    run(lambda _: admin.context_features(), replace(FEATURES, headers=new))
    changed = of_json({"rule_id": 1}, 201, old)
    assert run(lambda _: admin.remove_rule(1, None), changed)[0] is None
    assert run(lambda _: admin.add_rule("s", 1, {"user": "jim"}, {}), changed)[0] == 1
    settings, sent = run(lambda _: admin.settings(), of_json({}, headers=old), of_json({"settings": []}, headers=new))
    assert (settings, len(sent)) == ({}, 2)


def change(revision: int) -> dict[str, Any]:
    return {
        "revision": revision,
        "at": "2026-01-31T09:30:00+00:00",
        "actor": "ops",
        "action": "rule changed",
        "settings": ["s"],
        "former": {"value": 1},
        "new": {"value": 2},
    }


def test_the_log_of_changes_is_read_in_pages() -> None:
    """Up to the limit, or to the end."""
    first = of_json({"changes": [change(i) for i in range(6, 1006)]})
    changes, sent = run(
        lambda admin: admin.changes(5, 1002, {"setting": "s"}), first, of_json({"changes": [change(2000)]})
    )
    assert [request.target for request in sent] == [
        "/api/v1/change_log?limit=1000&setting=s&after=5",
        "/api/v1/change_log?limit=2&setting=s&after=1005",
    ]
    assert (len(changes), changes[-1]) == (
        1001,
        ChangeRecord(
            2000, "2026-01-31T09:30:00+00:00", "ops", "rule changed", ("s",), {"value": 1}, {"value": 2}
        ),
    )  # fmt: skip
    changes, (only,) = run(lambda admin: admin.changes(0, 1, {}), of_json({"changes": [change(1)]}))
    assert (len(changes), only.target) == (1, "/api/v1/change_log?limit=1&after=0")
    assert run(lambda admin: admin.changes(0, 0, {})) == ((), [])


def test_the_latest_changes_are_read_in_pages() -> None:
    """Each page ends before the last one begins. Filters are encoded."""
    first = of_json({"changes": [change(i) for i in range(2005, 1005, -1)]})
    conditions = {"user": "jim,ann", "environment": "prod"}
    criteria = {
        "setting": "s",
        "actor": "a&b",
        "action": None,
        "feature": "theme",
        "conditions": conditions,
        "group": 7,
    }
    changes, sent = run(
        lambda admin: admin.latest_changes(2006, 1002, criteria), first, of_json({"changes": [change(1)]})
    )
    query = "setting=s&actor=a%26b&feature=theme&group=7&conditions=user:jim~2Cann,environment:prod&latest=true"
    assert [request.target for request in sent] == [
        f"/api/v1/change_log?limit=1000&{query}&before=2006",
        f"/api/v1/change_log?limit=2&{query}&before=1006",
    ]
    assert (len(changes), changes[-1].revision) == (1001, 1)
    changes, (only,) = run(lambda admin: admin.latest_changes(None, 1, {}), of_json({"changes": [change(1)]}))
    assert (len(changes), only.target) == (1, "/api/v1/change_log?limit=1&latest=true")


@pytest.mark.parametrize(
    ("operation", "reply", "error"),
    [
        (
            lambda admin: admin.rules("s", {}),
            [LACKING, of_json({"settings": {"s": {"rules": 1}}})],
            "200, but with invalid rules of setting s (",
        ),
        (lambda admin: admin.rules("s", {}), of_json({"rules": 1}), "200, but with invalid rules ("),
        (lambda admin: admin.rules("s", {}), Response(500), "500"),
        (lambda admin: admin.rule(1), of_json({"value": 1}), "200, but with invalid contents of the rule ("),
        (lambda admin: admin.rule(1), Response(500), "500"),
        (lambda admin: admin.rule(1), Response(200, b"<html>"), "200, but with invalid contents of the rule ("),
        (lambda admin: admin.changes(0, 5, {}), of_json({"changes": [{}]}), "200, but with invalid changes ("),
        (lambda admin: admin.changes(0, 5, {}), Response(404), "404"),
        (add_rule("s", 1, user="jim"), of_json({}, 201), "201, but without rule_id"),
        (add_rule("s", 1, user="jim"), of_json({"rule_id": "1"}, 201), "201, but without rule_id"),
    ],
)
def test_responses_outside_the_protocol_are_errors(
    operation: Operation, reply: Response | list[Response], error: str
) -> None:
    """Each is an `UnexpectedResponseError` that names the request."""
    result, _ = run(operation, *(reply if isinstance(reply, list) else [reply]))
    assert isinstance(result, UnexpectedResponseError)
    assert error in str(result)
    assert result.url is not None
    assert result.url.startswith("http://service/api/v1/")


@pytest.mark.parametrize(
    ("operation", "error"),
    [
        (lambda admin: admin.setting("a/b"), "'a/b' is not a valid setting name: use letters, digits, underscores"),
        (lambda admin: admin.rules("", {}), "'' is not a valid setting name"),
        (lambda admin: admin.rules("a,b", {}), "'a,b' is not a valid setting name"),
        (lambda admin: admin.rename_setting("a", "b c", "1.1"), "'b c' is not a valid setting name"),
        (lambda admin: admin.changes(0, 1, {"setting": "a&b"}), "'a&b' is not a valid setting name"),
        (lambda admin: admin.changes("0", 1, {}), "after must be of type int, not str"),
        (lambda admin: admin.changes(0, "x", {}), "limit must be of type int, not str"),
        (lambda admin: admin.changes(0, 1, {"value": 5}), "value must be of type str, not int"),
        (lambda admin: admin.changes(0, 1, {"feature": "a&b"}), "'a&b'"),
        (lambda admin: admin.changes(0, 1, {"conditions": {"a:b": "c"}}), "'a:b'"),
        (lambda admin: admin.delete_setting(5), "setting name must be of type str, not int"),
        (lambda admin: admin.delete_rule_metadata(1, 5, None), "metadata key must be of type str, not int"),
        (lambda admin: admin.rename_setting("a", "b", 2), "version must be of type str, not int"),
        (lambda admin: admin.set_setting_type("s", list, "2.0"), "<class 'list'> is not a setting type: use int, "),
        (lambda admin: admin.set_rule(1, 2, 5), "etag must be of type str, not int"),
        *[
            (lambda admin, etag=etag: admin.remove_rule(1, etag), f"{etag!r} is not a valid etag")
            for etag in ("", "x\ny", "\xe9", '"a" b')
        ],
        (lambda admin: admin.add_rule("s", 1, None, {}), "conditions must be of type Mapping, not NoneType"),
        (lambda admin: admin.rules("s", "user=jim"), "conditions must be of type Mapping, not str"),
        (lambda admin: admin.find_rule("s", None), "conditions must be of type Mapping, not NoneType"),
        (add_rule("s", 1, [1], user="jim"), "metadata must be of type Mapping, not list"),
        (lambda admin: admin.add_rule_metadata(1, [1], None), "metadata must be of type Mapping, not list"),
        (lambda admin: admin.replace_setting_metadata("s", None, "2.0"), "metadata must be of type Mapping, not None"),
        (lambda admin: admin.rule("x"), "rule_id must be of type int, not str"),
        (lambda admin: admin.delete_context_feature("a?b"), "'a?b' is not a valid name of a context feature"),
        (lambda admin: admin.add_context_feature("has-dash"), "'has-dash' is not a valid name of a context feature"),
        (lambda admin: admin.move_context_feature("a", None, None), "either before or after must be given"),
        (lambda admin: admin.move_context_feature("a", "b", "c"), "either before or after must be given"),
        (lambda admin: admin.delete_rule_metadata(1, "a/b", None), "'a/b' is not a valid metadata key"),
        (lambda admin: admin.remove_rule("1/value", None), "rule_id must be of type int, not str"),
        (
            lambda admin: admin.set_configurable_features("s", "user", "2.0"),
            "must be a collection of names, not one string",
        ),
        (add_rule("s", 1, user=5), "the value of context feature user must be a str, not int: use str(value)"),
        (lambda admin: admin.rules("s", {"user": 5}), "the value of context feature user must be a str, not int"),
        (lambda admin: admin.set_rule(1, float("nan"), None), "not JSON compliant"),
        (
            lambda admin: admin.set_rule(1, int, None),
            "values and metadata must be JSON values (Object of type type is not JSON serializable): pass the Setting",
        ),
        (add_rule("s", 1, {"a": {1}}, user="jim"), "must be JSON values (Object of type set is not JSON serializable)"),
        (lambda admin: admin.set_rule(1, "x", None, Setting("s", int, ["user"], 1)), "'x' is not an int"),
        (lambda admin: admin.set_rule(1, 2, None, 5), "setting name must be of type str, not int"),
    ],
)
def test_an_invalid_argument_is_refused_before_anything_is_sent(operation: Operation, error: str) -> None:
    """It might be a part of another request otherwise."""
    result, sent = run(operation)
    assert (isinstance(result, ValueError | TypeError), sent) == (True, [])
    assert error in str(result)


SETTING = {
    "name": "s",
    "configurable_features": ["user"],
    "type": "int",
    "default_value": 1,
    "metadata": {},
    "aliases": [],
    "version": "1.0",
}


def test_the_state_is_a_document_of_an_export() -> None:
    """Settings are sorted by name. A setting that is deleted while they are read is left out."""
    rule = {"rule_id": 1, "context_features": [["user", "jim"]], "value": 2, "metadata": {"a": 1}}
    listed = of_json({"settings": [SETTING | {"name": name} for name in ("t", "gone", "s")]})
    rules = {name: {"default_value": 1, "rules": [rule] if name == "s" else []} for name in ("s", "t")}
    replies = [FEATURES, listed, Response(404, b"not setting names: ['gone']"), of_json({"settings": rules}), LACKING]
    progress: list[tuple[int, int]] = []
    state, _ = run(lambda admin: admin.service_state(lambda *n: progress.append(n)), *replies * 5)
    assert progress == [(2, 3)] * 5
    assert state.settings["s"].find_rule({"user": "jim"}) == RuleRecord(1, {"user": "jim"}, 2, {"a": 1})
    assert state.settings["s"].find_rule({}) is None
    document = state.document()
    assert (document["heksher"], document["context_features"]) == (1, ["environment", "user", "theme"])
    exported = {"rule_id": 1, "feature_values": {"user": "jim"}, "value": 2, "metadata": {"a": 1}}
    exported |= {"starts_at": None, "ends_at": None}
    assert document["settings"] == [SETTING | {"rules": [exported]}, SETTING | {"name": "t", "rules": []}]


def test_an_export_without_an_endpoint_is_put_together() -> None:
    """It is the document of the state of the service. A response that is not a document is an error."""
    document = {"heksher": 1, "context_features": ["environment", "user", "theme"], "settings": []}
    assert run(lambda admin: admin.export(), of_json(document))[0] == document
    replies = [FEATURES, of_json({"settings": []}), Response(404)]
    for status in (404, 405):
        assert run(lambda admin: admin.export(), Response(status), *replies)[0] == document
    error, _ = run(lambda admin: admin.export(), of_json({"settings": []}))
    assert (
        str(error) == "GET /api/v1/export: the service responded with 200, but without a document: '{\"settings\": []}'"
    )
    error, _ = run(lambda admin: admin.export(), Response(503))
    assert error.status == 503


def test_an_import_returns_its_changes() -> None:
    """The options are in the query. A response that lacks the changes is an error."""
    change = {"action": "rule added", "setting": "s", "text": "add rule"}
    reply = of_json({"revision": 7, "changes": [change]})
    result, (request,) = run(lambda admin: admin.import_document({"a": 1}, exact=True, dry_run=True, revision=6), reply)
    assert result == ImportResult((ImportedChange(**change),), 7)
    assert (request.method, request.content) == ("POST", b'{"a": 1}')
    assert request.target == "/api/v1/import?exact=true&dry_run=true&revision=6"
    operation: Operation = lambda admin: admin.import_document({}, exact=False, dry_run=False, revision=None)  # noqa: E731
    _, (request,) = run(operation, reply)
    assert request.target == "/api/v1/import"
    assert "with invalid changes" in str(run(operation, of_json({"revision": 7}))[0])
    assert run(operation, Response(409, b'{"detail": "no"}'))[0].status == 409


def test_a_service_whose_settings_are_all_deleted_while_they_are_read() -> None:
    """They are left out. The next attempt finds a state of one moment."""
    listed = of_json({"settings": [SETTING]})
    replies = [FEATURES, listed, Response(404, b"not setting names: ['s']"), LACKING]
    replies += [FEATURES, of_json({"settings": []}), LACKING]
    state, _ = run(lambda admin: admin.service_state(None), *replies)
    assert state.settings == {}


def test_the_state_contains_temporary_rules() -> None:
    """Also those that queries do not contain, and not those of settings that were removed in between."""
    rule = {"rule_id": 2, "context_features": [["user", "u2"]], "value": 2}
    queried = of_json({"settings": {"s": {"default_value": 1, "rules": [rule]}}})
    period = {"starts_at": "2030-01-01T00:00:00+00:00", "ends_at": "2031-01-01T00:00:00+00:00"}
    rules = [
        listed_rule(1, setting="s", in_effect=False, **period),
        listed_rule(2, setting="s", ends_at=period["ends_at"]),
        listed_rule(3, setting="gone"),
    ]
    replies = [FEATURES, of_json({"settings": [SETTING]}), queried, of_json({"rules": rules, "total": 3})]
    state, sent = run(lambda admin: admin.service_state(None), *replies)
    assert sent[-1].target == "/api/v1/rules?only_temporary=true&limit=1000&offset=0"
    found = [(one.rule_id, one.in_effect, one.period) for one in state.settings["s"].rules]
    assert found == [(1, False, period), (2, True, {"ends_at": period["ends_at"]})]
    (document,) = state.document()["settings"]
    assert [rule.get("starts_at") for rule in document["rules"]] == [period["starts_at"], None]


def test_settings_that_are_renamed_all_the_time_are_an_error() -> None:
    """The response to the query has another name."""
    renamed = of_json({"settings": {"t": {"default_value": 1, "rules": []}}})
    replies = [FEATURES, of_json({"settings": [SETTING]}), renamed] * 5
    result, _ = run(lambda admin: admin.service_state(None), *replies)
    assert isinstance(result, ServiceUnavailableError)
    assert str(result) == "settings were renamed while they were read, 5 times in a row; try again later"


# -- settings, aliases and tokens, of services of this package ---------------------------------------------------------


@pytest.mark.parametrize(
    ("type_", "default", "sent_type", "sent_default"),
    [("Sequence<int>", [1], "Sequence<int>", [1]), (float, 1, "float", 1.0), (Color, Color.RED, 'Enum["b","r"]', "r")],
)
def test_a_setting_is_created_by_its_first_declaration(
    type_: Any, default: Any, sent_type: str, sent_default: Any
) -> None:
    """With a type of Python, the default value is of that type."""
    create: Operation = lambda admin: admin.create_setting("s", type_, default, ["user"], {"a": 1})  # noqa: E731
    for outcome, expected in (("created", True), ("uptodate", False), ("outdated", False)):
        result, (sent,) = run(create, of_json({"outcome": outcome}))
        assert (result, sent.method, sent.target) == (expected, "POST", "/api/v1/settings/declare")
        assert json.loads(sent.content or b"") == {
            "name": "s",
            "type": sent_type,
            "default_value": sent_default,
            "configurable_features": ["user"],
            "version": "1.0",
            "metadata": {"a": 1},
        }
    error, _ = run(create, of_json({"outcome": "mismatch", "differences": []}, 409))
    assert (error.status, error.json()["outcome"]) == (409, "mismatch")


def test_aliases_are_parts_of_paths() -> None:
    """Dots are encoded, as in names."""
    for operation, method in (
        (lambda admin: admin.add_alias("a.b", "old.name"), "PUT"),
        (lambda admin: admin.delete_alias("a.b", "old.name"), "DELETE"),
    ):
        result, (sent,) = run(operation, Response(204))
        assert (result, sent.method, sent.target) == (None, method, "/api/v1/settings/a%2Eb/aliases/old%2Ename")


TOKEN: dict[str, Any] = {
    "name": "shop",
    "role": "read",
    "created_at": "2026-01-31T09:30:00+00:00",
    "expires_at": None,
    "expired": False,
}


def test_tokens_are_listed_created_and_revoked() -> None:
    """The text of a new one is in the response."""
    listed, (sent,) = run(lambda admin: admin.tokens(), of_json({"tokens": [TOKEN]}))
    assert (listed, sent.target) == ((TokenRecord(**TOKEN),), "/api/v1/tokens")
    created, (sent,) = run(lambda admin: admin.create_token("shop", "read", 90.5), of_json({"token": "text"}, 201))
    assert (created, sent.target) == ("text", "/api/v1/tokens")
    assert json.loads(sent.content or b"") == {"name": "shop", "role": "read", "lifetime": 90}
    _, (sent,) = run(lambda admin: admin.create_token("shop", "read", None), of_json({"token": "text"}, 201))
    assert json.loads(sent.content or b"") == {"name": "shop", "role": "read"}
    result, (sent,) = run(lambda admin: admin.revoke_token("j.d@example.com"), Response(204))
    assert (result, sent.method, sent.target) == (None, "DELETE", "/api/v1/tokens/j%2Ed@example%2Ecom")


@pytest.mark.parametrize(
    ("operation", "message"),
    [
        (lambda admin: admin.create_token("a/b", "read", None), "not a valid token name"),
        (lambda admin: admin.create_token("a", None, None), "role must be of type str"),
        (lambda admin: admin.create_token("a", "read", 0.5), "lifetime must be at least a second"),
        (lambda admin: admin.revoke_token("../settings"), "not a valid token name"),
        (lambda admin: admin.add_alias("s", "../t"), "not a valid setting name"),
    ],
)
def test_arguments_that_would_become_other_requests_are_not_sent(operation: Operation, message: str) -> None:
    """Names become parts of paths."""
    error, sent = run(operation)
    assert (message in str(error), sent) == (True, [])


@pytest.mark.parametrize("content", [b'{"token": "heksher_x"', b'["heksher_x"]', b'{"text": "heksher_x"}'])
@pytest.mark.parametrize("status", [200, 201])
def test_an_error_never_contains_the_text_of_a_token(content: bytes, status: int) -> None:
    """Even if the response is malformed."""
    error, _ = run(lambda admin: admin.create_token("shop", "read", None), Response(status, content))
    assert isinstance(error, UnexpectedResponseError)
    assert error.status == status
    assert "heksher_x" not in f"{error} {error.content!r} {error.__cause__!r} {error.__context__!r}"


def test_a_refused_request_for_tokens_is_an_error() -> None:
    """With the text of the service."""
    for operation, status in (
        (lambda admin: admin.tokens(), 403),
        (lambda admin: admin.create_token("shop", "read", None), 409),
    ):
        error, _ = run(operation, Response(status, b"because"))
        assert (error.status, "because" in str(error)) == (status, True)
    error, _ = run(lambda admin: admin.tokens(), of_json({"tokens": [{}]}))
    assert "with invalid tokens" in str(error)
