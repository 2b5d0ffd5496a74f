"""Faulty responses and their JSON, by the ids of the table in the documentation.

`tests/faults` has a test with real clients for each id. Here are the variations.
"""

import json
from typing import Any

import pytest

from heksher_client import (
    DeclarationError,
    HeksherError,
    HeksherSequence,
    Reason,
    Setting,
    State,
    UnexpectedResponseError,
)
from tests.support.driven import START, DrivenClient, driven
from tests.support.fake_service import FakeService
from tests.support.responses import NO_RULES, query_response, rule
from tests.support.service import DECLARE, QUERY, CannedResponse, RecordedRequest


@pytest.fixture
def setting() -> Setting[int]:
    return Setting("s", int, ["user", "theme"], 7)


def get(setting: Setting[Any], user: str = "jim") -> Any:
    return setting.get(user=user, theme="none")


# -- HTTP --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [401, 403, 404, 422])
def test_h1_h3_errors_that_need_intervention_are_retried_slowly(
    service: FakeService, setting: Setting[int], status: int
) -> None:
    """A query fails, or the declarations that follow a 404 to a query."""
    with driven(service, update_interval=60) as client:
        service.intercept = lambda request: CannedResponse(status)
        client.refresh(7)
        assert client.waits == [60, 30, 60, 120, 240, 300, 300]
        assert get(setting) == 7


@pytest.mark.parametrize("status", [401, 403])
def test_h1_the_error_of_refused_credentials_says_so(service: FakeService, setting: Setting[int], status: int) -> None:
    """The client is fresh again once they are accepted."""
    with driven(service) as client:
        service.intercept = lambda request: CannedResponse(status)
        error = client.reload_expecting(UnexpectedResponseError)
        assert "the credentials are missing, wrong or insufficient" in str(error)
        assert get(setting) == 7

        service.intercept = lambda request: None
        client.reload()
        assert client.status().state is State.FRESH


@pytest.mark.parametrize("status", [400, 404, 422])
def test_h3_a_refused_declaration_is_sent_again_by_a_reload_or_at_its_own_time(
    service: FakeService, setting: Setting[int], status: int
) -> None:
    """Refreshes before that send no declaration, and count as failed."""
    _other = Setting("other", int, ["user"], 1)
    service.declare("other", "int", 1, ["user"])
    refusals = iter([CannedResponse(status)] * 2)
    service.respond_with(DECLARE, lambda request: next(refusals, None) if request.json["name"] == "s" else None)
    with driven(service, update_interval=20) as client:
        refused = client.status().settings["s"]
        assert (refused.declaration, "refused the declaration" in (refused.problem or "")) == ("refused", True)
        assert refused.next_attempt == 30

        client.refresh()
        assert client.status().failures == 2
        assert len(service.requests_to(DECLARE)) == 2

        client.reload_expecting(DeclarationError)
        assert len(service.requests_to(DECLARE)) == 3

        client.advance(59)
        assert len(service.requests_to(DECLARE)) == 3
        client.advance(1)
        assert client.status().settings["s"].declaration == "created"
        assert client.status().state is State.FRESH
        assert get(setting) == 7


@pytest.mark.parametrize("status", [400, 404, 422])
def test_h3_the_start_raises_the_error_of_a_refused_declaration(
    service: FakeService, setting: Setting[int], status: int
) -> None:
    """The error names the setting."""
    service.respond_with(DECLARE, CannedResponse(status))
    client = DrivenClient(service, raises_at_start=True)
    with pytest.raises(DeclarationError) as raised:
        client.start()
    client.close()
    assert (raised.value.setting, raised.value.status) == ("s", status)
    assert get(setting) == 7


def test_h3_a_client_whose_every_request_gets_404_is_never_healthy(
    service: FakeService, setting: Setting[int], caplog: pytest.LogCaptureFixture
) -> None:
    """Its URL is wrong. Not even while no declaration is due."""
    service.intercept = lambda request: CannedResponse(404)
    with driven(service) as client:
        client.refresh()
        assert (client.status().age, client.status().is_healthy) == (None, False)
        assert "succeeds again" not in caplog.text
        assert get(setting) == 7


