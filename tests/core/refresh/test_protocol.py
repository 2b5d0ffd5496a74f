"""Parsing of responses: recorded ones of the reference service, arbitrary ones and malformed ones."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heksher_client import DeclarationError, ServiceUnavailableError, UnexpectedResponseError
from heksher_client._core.refresh import protocol
from heksher_client._core.refresh.effects import NoResponse, Oversized, Reply, Request, Response

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


@pytest.mark.unmeasured
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


@pytest.mark.unmeasured
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


LISTED: dict[str, Any] = {
    "name": "s",
    "configurable_features": ["user", "theme"],
    "type": "int",
    "default_value": None,
    "metadata": {"team": "a"},
    "aliases": ["former"],
    "version": "1.2",
}


def test_a_setting_is_parsed_with_all_of_its_data() -> None:
    """In a listing, or by itself. Other fields are ignored."""
    raw = LISTED | {"last_touch_time": "2026-11-22"}
    expected = protocol.SettingData(**LISTED)
    assert protocol.parse_settings(Response(200, json.dumps({"settings": [raw]}).encode())) == {"s": expected}
    assert protocol.parse_setting(protocol.setting("former"), Response(200, json.dumps(raw).encode())) == expected


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (5, "a setting is incomplete"),
        ({"name": "s"}, "a setting is incomplete"),
        ({key: value for key, value in LISTED.items() if key != "default_value"}, "a setting is incomplete"),
        (LISTED | {"aliases": None}, "a setting is incomplete"),
        *((LISTED | {key: 5}, f"a setting has no {key}") for key in ("name", "configurable_features", "type")),
        *((LISTED | {key: None}, f"a setting has no {key}") for key in ("metadata", "version")),
    ],
)
def test_an_incomplete_setting_is_an_unexpected_response(raw: Any, reason: str) -> None:
    """`get_settings` returns complete settings, or raises. The error has the request."""
    body = json.dumps({"settings": [raw]})
    with pytest.raises(UnexpectedResponseError) as raised:
        protocol.parse_settings(Response(200, body.encode()))
    assert str(raised.value) == f"GET /api/v1/settings: the service responded with 200, but {reason}: {body!r}"
    assert raised.value.url == "/api/v1/settings?include_additional_data=true"
    if isinstance(raw, dict):
        with pytest.raises(UnexpectedResponseError, match=f"^GET /api/v1/settings/s: .* but {reason}: "):
            protocol.parse_setting(protocol.setting("s"), Response(200, json.dumps(raw).encode()))


@pytest.mark.parametrize(
    ("make", "method", "target", "headers"),
    [
        (lambda: protocol.HEALTH, "GET", "/api/health", {}),
        (lambda: protocol.CONTEXT_FEATURES, "GET", "/api/v1/context_features", {"Cache-Control": "no-cache"}),
        (lambda: protocol.SETTINGS, "GET", "/api/v1/settings?include_additional_data=true", {}),
        (lambda: protocol.setting("..name.s"), "GET", "/api/v1/settings/%2E%2Ename%2Es", {}),
        (lambda: protocol.declare(b"{}"), "POST", "/api/v1/settings/declare", {"Content-Type": "application/json"}),
        (lambda: protocol.query("/api/v1/query?x", None), "GET", "/api/v1/query?x", {}),
        (lambda: protocol.query("/api/v1/query?x", '"1"'), "GET", "/api/v1/query?x", {"If-None-Match": '"1"'}),
        (lambda: protocol.changes(None), "GET", "/api/v1/changes", {"Accept": "text/event-stream"}),
        (
            lambda: protocol.changes(0),
            "GET",
            "/api/v1/changes",
            {"Accept": "text/event-stream", "Last-Event-ID": "0"},
        ),
    ],
)
def test_requests_are_those_of_the_protocol(
    make: Callable[[], Request], method: str, target: str, headers: dict[str, str]
) -> None:
    """Only a declaration has a body."""
    assert make() == Request(method, target, headers, b"{}" if method == "POST" else None)


def test_a_query_lists_settings_and_encodes_context_filters() -> None:
    """The characters of the filter's syntax are readable."""
    assert protocol.query_target(["a", "b.c"], "user:(jim,a b&c),theme:*", with_metadata=True) == (
        "/api/v1/query?settings=a,b.c&context_filters=user:(jim,a%20b%26c),theme:*&include_metadata=true"
    )
    assert protocol.query_target([], "*") == "/api/v1/query?settings=&context_filters=*&include_metadata=false"


