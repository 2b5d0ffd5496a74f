"""Quirks of the reference service that both clients handle: renames, filters, missing settings, sizes and errors."""

import logging

import pytest

from heksher_client import DeclarationError, HeksherSequence, Reason, Setting, UnexpectedResponseError
from tests.support.driven import DrivenClient, driven
from tests.support.fake_service import FakeService
from tests.support.log_records import summaries
from tests.support.service import CONTEXT_FEATURES, DECLARE, QUERY, CannedResponse, RecordedRequest

# -- renamed settings --------------------------------------------------------------------------------------------------


def test_a_setting_declared_under_its_former_name_gets_the_rules_of_the_new_name(service: FakeService) -> None:
    """The service responds that the declaration is outdated, and the client queries the new name."""
    service.declare("foo", "int", 1, ["user"])
    service.add_rule("foo", 5, user="jim")
    service.rename("foo", "bar", "1.1")
    foo = Setting("foo", int, ["user"], 1)

    with driven(service):
        assert foo.get(user="jim") == 5
        assert [request.query["settings"] for request in service.requests_to(QUERY)] == ["bar"]


def test_a_setting_that_is_renamed_while_the_client_runs_is_still_updated(
    service: FakeService, caplog: pytest.LogCaptureFixture
) -> None:
    """All other settings are updated in the same refresh, and later refreshes send no additional requests."""
    foo = Setting("foo", int, ["user"], 1)
    other = Setting("other", int, ["user"], 1)

    with caplog.at_level(logging.INFO, "heksher_client"), driven(service) as client:
        service.rename("foo", "bar", "1.1")
        service.add_rule("bar", 5, user="jim")
        service.add_rule("other", 6, user="jim")
        client.reload()
        assert (foo.get(user="jim"), other.get(user="jim")) == (5, 6)

        service.rename("bar", "baz", "1.2")
        service.add_rule("baz", 7, user="john")
        client.reload()
        assert (foo.get(user="john"), foo.get(user="jim")) == (7, 5)

        before = len(service.requests)
        client.reload()
        service.add_rule("baz", 8, user="jack")
        client.reload()
        assert foo.get(user="jack") == 8
        assert {request.path.rpartition("/")[2] for request in service.requests[before:]} == {
            "context_features",
            "query",
        }
    assert summaries(caplog.records) == [
        (
            "INFO",
            f"setting {name} was renamed to {new_name} in the service",
            {"setting": name, "canonical_name": new_name},
        )
        for name, new_name in (("foo", "bar"), ("bar", "baz"))
    ]


def test_a_setting_keeps_its_rules_while_its_new_name_is_unavailable(service: FakeService) -> None:
    """All other settings are updated, and the renamed one once the client can look up its new name."""
    foo, other = Setting("foo", int, ["user"], 1), Setting("other", int, ["user"], 1)
    with driven(service) as client:
        service.rename("foo", "bar", "1.1")
        service.add_rule("bar", 5, user="jim")
        service.add_rule("other", 6, user="jim")
        for status, text in (
            (404, "the response did not include setting foo; it keeps its rules"),
            (500, "GET /api/v1/settings/foo: the service responded with 500"),
        ):
            service.respond_with("GET /api/v1/settings/foo", CannedResponse(status))
            assert str(client.reload_expecting(UnexpectedResponseError)) == text
            assert client.status().settings["foo"].problem == text
            assert (foo.get(user="jim"), other.get(user="jim")) == (1, 6)
        service.intercept = lambda request: None
        client.reload()
        assert foo.get(user="jim") == 5


def test_a_setting_can_be_declared_under_its_former_and_its_new_name(service: FakeService) -> None:
    """Both `Setting` objects of the program get the rules, with one query for the new name."""
    service.declare("foo", "int", 1, ["user"])
    service.add_rule("foo", 5, user="jim")
    new = Setting("bar", int, ["user"], 1, alias="foo", version="1.1")
    old = Setting("foo", int, ["user"], 1)

    with driven(service) as client:
        assert (new.get(user="jim"), old.get(user="jim")) == (5, 5)
        assert {setting.canonical_name for setting in client.status().settings.values()} == {"bar"}
        assert [str(request) for request in service.requests if request.method == "GET"] == [CONTEXT_FEATURES, QUERY]
        assert service.requests[-1].query["settings"] == "bar"