def test_h4_the_differences_of_a_declaration_in_conflict_are_logged(
    service: FakeService, setting: Setting[int], caplog: pytest.LogCaptureFixture
) -> None:
    """The setting is queried nevertheless."""
    service.declare("s", "str", "x", ["user", "theme"], version="1.0")
    with driven(service) as client:
        assert client.status().settings["s"].declaration in ("rejected", "mismatch")
        assert len(service.requests_to(QUERY)) == 1
    (record,) = [record for record in caplog.records if "conflicts with" in record.message]
    assert record.__dict__["differences"]
    assert get(setting) == 7


def test_h5_a_setting_that_another_program_renamed_is_queried_by_its_new_name(
    service: FakeService, setting: Setting[int]
) -> None:
    """From the next refresh on. The status has both names."""
    with driven(service) as client:
        service.declare("renamed", "int", 7, ["user", "theme"], alias="s", version="1.1")
        service.add_rule("renamed", 8, user="jim")
        client.reload()
        assert get(setting) == 8
        assert client.status().settings["s"].canonical_name == "renamed"


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("retry_after", "date", "wait"),
    [
        ("40", "", 40),
        ("Sun, 22 Nov 2026 10:02:00 GMT", "Sun, 22 Nov 2026 10:00:00 GMT", 120),
        ("Sun, 22 Nov 2026 10:02:00 GMT", "", 1),
        ("soon", "", 1),
        ("-5", "", 1),
        ("Sun, 99 Nov 2026 10:02:00 GMT", "Sun, 22 Nov 2026 10:00:00 GMT", 1),
        ("99999999999999999999", "", 1),
        ("86400", "", 300),
    ],
)
def test_h8_the_client_waits_as_long_as_the_service_asks(
    service: FakeService, setting: Setting[int], status: int, retry_after: str, date: str, wait: float
) -> None:
    """Within limits. Invalid headers are ignored."""
    headers = {"retry-after": retry_after} | ({"date": date} if date else {})
    with driven(service, update_interval=60) as client:
        service.respond_with(QUERY, CannedResponse(status, headers=headers))
        client.refresh(2)
        assert client.waits == [60, wait]
        assert get(setting) == 7


def test_h9_a_declaration_that_gets_a_single_500_is_sent_again_in_the_same_refresh(
    service: FakeService, setting: Setting[int]
) -> None:
    """So the start succeeds."""
    service.respond_with(DECLARE, CannedResponse(500), times=1)
    with driven(service) as client:
        assert client.status().settings["s"].declaration == "created"
        assert client.status().state is State.FRESH
        assert get(setting) == 7


def test_h9_a_declaration_that_gets_500_again_and_again_is_sent_three_times_in_a_refresh(
    service: FakeService, setting: Setting[int]
) -> None:
    """Within half a second. The next refresh sends it again."""
    service.respond_with(DECLARE, CannedResponse(500), times=3)
    with driven(service) as client:
        assert len(service.requests_to(DECLARE)) == 3
        assert client.now == START + 0.5
        assert client.status().state is State.STALE

        client.refresh()
        assert len(service.requests_to(DECLARE)) == 4
        assert client.status().state is State.FRESH
        assert get(setting) == 7


@pytest.mark.parametrize("raises_at_start", [True, False])
def test_h10_a_304_to_the_first_query_is_an_error(
    service: FakeService, setting: Setting[int], raises_at_start: bool
) -> None:
    """The next query has no ETag."""
    service.respond_with(QUERY, CannedResponse(304), times=1)
    client = DrivenClient(service, raises_at_start=raises_at_start)
    client.set_defaults(user="jim", theme="none")
    with pytest.raises(UnexpectedResponseError, match="304"):
        client.start()
    assert client.status().age is None

    client.reload()
    assert ["if-none-match" in request.headers for request in service.requests_to(QUERY)] == [False, False]
    assert setting.explain().reason is Reason.SERVER_DEFAULT
    client.close()


