"""Efficiency of starts and refreshes: few requests, and work only for changes."""

import logging

import pytest

from heksher_client import Reason, Rule, Setting
from heksher_client._core.refresh.effects import MAX_CONCURRENT_REQUESTS, Limits, Reply, timed_out
from tests.support.driven import driven
from tests.support.fake_service import FakeService
from tests.support.log_records import summaries
from tests.support.service import CONTEXT_FEATURES, DECLARE, QUERY, CannedResponse

LIST = "GET /api/v1/settings"


def make_settings(count: int) -> list[Setting[int]]:
    return [Setting(f"s{i}", int, ["user"], i) for i in range(count)]


def declare_all(service: FakeService, count: int) -> None:
    """Declare the settings of `make_settings`, as a former run of the program did."""
    for i in range(count):
        service.declare(f"s{i}", "int", i, ["user"])


def test_settings_that_the_service_has_are_not_declared_again(service: FakeService) -> None:
    """After a restart, a program sends one request for the list of settings and the query."""
    declare_all(service, 30)
    service.add_rule("s7", 70, user="jim")
    settings = make_settings(30)
    with driven(service) as client:
        assert list(map(str, service.requests)) == [CONTEXT_FEATURES, LIST, QUERY]
        assert {setting.declaration for setting in client.status().settings.values()} == {"uptodate"}
        assert [setting.get(user="jim") for setting in settings] == [70 if i == 7 else i for i in range(30)]


def test_only_new_and_changed_settings_are_declared(service: FakeService) -> None:
    """The others are in the service's list with the same declaration."""
    declare_all(service, 30)
    settings = [*make_settings(29), Setting("s29", int, ["user"], 100, version="1.1"), Setting("new", int, ["user"], 1)]
    with driven(service):
        assert {request.json["name"] for request in service.requests_to(DECLARE)} == {"s29", "new"}
        assert settings[29].get() == 100


@pytest.mark.parametrize(("count", "lists"), [(MAX_CONCURRENT_REQUESTS, 0), (MAX_CONCURRENT_REQUESTS + 1, 1)])
def test_a_few_settings_are_declared_without_a_request_for_the_list(
    service: FakeService, count: int, lists: int
) -> None:
    """All can be declared concurrently, in the time that the request for the list would take."""
    settings = make_settings(count)
    with driven(service):
        assert len(service.requests_to(LIST)) == lists
        assert len(service.requests_to(DECLARE)) == len(settings)


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (
            timed_out(Limits(30.0)),
            "no response (TimeoutError: no complete response within 30 seconds, limited by the option request_timeout)",
        ),
        (CannedResponse(500), "the service responded with 500"),
        (CannedResponse(404), "the service responded with 404"),
        (
            CannedResponse.of({"settings": [{"name": "s0"}]}),
            """the service responded with 200, but a setting is incomplete: '{"settings": [{"name": "s0"}]}'""",
        ),
    ],
    ids=["timeout", "500", "404", "incomplete"],
)
def test_all_settings_are_declared_if_the_list_is_unavailable(
    service: FakeService, caplog: pytest.LogCaptureFixture, reply: Reply | CannedResponse, error: str
) -> None:
    """It may time out if the service has very many settings. It only saves requests; the start does not need it."""
    service.respond_with(LIST, reply)
    settings = make_settings(30)
    with caplog.at_level(logging.INFO, "heksher_client"), driven(service):
        assert len(service.requests_to(DECLARE)) == 30
        assert settings[3].get() == 3
    text = f"declaring all settings, as the service did not list those that it has: GET /api/v1/settings: {error}"
    assert summaries(caplog.records) == [("INFO", text, {})]


def test_a_service_that_fails_receives_no_further_declarations(service: FakeService) -> None:
    """After the first 60, which were sent before its first response was looked at. No query follows."""
    settings = make_settings(70)
    service.respond_with(DECLARE, CannedResponse(503))
    with driven(service) as client:
        assert len(service.requests_to(DECLARE)) == 60
        assert len(service.requests_to(QUERY)) == 0

        service.intercept = lambda request: None
        client.refresh()
        assert len(service.requests_to(DECLARE)) == 60 + 70
        assert settings[69].explain(user="jim").reason is Reason.SERVER_DEFAULT


def test_only_changed_settings_are_converted_again(service: FakeService) -> None:
    """A new validator is applied to all values of its setting."""
    stable, changing = Setting("stable", int, ["user"], 1), Setting("changing", int, ["user"], 1)
    converted: list[str] = []

    def record(value: int, _: Rule[int] | None, setting: Setting[int]) -> int:
        converted.append(setting.name)
        return value

    for setting in (stable, changing):
        setting.add_validator(record)
    with driven(service) as client:
        service.add_rule("changing", 2, user="jim")
        converted.clear()
        client.reload()
        assert converted == ["changing"] * 2  # its default and its rule
        assert changing.get(user="jim") == 2

        stable.add_validator(lambda value, *_: -value)
        client.reload()
        assert (stable.get(), changing.get()) == (-1, 1)


def test_a_new_setting_changes_only_one_of_many_queries(service: FakeService) -> None:
    """Settings are assigned to queries by name, not by position, so the ETags of the other queries remain valid."""
    settings = make_settings(120)

    def new_queries() -> dict[str, bool]:
        """Return whether each query since the last call was sent with an ETag, by the names in it."""
        queries = service.requests_to(QUERY)
        service.requests.clear()
        return {query.query["settings"]: "if-none-match" in query.headers for query in queries}

    with driven(service) as client:
        before = new_queries()
        settings.append(Setting("s50_more", int, ["user"], 1))  # sorted into the middle
        client.reload()
        changed = new_queries()
        client.reload()
        after = new_queries()

    assert len(before) == len(after) == 4
    assert len(before.keys() & after.keys()) == 3
    assert {names for names, has_etag in changed.items() if not has_etag} == after.keys() - before.keys()
    assert all(after.values())
