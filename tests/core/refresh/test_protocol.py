"""The protocol: the recorded exchanges with the reference service, and answers that are none."""

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
    answer = exchange["response"]
    content = json.dumps(answer["json"]).encode() if "json" in answer else answer.get("text", "").encode()
    return Response(answer["status"], content, answer.get("headers", {}))


def recorded(path: str) -> list[Any]:
    return [pytest.param(exchange, id=name) for name, exchange in RECORDED if exchange["request"]["path"] == path]


@pytest.mark.parametrize("exchange", recorded("/api/v1/settings/declare"))
def test_every_recorded_declaration_is_understood(exchange: dict[str, Any]) -> None:
    """Each outcome comes out as such; each refusal is a declaration error with the service's words."""
    response, answer = recorded_response(exchange), exchange["response"]
    request = protocol.declare(b"{}")
    if answer["status"] in (400, 404, 422):
        with pytest.raises(DeclarationError) as raised:
            protocol.parse_declaration(request, response, "foo")
        assert raised.value.setting == "foo"
        words = answer.get("text") or answer["json"]["detail"]
        assert str(words)[:20].strip("'[{") in str(raised.value).replace("\\'", "'")
    else:
        parsed = protocol.parse_declaration(request, response, "foo")
        assert parsed.outcome == answer["json"].get("outcome", protocol.CONFLICT)
        assert list(parsed.differences) == answer["json"].get("differences", [])
        assert parsed.latest_version == answer["json"].get("latest_version")


@pytest.mark.parametrize("exchange", recorded("/api/v1/query"))
def test_every_recorded_query_is_understood(exchange: dict[str, Any]) -> None:
    """Settings and ETag, unchanged, missing settings or an error."""
    response, answer = recorded_response(exchange), exchange["response"]
    request = protocol.query("/api/v1/query", '"etag"')
    if answer["status"] == 200:
        parsed = protocol.parse_query(request, response)
        assert parsed is not None
        assert {name: json.loads(bytes(raw)) for name, raw in parsed.settings.items()} == answer["json"]["settings"]
        assert parsed.etag == answer["headers"]["etag"]
        for name, setting in answer["json"]["settings"].items():
            queried = protocol.parse_queried_setting(name, parsed.settings[name])
            assert queried.default_value == setting["default_value"]
            rules = queried.rules or protocol.decode_rules(queried.undecoded)[0]
            assert [(rule.rule_id, rule.value, [*map(list, rule.context_features)]) for rule in rules] == [
                (rule["rule_id"], rule["value"], rule["context_features"]) for rule in setting["rules"]
            ]
    elif answer["status"] == 304:
        assert protocol.parse_query(request, response) is None
    elif answer["status"] == 404:
        assert protocol.missing_names(response, ["cache_size", "nosuch"]) == {"nosuch"}
    else:
        with pytest.raises(UnexpectedResponseError) as raised:
            protocol.parse_query(request, response)
        assert raised.value.status == answer["status"]


@pytest.mark.parametrize(
    "exchange", recorded("/api/v1/settings") + recorded("/api/v1/settings/foo") + recorded("/api/v1/settings/nosuch")
)
def test_every_recorded_listing_is_understood(exchange: dict[str, Any]) -> None:
    """All data of a setting; a listing without the additional data is not what was asked for."""
    response, answer = recorded_response(exchange), exchange["response"]
    if "settings" not in answer.get("json", {}):
        parsed = protocol.parse_setting(protocol.setting("foo"), response)
        assert (parsed is None) == (answer["status"] in (404, 204))
    elif exchange["request"].get("query", {}).get("include_additional_data") == "true":
        listed = protocol.parse_settings(response)
        assert list(listed) == [setting["name"] for setting in answer["json"]["settings"]]
    else:
        with pytest.raises(UnexpectedResponseError):
            protocol.parse_settings(response)