# -- context filters ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("feature", ["with_underscore", "Upper", "digit2"])
def test_a_context_filter_that_the_service_cannot_parse_is_not_sent(feature: str) -> None:
    """The client loads all rules, and applies the filter itself."""
    setting = Setting("s", int, ["plain", feature], 0)
    service = FakeService(["plain", feature])
    with driven(service) as client:
        service.add_rule("s", 1, **{feature: "a"})
        service.add_rule("s", 2, **{feature: "b"})
        service.add_rule("s", 3, plain="a")
        client.reload()
        assert (setting.get(**{feature: "b"}), setting.get(plain="a")) == (2, 3)
        client.track_contexts(**{feature: "a"})
        client.reload()

        assert service.requests_to(QUERY)[-1].query["context_filters"] == "*"
        assert setting.get(**{feature: "a"}) == 1
        assert setting.get(**{feature: "b"}) == 0
        assert setting.get(plain="a") == 0


def test_without_tracking_all_rules_are_loaded_and_with_an_empty_filter_none(service: FakeService) -> None:
    """A feature that is tracked without values makes the filter empty."""
    setting = Setting("s", int, ["user"], 0)
    with driven(service) as client:
        service.add_rule("s", 1, user="jim")
        client.reload()
        assert service.requests_to(QUERY)[-1].query["context_filters"] == "*"
        assert setting.get(user="jim") == 1

        client.track_contexts(user=[])
        client.reload()
        assert service.requests_to(QUERY)[-1].query["context_filters"] == ""
        assert setting.get(user="jim") == 0


def test_the_client_applies_the_context_filter_as_well(service: FakeService) -> None:
    """Only rules with tracked values are used, even if the service ignores the filter."""
    service.declare("s", "int", 0, ["environment", "user"])
    rules = [
        {"value": 1, "context_features": [["user", "jim"]], "rule_id": 1},
        {"value": 2, "context_features": [["user", "john"]], "rule_id": 2},
        {"value": 3, "context_features": [["environment", "prod"]], "rule_id": 3},
    ]
    service.respond_with(QUERY, CannedResponse.of({"settings": {"s": {"default_value": 0, "rules": rules}}}))
    setting = Setting("s", int, ["environment", "user"], 0)

    with driven(service) as client:
        client.track_contexts(user="jim")
        client.reload()
        assert service.requests_to(QUERY)[-1].query["context_filters"] == "user:(jim)"
        assert setting.get(user="jim") == 1
        assert setting.get(user="john") == 0
        assert setting.get(environment="prod") == 0


# -- missing settings --------------------------------------------------------------------------------------------------


def test_a_deleted_setting_is_declared_again_and_the_others_are_updated(
    service: FakeService, caplog: pytest.LogCaptureFixture
) -> None:
    """The service rejects a query with an unknown name as a whole."""
    deleted = Setting("deleted", int, ["user"], 1)
    other = Setting("other", int, ["user"], 1)
    with driven(service) as client:
        service.delete("deleted")
        service.add_rule("other", 2, user="jim")
        client.reload()

        assert other.get(user="jim") == 2
        service.add_rule("deleted", 3, user="jim")
        client.reload()
        assert deleted.get(user="jim") == 3
    assert summaries(caplog.records) == [
        ("WARNING", "the service lost 1 settings; declaring them again", {"settings": ["deleted"]})
    ]


def test_only_quoted_names_of_a_404_are_missing_settings(service: FakeService) -> None:
    """A setting may have the name of a word in the text of the response, such as "not"."""
    deleted, other = Setting("deleted", int, ["user"], 1), Setting("not", int, ["user"], 1)
    with driven(service) as client:
        before = len(service.requests_to(DECLARE))
        service.delete("deleted")
        client.reload()
        assert [request.json["name"] for request in service.requests_to(DECLARE)[before:]] == ["deleted"]
        assert (deleted.get(), other.get()) == (1, 1)


def test_after_a_404_without_a_known_name_all_settings_are_declared_again(service: FakeService) -> None:
    """Any setting of the query may be missing."""
    setting = Setting("s", int, ["user"], 1)
    with driven(service) as client:
        service.add_rule("s", 2, user="jim")
        service.respond_with(QUERY, CannedResponse(404, b"unknown settings"), times=1)
        client.reload()

        assert len(service.requests_to(DECLARE)) == 2
        assert setting.get(user="jim") == 2