def test_h11_an_etag_is_sent_only_with_the_query_that_it_belongs_to(
    service: FakeService, setting: Setting[int]
) -> None:
    """Otherwise a new setting would not be received from a service whose ETag does not depend on the query."""

    def same_etag(request: RecordedRequest) -> CannedResponse:
        if "if-none-match" in request.headers:
            return CannedResponse(304)
        names = request.query["settings"].split(",")
        return CannedResponse.of({"settings": dict.fromkeys(names, NO_RULES)}, etag='"same"')

    service.respond_with(QUERY, same_etag)
    with driven(service) as client:
        late = Setting("late", int, ["user"], 1)
        client.reload()
        assert late.get(user="jim") == 7
        assert get(setting) == 7


@pytest.mark.parametrize("status", [201, 202, 204, 206, 226])
def test_h12_another_status_of_success_is_an_error(service: FakeService, setting: Setting[int], status: int) -> None:
    """Even with the body of a success."""
    with driven(service) as client:
        service.respond_with(QUERY, CannedResponse(status, query_response(default=8).body))
        assert client.reload_expecting(UnexpectedResponseError).status == status
        assert get(setting) == 7


# -- JSON --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body", [b"", b"null", b"{", b"[]", b"17", b'"x"', b"\xff\xfe", b'{"settings": null}', b'{"settings": []}', b"{}"]
)
def test_p1_an_invalid_body_is_not_used_and_its_etag_is_not_stored(
    service: FakeService, setting: Setting[int], body: bytes
) -> None:
    """The next response must not be a 304."""
    with driven(service) as client:
        service.add_rule("s", 8, user="jim")
        service.respond_with(QUERY, CannedResponse(200, body, {"etag": '"bad"'}), times=1)
        client.reload_expecting(UnexpectedResponseError)
        assert get(setting) == 7

        client.reload()
        assert get(setting) == 8
        assert service.requests_to(QUERY)[-1].headers.get("if-none-match") != '"bad"'


@pytest.mark.parametrize("bad", [{}, [], None, {"rules": []}, {"default_value": 1}, {"default_value": 1, "rules": 5}])
def test_p2_a_setting_with_an_invalid_structure_affects_itself_only(service: FakeService, bad: Any) -> None:
    """It keeps its rules, and its status gives the reason. Other settings are updated."""
    settings = [Setting(name, int, ["user"], 1) for name in "abc"]
    with driven(service) as client:
        good = {"default_value": 2, "rules": []}
        service.respond_with(QUERY, CannedResponse.of({"settings": {"a": good, "b": bad, "c": good}}))
        client.reload_expecting(UnexpectedResponseError)
        assert [setting.get(user="x") for setting in settings] == [2, 1, 2]
        status = client.status().settings
        assert "no default value" in (status["b"].problem or "")
        assert (status["a"].problem, status["c"].problem) == (None, None)

        service.respond_with(QUERY, CannedResponse.of({"settings": dict.fromkeys("abc", good)}))
        client.reload()
        assert settings[1].get(user="x") == 2
        assert client.status().settings["b"].problem is None


def test_p3_a_setting_that_was_not_queried_is_ignored(service: FakeService, setting: Setting[int]) -> None:
    """Its structure does not matter."""
    response = {"settings": {"s": {"default_value": 8, "rules": []}, "other": {"x": 1}, "third": None}}
    service.respond_with(QUERY, CannedResponse.of(response))
    with driven(service) as client:
        assert get(setting) == 8
        assert client.status().state is State.FRESH


def test_p4_an_omitted_setting_keeps_its_rules(service: FakeService, setting: Setting[int]) -> None:
    """The error and the status of the setting report the omission."""
    with driven(service) as client:
        service.add_rule("s", 8, user="jim")
        client.reload()
        service.respond_with(QUERY, CannedResponse.of({"settings": {}}))
        error = client.reload_expecting(UnexpectedResponseError)
        assert "did not include setting s" in str(error)
        assert "did not include setting s" in (client.status().settings["s"].problem or "")
        assert get(setting) == 8