def test_recorded_context_features_come_in_their_order() -> None:
    """The order is what the priority of rules depends on."""
    answers = [
        x for _, x in RECORDED if (x["request"]["method"], x["request"]["path"]) == ("GET", "/api/v1/context_features")
    ]
    assert len(answers) == 4
    for exchange in answers:
        features = protocol.parse_context_features(recorded_response(exchange))
        assert list(features) == exchange["response"]["json"]["context_features"]


def test_no_response_is_a_service_that_is_unavailable() -> None:
    """Whatever was asked; the HTTP library's error is the cause."""
    error = OSError("unplugged")
    for parse in PARSERS:
        with pytest.raises(ServiceUnavailableError, match="OSError: unplugged") as raised:
            parse(NoResponse(error, is_networks=True))
        assert raised.value.__cause__ is error
        with pytest.raises(ServiceUnavailableError, match=r"\(OSError\)"):
            parse(NoResponse(error))


PARSERS: list[Any] = [
    protocol.parse_health,
    protocol.parse_context_features,
    protocol.parse_settings,
    lambda reply: protocol.parse_setting(protocol.setting("s"), reply),
    lambda reply: protocol.parse_declaration(protocol.declare(b""), reply, "s"),
    lambda reply: protocol.parse_query(protocol.query("/api/v1/query?settings=s", None), reply),
]

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**31), 2**31) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(
        st.sampled_from(["settings", "context_features", "outcome", "differences", "detail", "default_value", "rules"])
        | st.text(), inner,
    ),
)  # fmt: skip
BODIES = st.binary() | JSON.map(lambda value: json.dumps(value).encode())


@given(st.sampled_from(PARSERS), st.sampled_from([200, 201, 204, 206, 302, 304, 400, 404, 409, 413, 422, 500]), BODIES)
def test_any_answer_is_a_value_or_one_of_our_errors(parse: Any, status: int, body: bytes) -> None:
    """No body, of whatever status, makes a parser fail in any other way."""
    reply: Reply = Response(status, body)
    message = ""
    try:
        parse(reply)
    except (UnexpectedResponseError, DeclarationError) as error:
        message = str(error)
    assert len(message) < 600
    assert "\n" not in message


RULE: dict[str, Any] = {"rule_id": 1, "value": 1, "context_features": [["user", "jim"]]}


def rules_of(*raw_rules: bytes) -> tuple[list[int], list[tuple[Any, str]]]:
    """Return the ids of the rules in a response with these, and the ids and errors of the invalid ones."""
    raw = msgspec.Raw(b'{"default_value": 0, "rules": [%s]}' % b",".join(raw_rules))
    queried = protocol.parse_queried_setting("s", raw)
    rules, invalid = protocol.decode_rules(queried.undecoded)
    return [rule.rule_id for rule in (*queried.rules, *rules)], invalid


@given(JSON)
def test_any_rule_is_a_rule_or_a_fault(raw: Any) -> None:
    """A malformed rule costs that rule, and none beside it."""
    ids, faults = rules_of(json.dumps(RULE).encode(), json.dumps(raw).encode())
    assert ids[0] == 1
    assert len(ids) + len(faults) == 2


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"rule_id": "1"}, "rule_id"),
        ({"context_features": {"user": "jim"}}, "context_features"),
        ({"context_features": None}, "context_features"),
        ({"context_features": [["user"]]}, "context_features"),
        ({"context_features": [["user", 1]]}, "context_features"),
    ],
)
def test_a_malformed_rule_is_refused_with_a_reason(changes: dict[str, Any], why: str) -> None:
    """The id and the words are for the log."""
    malformed = RULE | {"rule_id": 2} | changes
    ids, [(rule_id, words)] = rules_of(json.dumps(RULE).encode(), json.dumps(malformed).encode())
    assert (ids, rule_id) == ([1], malformed["rule_id"])
    assert why in words