@pytest.mark.parametrize(
    ("reply", "missing"),
    [
        (Response(404, b"the following are not setting names: ['b', 'z']"), {"b"}),
        (Response(404, b"\xff 'a' 'c'"), {"a", "c"}),
        (Response(404, b"a b c"), {"a", "b", "c"}),
        (Response(404), {"a", "b", "c"}),
        (Response(400, b"'b'"), set()),
        (Response(200, b"'b'"), set()),
        (NoResponse(OSError("'b'")), set()),
        (Oversized(404, 10), set()),
    ],
)
def test_the_missing_settings_are_those_that_a_404_quotes(reply: Reply, missing: set[str]) -> None:
    """If it quotes none that was queried, it may mean any of them."""
    assert protocol.missing_names(reply, ["a", "b", "c"]) == missing


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        *((Response(status), True) for status in (413, 414, 431, 500)),
        *((Response(status), False) for status in (200, 304, 400, 404, 429, 501, 502, 503)),
        (Oversized(200, 10), True),
        (NoResponse(OSError()), False),
    ],
)
def test_a_query_may_be_too_large_for_the_service(reply: Reply, expected: bool) -> None:
    """Then a smaller one may succeed."""
    assert protocol.is_too_large(reply) == expected


def test_an_unmodified_response_is_one_to_a_query_with_an_etag() -> None:
    """Otherwise the response is not of the protocol. An empty ETag of a response is none."""
    target = "/api/v1/query?settings=s"
    assert protocol.parse_query(protocol.query(target, '"1"'), Response(304)) is None
    with pytest.raises(UnexpectedResponseError) as raised:
        protocol.parse_query(protocol.query(target, None), Response(304))
    assert str(raised.value) == "GET /api/v1/query: the service responded with 304"
    assert raised.value.url == target
    for etag in ("", '"1"'):
        body = protocol.parse_query(protocol.query(target, None), Response(200, b'{"settings": {}}', {"etag": etag}))
        assert body == protocol.QueryBody({}, etag or None)


@pytest.mark.parametrize(
    "raw", [b"null", b"{}", b'{"default_value": 1}', b'{"rules": []}', b'{"default_value": 1, "rules": [', b"[" * 10**5]
)
def test_a_setting_without_a_default_or_rules_is_an_unexpected_response(raw: bytes) -> None:
    """The error names the setting."""
    with pytest.raises(UnexpectedResponseError) as raised:
        protocol.parse_queried_setting("cache_size", msgspec.Raw(raw))
    assert str(raised.value) == "the response for setting cache_size has no default value or no list of rules"
    assert raised.value.status == 200
    assert raised.value.__suppress_context__


@pytest.mark.parametrize(("length", "is_decoded"), [(1 << 18, True), ((1 << 18) + 1, False)])
def test_a_setting_of_up_to_a_quarter_of_a_megabyte_is_decoded_at_once(length: int, is_decoded: bool) -> None:
    """The rules of a larger one are left for later."""
    rule = json.dumps(RULE).encode()
    queried = protocol.parse_queried_setting(
        "s", msgspec.Raw((b'{"default_value": 5, "rules": [%b]}' % rule).ljust(length))
    )
    assert queried.default_value == 5
    assert [rule.rule_id for rule in queried.rules] == ([1] if is_decoded else [])
    assert list(queried.undecoded) == ([] if is_decoded else [msgspec.Raw(rule)])


def test_a_rule_without_a_readable_id_is_rejected_without_one() -> None:
    """Its reason is that of the decoder."""
    decoded = protocol.decode_rules(map(msgspec.Raw, (b'{"value": 1}', b"[]", b"{", b'{"rule_id": 7, "value": 1}')))
    assert decoded == (
        [],
        [
            (None, "Object missing required field `rule_id`"),
            (None, "Expected `object`, got `array`"),
            (None, "Input data was truncated"),
            (7, "Object missing required field `context_features`"),
        ],
    )


def test_an_error_contains_only_the_beginning_of_a_body() -> None:
    """The error page of a proxy may be long, and errors are logged."""
    with pytest.raises(UnexpectedResponseError) as raised:
        protocol.parse_context_features(Response(502, b"<html>" * 20_000))
    assert len(raised.value.content) == 65_536
    assert len(str(raised.value)) < 400


UNKNOWN_OUTCOMES: list[Any] = [[], {}, None, 5, "done", "rejected", "conflict"]


@pytest.mark.parametrize(
    ("status", "outcome"),
    [*((200, outcome) for outcome in UNKNOWN_OUTCOMES), (409, "created"), (409, None)],
)
def test_an_unknown_outcome_of_a_declaration_is_an_unexpected_response(status: int, outcome: Any) -> None:
    """Of any JSON type, or one that belongs to another status. The error has the request."""
    body = json.dumps({"outcome": outcome})
    with pytest.raises(UnexpectedResponseError) as raised:
        protocol.parse_declaration(Response(status, body.encode()), "s")
    assert str(raised.value) == (
        f"POST /api/v1/settings/declare: the service responded with {status}, but without a known outcome: {body!r}"
    )
    assert raised.value.url == "/api/v1/settings/declare"


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, {"outcome": "created"}, protocol.DeclarationOutcome("created")),
        (
            200,
            {"outcome": "outdated", "latest_version": "1.1", "differences": [5, {"level": "minor"}]},
            protocol.DeclarationOutcome("outdated", ({"level": "minor"},), "1.1"),
        ),
        (
            200,
            {"outcome": "upgraded", "latest_version": 1.1, "differences": {}},
            protocol.DeclarationOutcome("upgraded"),
        ),
        (
            409,
            {"outcome": "mismatch", "differences": [{"level": "major"}]},
            protocol.DeclarationOutcome("mismatch", ({"level": "major"},)),
        ),
        (409, {"detail": "taken"}, protocol.DeclarationOutcome("conflict", detail="'taken'")),
    ],
)
def test_the_outcome_of_a_declaration_has_the_differences(
    status: int, body: dict[str, Any], expected: protocol.DeclarationOutcome
) -> None:
    """Parts that are not of the protocol are left out."""
    assert protocol.parse_declaration(Response(status, json.dumps(body).encode()), "s") == expected