@pytest.mark.parametrize("bad", ["8", None, [8], {"x": 8}, 8.5, True])
def test_p5_p6_a_rule_with_a_value_of_another_type_is_not_used(
    service: FakeService, setting: Setting[int], bad: Any
) -> None:
    """The status gives the reason."""
    service.respond_with(QUERY, query_response(rule(bad), rule(9, 2, [["user", "ann"]])))
    with driven(service) as client:
        assert (get(setting), get(setting, "ann")) == (7, 9)
        status = client.status()
        assert (status.rules, status.rejected) == (1, 1)
        (rejected,) = status.settings["s"].first_rejected
        assert rejected.rule_id == 1
        assert rejected.reason


def test_p6_an_integral_float_is_an_int_and_a_string_is_not_a_sequence_of_letters(service: FakeService) -> None:
    """A default is converted like the value of a rule."""
    number, letters = Setting("s", int, ["user"], 7), Setting("t", HeksherSequence(str), ["user"], ())
    response = {
        "s": {"default_value": 5.0, "rules": [rule(6.0)]},
        "t": {"default_value": [], "rules": [rule("abc")]},
    }
    service.respond_with(QUERY, CannedResponse.of({"settings": response}))
    with driven(service):
        assert (number.get(user="ann"), number.get(user="jim")) == (5, 6)
        assert letters.get(user="jim") == ()


def test_p7_a_rule_with_a_condition_on_an_undeclared_feature_is_rejected(
    service: FakeService, setting: Setting[int]
) -> None:
    """It is not used, and is counted."""
    service.respond_with(QUERY, query_response(rule(8, 1, [["environment", "prod"]]), rule(9, 2)))
    with driven(service) as client:
        assert get(setting) == 9
        assert client.status().rejected == 1


def test_p8_conditions_may_be_in_any_order(service: FakeService, setting: Setting[int]) -> None:
    """They are sorted."""
    service.respond_with(QUERY, query_response(rule(8, 1, [["theme", "none"], ["user", "jim"]]), rule(9, 2)))
    with driven(service):
        assert get(setting) == 8


@pytest.mark.parametrize(
    "bad", [[["user", "jim"], ["user", "ann"]], {"user": "jim"}, None, "user", [["user"]], [["user", 5]], [5]]
)
def test_p9_a_rule_with_invalid_conditions_is_rejected(service: FakeService, setting: Setting[int], bad: Any) -> None:
    """It is not used, and is counted."""
    service.respond_with(QUERY, query_response(rule(8, 1, bad), rule(9, 2)))
    with driven(service) as client:
        assert get(setting) == 9
        assert client.status().rejected == 1


@pytest.mark.parametrize("rules", [(rule(9, 2), rule(8, 1)), (rule(8, 1), rule(9, 2))])
def test_p10_of_rules_with_the_same_conditions_the_higher_id_is_used(
    service: FakeService, setting: Setting[int], rules: Any
) -> None:
    """In any order. The other one is listed in the status."""
    service.respond_with(QUERY, query_response(*rules))
    with driven(service) as client:
        assert get(setting) == 9
        assert [rejected.rule_id for rejected in client.status().settings["s"].first_rejected] == [1]


def test_p11_a_number_of_five_thousand_digits_affects_only_its_rule(
    service: FakeService, setting: Setting[int]
) -> None:
    """It may be the value or the id."""
    digits = "9" * 5000
    body = f"""{{"settings": {{"s": {{"default_value": 7, "rules": [
        {{"value": {digits}, "rule_id": 1, "context_features": [["user", "jim"]]}},
        {{"value": 8, "rule_id": {digits}, "context_features": [["user", "jim"]]}},
        {{"value": 9, "rule_id": 3, "context_features": [["user", "ann"]]}}]}}}}}}"""
    service.respond_with(QUERY, CannedResponse(200, body.encode()))
    with driven(service):
        assert get(setting, "ann") == 9
        assert get(setting) in (7, 8)


