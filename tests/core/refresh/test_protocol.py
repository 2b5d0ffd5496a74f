"""Parsing of responses: recorded ones of the reference service, arbitrary ones and malformed ones."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heksher_client import DeclarationError, ServiceUnavailableError, UnexpectedResponseError
from heksher_client._core.refresh import protocol
from heksher_client._core.refresh.effects import NoResponse, Reply, Response

WIRE = Path(__file__).parents[2] / "data" / "wire"
RECORDED = [
    (f"{path.stem}-{i}", exchange)
    for path in sorted(WIRE.glob("*.json"))
    for i, exchange in enumerate(json.loads(path.read_text()))
]


def recorded_response(exchange: dict[str, Any]) -> Response:
    recorded = exchange["response"]
    content = json.dumps(recorded["json"]).encode() if "json" in recorded else recorded.get("text", "").encode()
    return Response(recorded["status"], content, recorded.get("headers", {}))


def exchanges(path: str) -> list[Any]:
    """Return the recorded exchanges with a path, as parameters of a test."""
    return [pytest.param(exchange, id=name) for name, exchange in RECORDED if exchange["request"]["path"] == path]


@pytest.mark.parametrize("exchange", exchanges("/api/v1/settings/declare"))
def test_recorded_declarations_are_parsed(exchange: dict[str, Any]) -> None:
    """Each outcome is returned. Each refusal raises a `DeclarationError` with the explanation of the service."""
    response, expected = recorded_response(exchange), exchange["response"]
    if expected["status"] in (400, 404, 422):
        with pytest.raises(DeclarationError) as raised:
            protocol.parse_declaration(response, "foo")
        assert raised.value.setting == "foo"
        detail = expected.get("text") or expected["json"]["detail"]
        assert str(detail)[:20].strip("'[{") in str(raised.value).replace("\\'", "'")
    else:
        parsed = protocol.parse_declaration(response, "foo")
        assert parsed.outcome == expected["json"].get("outcome", protocol.CONFLICT)
        assert list(parsed.differences) == expected["json"].get("differences", [])
        assert parsed.latest_version == expected["json"].get("latest_version")


@pytest.mark.parametrize("exchange", exchanges("/api/v1/query"))
def test_recorded_queries_are_parsed(exchange: dict[str, Any]) -> None:
    """The result is settings and their ETag, "unchanged", the missing settings, or an error."""
    response, expected = recorded_response(exchange), exchange["response"]
    request = protocol.query("/api/v1/query", '"etag"')
    if expected["status"] == 200:
        parsed = protocol.parse_query(request, response)
        assert parsed is not None
        assert {name: json.loads(bytes(raw)) for name, raw in parsed.settings.items()} == expected["json"]["settings"]
        assert parsed.etag == expected["headers"]["etag"]
        for name, setting in expected["json"]["settings"].items():
            queried = protocol.parse_queried_setting(name, parsed.settings[name])
            assert queried.default_value == setting["default_value"]
            rules = queried.rules or protocol.decode_rules(queried.undecoded)[0]
            assert [(rule.rule_id, rule.value, [*map(list, rule.context_features)]) for rule in rules] == [
                (rule["rule_id"], rule["value"], rule["context_features"]) for rule in setting["rules"]
            ]
    elif expected["status"] == 304:
        assert protocol.parse_query(request, response) is None
    elif expected["status"] == 404:
        assert protocol.missing_names(response, ["cache_size", "nosuch"]) == {"nosuch"}
    else:
        with pytest.raises(UnexpectedResponseError) as raised:
            protocol.parse_query(request, response)
        assert raised.value.status == expected["status"]


@pytest.mark.parametrize(
    "exchange", exchanges("/api/v1/settings") + exchanges("/api/v1/settings/foo") + exchanges("/api/v1/settings/nosuch")
)
def test_recorded_listings_are_parsed(exchange: dict[str, Any]) -> None:
    """All data of a setting is returned. A listing without the additional data is an unexpected response."""
    response, expected = recorded_response(exchange), exchange["response"]
    if "settings" not in expected.get("json", {}):
        parsed = protocol.parse_setting(protocol.setting("foo"), response)
        assert (parsed is None) == (expected["status"] in (404, 204))
    elif exchange["request"].get("query", {}).get("include_additional_data") == "true":
        listed = protocol.parse_settings(response)
        assert list(listed) == [setting["name"] for setting in expected["json"]["settings"]]
    else:
        with pytest.raises(UnexpectedResponseError):
            protocol.parse_settings(response)


def test_recorded_context_features_keep_their_order() -> None:
    """The priority of rules depends on it."""
    listings = [
        x for _, x in RECORDED if (x["request"]["method"], x["request"]["path"]) == ("GET", "/api/v1/context_features")
    ]
    assert len(listings) == 4
    for exchange in listings:
        features = protocol.parse_context_features(recorded_response(exchange))
        assert list(features) == exchange["response"]["json"]["context_features"]


def test_a_missing_response_raises_service_unavailable() -> None:
    """After any request. The error of the HTTP library is the cause."""
    error = OSError("unplugged")
    for parse in PARSERS:
        with pytest.raises(ServiceUnavailableError, match="OSError: unplugged") as raised:
            parse(NoResponse(error, is_network_error=True))
        assert raised.value.__cause__ is error
        with pytest.raises(ServiceUnavailableError, match=r"\(OSError\)"):
            parse(NoResponse(error))


PARSERS: list[Any] = [
    protocol.parse_health,
    protocol.parse_context_features,
    protocol.parse_settings,
    lambda reply: protocol.parse_setting(protocol.setting("s"), reply),
    lambda reply: protocol.parse_declaration(reply, "s"),
    lambda reply: protocol.parse_query(protocol.query("/api/v1/query?settings=s", None), reply),
]

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**31), 2**31) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(
        st.sampled_from(["settings", "context_features", "outcome", "differences", "detail", "default_value", "rules"])
        | st.text(), inner,
    ),
    max_leaves=25,  # Responses are nested five levels deep. With 100, as by default, most of the time is spent on them.
)  # fmt: skip
BODIES = st.binary() | JSON.map(lambda value: json.dumps(value).encode())


@given(st.sampled_from(PARSERS), st.sampled_from([200, 201, 204, 206, 302, 304, 400, 404, 409, 413, 422, 500]), BODIES)
def test_any_response_is_parsed_or_raises_a_documented_error(parse: Any, status: int, body: bytes) -> None:
    """No parser fails in any other way, whatever the status and the body."""
    reply: Reply = Response(status, body)
    message = ""
    try:
        parse(reply)
    except (UnexpectedResponseError, DeclarationError) as error:
        message = str(error)
    assert len(message) < 600
    assert "\n" not in message


RULE: dict[str, Any] = {"rule_id": 1, "value": 1, "context_features": [["user", "jim"]]}


def decode_raw_rules(*raw_rules: bytes) -> tuple[list[int], list[tuple[Any, str]]]:
    """Return the ids of the valid rules, and the ids and errors of the invalid ones."""
    raw = msgspec.Raw(b'{"default_value": 0, "rules": [%s]}' % b",".join(raw_rules))
    queried = protocol.parse_queried_setting("s", raw)
    rules, invalid = protocol.decode_rules(queried.undecoded)
    return [rule.rule_id for rule in (*queried.rules, *rules)], invalid


@given(JSON)
def test_any_rule_is_decoded_or_rejected(raw: Any) -> None:
    """A malformed rule does not affect other rules."""
    ids, rejected = decode_raw_rules(json.dumps(RULE).encode(), json.dumps(raw).encode())
    assert ids[0] == 1
    assert len(ids) + len(rejected) == 2


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"rule_id": "1"}, "rule_id"),
        ({"context_features": {"user": "jim"}}, "context_features"),
        ({"context_features": None}, "context_features"),
        ({"context_features": [["user"]]}, "context_features"),
        ({"context_features": [["user", 1]]}, "context_features"),
    ],
)
def test_a_malformed_rule_is_rejected_with_a_reason(changes: dict[str, Any], field: str) -> None:
    """The reason names the invalid field."""
    malformed = RULE | {"rule_id": 2} | changes
    ids, [(rule_id, reason)] = decode_raw_rules(json.dumps(RULE).encode(), json.dumps(malformed).encode())
    assert (ids, rule_id) == ([1], malformed["rule_id"])
    assert field in reason


@pytest.mark.parametrize("value", [b"1e999", b'"\xff"'])
def test_a_value_that_cannot_be_decoded_rejects_only_its_rule(value: bytes) -> None:
    """A number beyond the range of floats, or text that is not UTF-8."""
    bad = b'{"rule_id": 2, "context_features": [], "value": %s}' % value
    ids, rejected = decode_raw_rules(json.dumps(RULE).encode(), bad)
    assert ids == [1]
    assert len(rejected) == 1


def test_the_rules_of_a_large_setting_are_decoded_separately() -> None:
    """The caller can decode them in batches, and let other tasks run in between."""
    rule = json.dumps(RULE | {"value": "x" * 1000}).encode()
    raw = msgspec.Raw(b'{"default_value": 0, "rules": [%s]}' % b",".join([rule] * 1500))
    queried = protocol.parse_queried_setting("s", raw)
    assert (len(queried.rules), len(queried.undecoded)) == (0, 1500)
    rules, invalid = protocol.decode_rules(queried.undecoded)
    assert (len(rules), invalid) == (1500, [])


@pytest.mark.parametrize("body", ['{"settings": [{"name": "s"}]}', '{"settings": [5]}',
                                  '{"settings": [{"name": 5, "default_value": 1, "aliases": []}]}'])  # fmt: skip
def test_a_listing_with_an_incomplete_setting_is_an_unexpected_response(body: str) -> None:
    """`get_settings` returns complete settings, or raises."""
    with pytest.raises(UnexpectedResponseError, match="a setting"):
        protocol.parse_settings(Response(200, body.encode()))


def test_an_error_contains_only_the_beginning_of_a_body() -> None:
    """The error page of a proxy may be long, and errors are logged."""
    with pytest.raises(UnexpectedResponseError) as raised:
        protocol.parse_context_features(Response(502, b"<html>" * 1000))
    assert len(raised.value.content) == 1024
    assert len(str(raised.value)) < 400


@pytest.mark.parametrize("outcome", [[], {}, None, 5, "done", "rejected"])
def test_an_unknown_outcome_of_a_declaration_is_an_unexpected_response(outcome: Any) -> None:
    """Of any JSON type."""
    reply = Response(200, json.dumps({"outcome": outcome}).encode())
    with pytest.raises(UnexpectedResponseError, match="without a known outcome"):
        protocol.parse_declaration(reply, "s")


@pytest.mark.parametrize(
    ("body", "excerpt"),
    [(b'{"detail": "no such"}', "no such"), (b"[1]", "[1]"), (b"plain", "plain"), (b"", "''"), (b"x" * 999, "xxx…")],
)
def test_an_error_quotes_the_response(body: bytes, excerpt: str) -> None:
    """The detail if there is one, otherwise the beginning of the body."""
    with pytest.raises(UnexpectedResponseError) as raised:
        protocol.parse_health(Response(500, body))
    assert excerpt in str(raised.value)


@pytest.mark.parametrize(
    ("body", "reason"),
    [(b"<html>", "not in JSON"), (b"[]", "not with an object"), (b"{}", "without context_features"),
     (b'{"context_features": {}}', "without context_features"), (b'{"context_features": [5]}', "not a string")],
)  # fmt: skip
def test_an_invalid_response_raises_an_error_with_the_reason(body: bytes, reason: str) -> None:
    """The reason may show that another server responded."""
    with pytest.raises(UnexpectedResponseError, match=reason):
        protocol.parse_context_features(Response(200, body))


@pytest.mark.parametrize(
    ("body", "reason"),
    [(b"{}", "without settings"), (b'{"settings": []}', "without settings"), (b"<html>", "not in JSON")],
)
def test_a_query_response_without_settings_is_unexpected(body: bytes, reason: str) -> None:
    """The error gives the reason."""
    with pytest.raises(UnexpectedResponseError, match=reason):
        protocol.parse_query(protocol.query("/api/v1/query?settings=s", None), Response(200, body))