@pytest.mark.parametrize("value", [b"1e999", b'"\xff"'])
def test_a_value_that_cannot_be_decoded_costs_its_rule(value: bytes) -> None:
    """A number beyond all floats, text that is none: only of that rule is nothing known."""
    bad = b'{"rule_id": 2, "context_features": [], "value": %s}' % value
    ids, faults = rules_of(json.dumps(RULE).encode(), bad)
    assert ids == [1]
    assert len(faults) == 1


def test_a_setting_that_is_too_large_for_one_step_is_decoded_later() -> None:
    """In batches, between which others run."""
    rule = json.dumps(RULE | {"value": "x" * 1000}).encode()
    raw = msgspec.Raw(b'{"default_value": 0, "rules": [%s]}' % b",".join([rule] * 1500))
    queried = protocol.parse_queried_setting("s", raw)
    assert (len(queried.rules), len(queried.undecoded)) == (0, 1500)
    rules, invalid = protocol.decode_rules(queried.undecoded)
    assert (len(rules), invalid) == (1500, [])


@pytest.mark.parametrize("body", ['{"settings": [{"name": "s"}]}', '{"settings": [5]}',
                                  '{"settings": [{"name": 5, "default_value": 1, "aliases": []}]}'])  # fmt: skip
def test_an_incomplete_setting_is_an_unexpected_answer(body: str) -> None:
    """`get_settings` promises all of the data, or says what is missing."""
    with pytest.raises(UnexpectedResponseError, match="a setting"):
        protocol.parse_settings(Response(200, body.encode()))


def test_an_error_keeps_the_beginning_of_a_body_only() -> None:
    """What a proxy sends may be long, and an error is kept in logs."""
    with pytest.raises(UnexpectedResponseError) as raised:
        protocol.parse_context_features(Response(502, b"<html>" * 1000))
    assert len(raised.value.content) == 1024
    assert len(str(raised.value)) < 400


@pytest.mark.parametrize("outcome", [[], {}, None, 5, "done", "rejected"])
def test_an_answer_to_a_declaration_without_a_known_outcome_is_unexpected(outcome: Any) -> None:
    """Of whatever type it is."""
    reply = Response(200, json.dumps({"outcome": outcome}).encode())
    with pytest.raises(UnexpectedResponseError, match="without a known outcome"):
        protocol.parse_declaration(protocol.declare(b""), reply, "s")


@pytest.mark.parametrize(
    ("body", "words"),
    [(b'{"detail": "no such"}', "no such"), (b"[1]", "[1]"), (b"plain", "plain"), (b"", "''"), (b"x" * 999, "xxx...")],
)
def test_an_error_says_what_the_service_said(body: bytes, words: str) -> None:
    """In whatever shape it said it, and not longer than a line."""
    with pytest.raises(UnexpectedResponseError) as raised:
        protocol.parse_health(Response(500, body))
    assert words in str(raised.value)


@pytest.mark.parametrize(
    ("body", "why"),
    [(b"<html>", "not in JSON"), (b"[]", "not with an object"), (b"{}", "without context_features"),
     (b'{"context_features": {}}', "without context_features"), (b'{"context_features": [5]}', "not a string")],
)  # fmt: skip
def test_an_answer_that_is_none_says_what_is_wrong_with_it(body: bytes, why: str) -> None:
    """So that whoever reads the log knows whether it was the service that answered."""
    with pytest.raises(UnexpectedResponseError, match=why):
        protocol.parse_context_features(Response(200, body))


@pytest.mark.parametrize(
    ("body", "words"),
    [(b"{}", "without settings"), (b'{"settings": []}', "without settings"), (b"<html>", "not in JSON")],
)
def test_an_answer_to_a_query_without_settings_is_unexpected(body: bytes, words: str) -> None:
    """With what is wrong about it."""
    with pytest.raises(UnexpectedResponseError, match=words):
        protocol.parse_query(protocol.query("/api/v1/query?settings=s", None), Response(200, body))