def test_a_setting_that_is_missing_after_its_declaration_affects_itself_only(service: FakeService) -> None:
    """It is reported as an error, and the others are updated."""
    missing = Setting("missing", int, ["user"], 1)
    other = Setting("other", int, ["user"], 1)
    with driven(service) as client:

        def reject(request: RecordedRequest) -> CannedResponse | None:
            if "missing" not in request.query["settings"].split(","):
                return None
            return CannedResponse(404, b"the following are not setting names: ['missing']")

        service.respond_with(QUERY, reject)
        service.add_rule("other", 2, user="jim")
        error = client.reload_expecting(DeclarationError)

        assert (str(error), error.setting) == ("the service denies setting missing", "missing")
        assert client.status().settings["missing"].declaration == "refused"
        assert (missing.get(), other.get(user="jim")) == (1, 2)


# -- limits of queries -------------------------------------------------------------------------------------------------


def test_queries_for_many_settings_are_split_by_the_length_of_the_url(service: FakeService) -> None:
    """Each URL is short enough for common servers and proxies."""
    settings = [Setting(f"a_setting_with_quite_a_long_name_{i}", int, ["user"], i) for i in range(300)]
    with driven(service) as client:
        service.add_rule(settings[0].name, -1, user="jim")
        service.add_rule(settings[299].name, -2, user="jim")
        client.reload()

        queries = [request.query["settings"].split(",") for request in service.requests_to(QUERY)]
        assert len(queries) > 4
        assert max(len(",".join(names)) for names in queries) < 4000
        first_refresh = queries[: len(queries) // 2]
        assert sorted(name for names in first_refresh for name in names) == sorted(s.name for s in settings)
        assert (settings[0].get(user="jim"), settings[299].get(user="jim")) == (-1, -2)


# -- ETags and conversions ---------------------------------------------------------------------------------------------


def test_a_query_has_the_etag_of_the_last_response(service: FakeService) -> None:
    """The first query has no `If-None-Match` header, not even an empty one."""
    setting = Setting("s", int, ["user"], 1)
    with driven(service) as client:
        client.reload()
        service.add_rule("s", 2, user="jim")
        client.reload()
        client.reload()

        sent = [request.headers.get("if-none-match") for request in service.requests_to(QUERY)]
        assert sent[0] is None
        assert sent[1] is not None
        assert sent[1] == sent[2] != sent[3]
        assert setting.get(user="jim") == 2


def test_values_of_a_newer_declaration_are_coerced_or_rejected_individually(
    service: FakeService, caplog: pytest.LogCaptureFixture
) -> None:
    """A value that this declaration does not allow affects only its rule or its element."""
    service.declare("s", "Sequence<int>", [1], ["user", "theme"])
    service.declare("n", "int", 1, ["user"])
    rules = [
        {"value": [1, "x", 3.0], "context_features": [["user", "a"]], "rule_id": 1},
        {"value": "abc", "context_features": [["user", "b"]], "rule_id": 2},
        {"value": [5], "context_features": [["user", "c"], ["planet", "mars"]], "rule_id": 3},
        {"value": [6], "context_features": [["user", "d"]], "rule_id": 4},
    ]
    settings = {
        "s": {"default_value": "not a list", "rules": rules},
        "n": {"default_value": 7.0, "rules": []},
    }
    service.respond_with(QUERY, CannedResponse.of({"settings": settings}))
    s = Setting("s", type=HeksherSequence(int), configurable_features=["user", "theme"], default_value=[1])
    n = Setting("n", int, ["user"], 1)

    with caplog.at_level(logging.INFO, "heksher_client"), driven(service):
        values = [s.get(user=user) for user in "abcd"]

    assert values == [(1, 3), (1,), (1,), (6,)]
    assert n.get() == 7
    assert type(n.get()) is int
    rejected = [
        (2, "'abc' is not a list"),
        (3, "it has conditions on ['planet'], which the declaration does not name"),
    ]
    coerced = [(1, ("element 1 dropped: 'x' is not an int",))]
    assert summaries(caplog.records) == [
        (
            "WARNING",
            "setting s: the service's default value was rejected: 'not a list' is not a list",
            {"setting": "s", "default_value": "not a list"},
        ),
        (
            "WARNING",
            f"setting s: 2 rules were rejected, the first of them: {rejected[0]}",
            {"setting": "s", "rejected_rules": rejected},
        ),
        (
            "INFO",
            f"setting s: 1 rules were coerced, the first of them: {coerced[0]}",
            {"setting": "s", "coerced_rules": coerced},
        ),
    ]


# -- errors ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b'{"detail": "text"}',
        b'{"detail": [{"loc": ["body"], "msg": "bad", "type": "value_error"}]}',
        b"plain text",
        b"",
    ],
)
def test_a_refused_declaration_is_an_error_with_any_response_body(service: FakeService, body: bytes) -> None:
    """The `DeclarationError` names the setting."""
    refused = Setting("refused", int, ["user"], 1)
    good = Setting("good", int, ["user"], 1)
    service.declare("good", "int", 1, ["user"])
    service.add_rule("good", 3, user="jim")
    service.respond_with(
        DECLARE, lambda request: CannedResponse(422, body) if request.json["name"] == "refused" else None
    )

    client = DrivenClient(service)
    client.set_defaults(user="jim")
    with pytest.raises(DeclarationError) as raised:
        client.start()
    client.close()
    error = raised.value

    assert error.setting == "refused"
    assert (good.get(), refused.get()) == (3, 1)