@pytest.mark.parametrize("status", [201, 204, 304, 500])
def test_a_declaration_with_another_status_is_an_unexpected_response(status: int) -> None:
    """Even with the body of a success."""
    with pytest.raises(UnexpectedResponseError, match=f"^POST /api/v1/settings/declare: the service .* {status}: "):
        protocol.parse_declaration(Response(status, b'{"outcome": "created"}'), "s")


def test_the_latest_value_of_an_attribute_is_that_of_its_first_difference() -> None:
    """None if the attribute does not differ, or the service does not have a value."""
    outcome = protocol.DeclarationOutcome(
        "outdated",
        (
            {"level": "minor"},
            {"attribute": "name", "latest_value": "b"},
            {"attribute": "name", "latest_value": "c"},
            {"attribute": "default_value"},
        ),
    )
    assert [outcome.latest(attribute) for attribute in ("name", "default_value", "type")] == ["b", None, None]


@pytest.mark.parametrize(
    ("body", "excerpt"),
    [(b'{"detail": "no such"}', "no such"), (b"[1]", "[1]"), (b"plain", "plain"), (b"", "500"), (b"x" * 999, "xxx…")],
)
def test_an_error_quotes_the_response(body: bytes, excerpt: str) -> None:
    """The detail if there is one, otherwise the beginning of the body."""
    with pytest.raises(UnexpectedResponseError) as raised:
        protocol.parse_health(Response(500, body))
    assert excerpt in str(raised.value)


@pytest.mark.parametrize(
    ("body", "reason"),
    [(b"oops", "not in JSON"), (b"[]", "not with an object"), (b"{}", "without context_features"),
     (b'{"context_features": {}}', "without context_features"),
     (b'{"context_features": ["a", 5]}', "a context feature is not a string")],
)  # fmt: skip
def test_an_invalid_response_raises_an_error_with_the_reason(body: bytes, reason: str) -> None:
    """The reason may show that another server responded."""
    with pytest.raises(UnexpectedResponseError) as raised:
        protocol.parse_context_features(Response(200, body))
    text = f"GET /api/v1/context_features: the service responded with 200, but {reason}: {body.decode()!r}"
    assert str(raised.value) == text


@pytest.mark.parametrize(
    ("body", "reason"),
    [(b"{}", "without settings"), (b'{"settings": []}', "without settings"), (b"oops", "not in JSON")],
)
def test_a_query_response_without_settings_is_unexpected(body: bytes, reason: str) -> None:
    """The error gives the reason."""
    with pytest.raises(UnexpectedResponseError) as raised:
        protocol.parse_query(protocol.query("/api/v1/query?settings=s", None), Response(200, body))
    assert str(raised.value) == f"GET /api/v1/query: the service responded with 200, but {reason}: {body.decode()!r}"
    assert raised.value.__suppress_context__


@pytest.mark.parametrize(
    ("header", "encodings"),
    [
        ("", ()),
        ("gzip", ("gzip",)),
        ("deflate,gzip", ("deflate", "gzip")),
        (" GZip ,, X-Gzip", ("gzip", "gzip")),
        ("identity", ()),
        ("Identity, deflate", ("deflate",)),
        ("none", ()),
        ("UTF-8", ()),
        ("binary, gzip", ("gzip",)),
        ("gzip,aws-chunked", ("gzip",)),
    ],
)
def test_encodings_are_parsed_as_http_defines_them(header: str, encodings: tuple[str, ...]) -> None:
    """In the order in which they were applied."""
    assert protocol.content_encodings(header) == encodings
    assert protocol.encoding_problem(header) == ""


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        ("gzip,gzip,gzip", ""),
        ("gzip,gzip,gzip,gzip", "with the unsupported encoding 'gzip,gzip,gzip,gzip'"),
        ("br", "with the unsupported encoding 'br'"),
        ("br, gzip, zstd", "with the unsupported encoding 'br, zstd'"),
        *[
            (name, f"with the unsupported encoding '{name}'")
            for name in ("compress", "x-compress", "exi", "dcb", "dcz", "pack200-gzip", "aes128gcm")
        ],
    ],
)
def test_an_encoding_that_is_not_decoded_is_a_problem(header: str, problem: str) -> None:
    """So are more than three of them, as each may multiply the size."""
    assert protocol.encoding_problem(header) == problem