@pytest.mark.parametrize("bad", [b"NaN", b"Infinity", b"1e999", b'"\\ud800"', b'"\\u0000"', b'"a\nb"'])
@pytest.mark.parametrize(("type_", "default"), [(int, 7), (float, 7.0), (str, "x")])
def test_p12_the_type_determines_which_unusual_numbers_and_characters_are_valid(
    service: FakeService, bad: bytes, type_: Any, default: Any
) -> None:
    """Only NUL is, in a string. What is not valid JSON is an error of the response."""
    setting: Setting[Any] = Setting("s", type_, ["user"], default)
    good = json.dumps(default).encode()
    body = b"""{"settings": {"s": {"default_value": %b, "rules": [
        {"value": %b, "rule_id": 1, "context_features": [["user", "jim"]]},
        {"value": %b, "rule_id": 2, "context_features": [["user", "ann"]]}]}}}""" % (good, bad, good)
    service.respond_with(QUERY, CannedResponse(200, body))
    with driven(service):
        is_valid = type_ is str and bad == b'"\\u0000"'
        assert setting.get(user="jim") == ("\0" if is_valid else default)
        assert setting.get(user="ann") == default


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_p13_deeply_nested_json_is_an_error_at_any_position(
    service: FakeService, setting: Setting[int], opening: bytes
) -> None:
    """The last good values stay."""
    deep = opening * 200_000
    rules = b'{"default_value": 1, "rules": [{"value": %b, "rule_id": 1, "context_features": []}]}' % deep
    with driven(service) as client:
        for body in (deep, b'{"settings": %b' % deep, b'{"settings": {"s": %b' % rules):
            service.respond_with(QUERY, CannedResponse(200, body))
            client.reload_expecting(UnexpectedResponseError)
            assert get(setting) == 7


def test_p14_a_query_whose_response_is_too_large_is_split(service: FakeService) -> None:
    """A setting that exceeds the limit by itself keeps its value, and is reported."""
    settings = [Setting(f"s{i}", str, ["user"], "small") for i in range(6)]
    with driven(service, max_response_bytes=8000) as client:
        for i in range(5):
            service.add_rule(f"s{i}", "x" * 3000, user="jim")
        service.add_rule("s5", "x" * 9000, user="jim")
        error = client.reload_expecting(UnexpectedResponseError)
        assert "more than 8,000 bytes" in str(error)
        assert [len(setting.get(user="jim")) for setting in settings] == [3000] * 5 + [5]


def test_p16_many_settings_and_many_tracked_values_take_several_short_queries(service: FakeService) -> None:
    """Their responses are applied together."""
    settings = [Setting(f"a_setting_with_quite_a_long_name_{i}", int, ["user"], i) for i in range(300)]
    client = DrivenClient(service)
    client.set_defaults(user="jim")
    client.track_contexts(user=[f"user_{i}" for i in range(100_000)])
    client.start()
    assert [setting.explain().reason for setting in settings] == [Reason.SERVER_DEFAULT] * 300
    assert all(len(str(request.query)) < 8000 for request in service.requests_to(QUERY))
    assert len(service.requests_to(QUERY)) > 1
    client.close()


EVIL = "fine\nERROR root: all is lost \x1b[31m \u202e"


@pytest.mark.parametrize("response", [CannedResponse.of({"detail": EVIL}, 500), CannedResponse(502, EVIL.encode())])
def test_p18_line_breaks_and_format_codes_are_escaped(
    service: FakeService, setting: Setting[int], caplog: pytest.LogCaptureFixture, response: CannedResponse
) -> None:
    """In all log records and in the status, whether they are in a value or in an error."""
    with driven(service) as client:
        service.respond_with(QUERY, query_response(rule(EVIL, 1)))
        client.reload()
        service.intercept = lambda request: response
        client.reload_expecting(HeksherError)
        assert (client.status().last_error or "\n").isprintable()
    assert len(caplog.records) >= 2
    assert all(record.getMessage().isprintable() for record in caplog.records)
    assert get(setting) == 7


def test_secrets_in_the_headers_of_a_response_are_redacted(service: FakeService, setting: Setting[int]) -> None:
    """A cookie, and the query of a redirect, where a gateway may put a token."""
    headers = {"Set-Cookie": "session=s3cr3t", "Location": "https://login/start?token=s3cr3t", "Server": "gateway"}
    with driven(service) as client:
        service.respond_with(QUERY, CannedResponse(302, headers=headers))
        error = client.reload_expecting(UnexpectedResponseError)
        assert error.headers == {"set-cookie": "***", "location": "https://login/start?***", "server": "gateway"}
        assert get(setting) == 7