def test_a_query_that_is_too_large_for_the_service_is_split(service: FakeService) -> None:
    """It gets a response with status 500. The client remembers the size that works."""
    settings = [Setting(f"s{i:02}", int, ["user"], i) for i in range(20)]

    def reject_large_queries(request: RecordedRequest) -> CannedResponse | None:
        return CannedResponse(500, b"Internal Server Error") if request.query["settings"].count(",") >= 6 else None

    service.respond_with(QUERY, reject_large_queries)
    with driven(service) as client:
        assert [setting.explain(user="jim").reason for setting in settings] == [Reason.SERVER_DEFAULT] * 20
        first = len(service.requests_to(QUERY))
        assert first <= 8

        service.add_rule("s19", -1, user="jim")
        client.reload()
        assert settings[19].get(user="jim") == -1
        later = service.requests_to(QUERY)[first:]
        assert max(request.query["settings"].count(",") for request in later) < 6
        assert len(later) == 4


def test_a_setting_that_is_too_large_for_any_query_affects_itself_only(service: FakeService) -> None:
    """It is reported as an error, and all others are updated."""
    settings = [Setting(f"s{i}", int, ["user"], i) for i in range(9)]

    def reject_s0(request: RecordedRequest) -> CannedResponse | None:
        return CannedResponse(500) if "s0" in request.query["settings"].split(",") else None

    with driven(service) as client:
        for setting in settings:
            service.add_rule(setting.name, -1, user="jim")
        service.respond_with(QUERY, reject_s0)
        error = client.reload_expecting(UnexpectedResponseError)

        assert isinstance(error, UnexpectedResponseError)
        assert error.status == 500
        assert [setting.get(user="jim") for setting in settings] == [0, *[-1] * 8]


def test_a_refresh_stops_after_a_few_responses_with_status_500(service: FakeService) -> None:
    """If all queries fail, the refresh does not query each setting separately."""
    settings = [Setting(f"s{i}", int, ["user"], i) for i in range(64)]
    with driven(service) as client:
        service.respond_with(QUERY, CannedResponse(500))
        before = len(service.requests_to(QUERY))
        client.reload_expecting(UnexpectedResponseError)

        assert len(service.requests_to(QUERY)) - before <= 16
        assert settings[5].get() == 5


def test_a_declaration_that_gets_500_is_sent_again_at_once(service: FakeService) -> None:
    """The service may respond with status 500 if several processes declare a new setting at the same time."""
    setting = Setting("s", int, ["user"], 1)
    service.respond_with(DECLARE, CannedResponse(500, b"Internal Server Error"), times=1)

    with driven(service):
        assert len(service.requests_to(DECLARE)) == 2
        assert setting.explain().reason is Reason.SERVER_DEFAULT
