"""Lasting faults of one setting: all others are refreshed as usual, and it is tried again at times of its own."""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any
from weakref import ref

import pytest

from heksher_client import (
    DeclarationError,
    HeksherError,
    Reason,
    ServiceUnavailableError,
    Setting,
    State,
    UnexpectedResponseError,
)
from heksher_client._core.refresh import protocol
from heksher_client._core.refresh.effects import Limits, Oversized, Reply, timed_out
from heksher_client._core.settings.registry import registry
from heksher_client._core.settings.setting import entry_of
from tests.support.driven import HANGING, START, DrivenClient, driven
from tests.support.fake_service import UNREACHABLE, FakeService
from tests.support.log_records import summaries
from tests.support.service import CONTEXT_FEATURES, DECLARE, QUERY, CannedResponse, RecordedRequest

LIST = "GET /api/v1/settings"
LOOKUP = "GET /api/v1/settings/bad"
Intercept = Callable[[RecordedRequest], CannedResponse | Reply | None]


def declares_bad(request: RecordedRequest) -> bool:
    return str(request) == DECLARE and request.json["name"] == "bad"


def queries_bad(request: RecordedRequest) -> bool:
    return str(request) == QUERY and "bad" in request.query["settings"].split(",")


def refuse(reply: CannedResponse | Reply) -> Intercept:
    """Return a fault: this reply to the declaration."""
    return lambda request: reply if declares_bad(request) else None


def deny(request: RecordedRequest) -> CannedResponse | None:
    """The declaration is accepted, but queries for the setting are rejected."""
    return CannedResponse(404, b"the following are not setting names: ['bad']") if queries_bad(request) else None


ALIAS = "alias a is an alias of unrelated setting b"


def conflict(request: RecordedRequest) -> CannedResponse | None:
    """The service does not have the setting, as its alias belongs to another one."""
    return CannedResponse.of({"detail": ALIAS}, 409) if declares_bad(request) else deny(request)


def conflict_in_text(request: RecordedRequest) -> CannedResponse | None:
    """The same, with a response that is not JSON."""
    return CannedResponse(409, ALIAS.encode()) if declares_bad(request) else deny(request)


def too_large(request: RecordedRequest) -> CannedResponse | None:
    return CannedResponse(500) if queries_bad(request) else None


def no_answer(reply: CannedResponse | Reply) -> Intercept:
    """Return a fault: this reply to each query with the setting."""
    return lambda request: reply if queries_bad(request) else None


def answer(bad: Any) -> Intercept:
    """Return a fault: this part of the response to a query, or none."""

    def intercept(request: RecordedRequest) -> CannedResponse | None:
        if not queries_bad(request):
            return None
        response = {"good": {"default_value": 3, "rules": []}} if "good" in request.query["settings"] else {}
        return CannedResponse.of({"settings": response if bad is None else {**response, "bad": bad}})

    return intercept


FAULTS: dict[str, tuple[Intercept, float]] = {
    **{f"declaration-{status}": (refuse(CannedResponse(status, b"no")), 300) for status in (400, 401, 403, 404, 422)},
    **{f"declaration-{status}": (refuse(CannedResponse(status)), 60) for status in (301, 413, 429, 500, 502, 503)},
    "declaration-page": (refuse(CannedResponse(200, b"<html>")), 60),
    "declaration-outcome": (refuse(CannedResponse.of({"outcome": "new"})), 60),
    "declaration-unreachable": (refuse(UNREACHABLE), 60),
    "declaration-oversized": (refuse(Oversized(200, 10)), 60),
    "declaration-conflict": (conflict, 300),
    "declaration-conflict-in-text": (conflict_in_text, 300),
    "denied": (deny, 300),
    "too-large": (too_large, 60),
    **{f"query-{status}": (no_answer(CannedResponse(status)), 60) for status in (502, 503, 504)},
    **{f"query-{status}": (no_answer(CannedResponse(status)), 300) for status in (401, 403)},
    "query-page": (no_answer(CannedResponse(200, b"<html>")), 60),
    "query-timeout": (no_answer(HANGING), 60),
    "query-unreachable": (no_answer(UNREACHABLE), 60),
    "omitted": (answer(None), 60),
    "invalid": (answer(5), 60),
    "without-rules": (answer({"default_value": 1}), 60),
}
"""Each with the longest wait in seconds until the setting is tried again."""


class Recorder:
    """Records when a client refreshes all settings, and when it tries only the faulty one."""

    def __init__(self, client: DrivenClient, service: FakeService, fault: Intercept) -> None:
        self._client, self._fault = client, fault
        self.refreshes: list[float] = []
        self.retries: list[float] = []
        """The times of requests about the faulty setting alone."""
        self.is_faulty = True
        service.intercept = self._intercept

    def _intercept(self, request: RecordedRequest) -> CannedResponse | Reply | None:
        if str(request) == CONTEXT_FEATURES:
            self.refreshes.append(self._client.now)
        elif declares_bad(request) or request.query.get("settings") == "bad":
            self.retries.append(self._client.now)
        return self._fault(request) if self.is_faulty else None


@pytest.mark.unmeasured
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("is_new", [True, False])
def test_d7_all_other_settings_are_refreshed_as_usual(service: FakeService, fault: str, is_new: bool) -> None:
    """Each interval, whether the setting is new or was deleted, while the status says when it is tried again."""
    intercept, longest_wait = FAULTS[fault]
    good = Setting("good", int, ["user"], 1)
    bad = None if is_new else Setting("bad", int, ["user"], 1)
    with driven(service, update_interval=10) as client:
        recorder = Recorder(client, service, intercept)
        if bad is None:
            bad = Setting("bad", int, ["user"], 1)
        else:
            service.delete("bad")
        client.advance(0)
        client.advance(1200)
        assert len(recorder.refreshes) >= 114
        # A retry may take half a second, as a 500 may be due to a race. Until a query without a response was split, the
        # refresh failed for all settings.
        assert max(after - before for before, after in pairwise(recorder.refreshes[2:])) <= 11
        assert 0 < (client.status().next_attempt or 0) <= 10
        status = client.status().settings
        assert (status["good"].problem, status["good"].next_attempt) == (None, None)
        assert status["bad"].problem
        assert 0 < (status["bad"].next_attempt or 0) <= longest_wait
        assert client.status().state is State.FAILING
        if fault not in ("omitted", "invalid", "without-rules"):
            service.add_rule("good", 2, user="jim")
            client.advance(10)
            assert good.get(user="jim") == 2
        assert len(recorder.retries) <= 3 * (1300 / longest_wait + 8)

        recorder.is_faulty = False
        client.advance(longest_wait + 10)  # A retry may just be waiting for a response.
        assert client.status().state is State.FRESH
        assert bad.explain(user="jim").reason is Reason.SERVER_DEFAULT
        assert client.status().settings["bad"].problem is None
        assert client.status().settings["bad"].next_attempt is None


def test_d7_a_retry_needs_no_other_requests(service: FakeService) -> None:
    """Only the one declaration, and after it was accepted a query for this setting. The others keep their interval."""
    _good, bad = Setting("good", int, ["user"], 1), Setting("bad", int, ["user"], 1)
    service.declare("good", "int", 1, ["user"])
    service.declare("bad", "int", 1, ["user"])
    service.add_rule("bad", 2, user="jim")
    service.intercept = refuse(CannedResponse(422, b"no"))
    with driven(service, update_interval=3600) as client:
        service.requests.clear()
        client.advance(400)
        assert [request.path for request in service.requests] == ["/api/v1/settings/declare"] * 3  # after 30, 90, 210
        assert client.outcomes == []
        assert client.status().next_attempt == 3200
        service.intercept = lambda request: None
        service.requests.clear()
        client.advance(50)
        assert [(str(request), request.query.get("settings")) for request in service.requests] == [
            (DECLARE, None),
            (QUERY, "bad"),
        ]
        assert (client.outcomes, client.status().state, client.status().failures) == ([None], State.FRESH, 0)
        assert bad.get(user="jim") == 2
        assert client.status().next_attempt == 3150
        assert client.now == START + 450


def test_d7_a_setting_that_recovers_is_reported(service: FakeService, caplog: pytest.LogCaptureFixture) -> None:
    """To the callbacks for changes and for refreshes, and to the log, which had the fault once."""
    _good, bad = Setting("good", int, ["user"], 1), Setting("bad", int, ["user"], 1)
    service.intercept = refuse(CannedResponse(422, b"no"))
    names: list[str] = []
    changed: list[tuple[str, ...]] = []
    caplog.set_level("INFO", "heksher_client")

    def record_refresh(refresh: Any) -> None:
        changed.append(refresh.changed)

    def record_change(change: Any) -> None:
        names.append(change.setting.name)

    with driven(service) as client:
        client.on_change(record_change)
        client.on_refresh(record_refresh)
        client.advance(100)
        assert changed == []
        service.declare("bad", "int", 5, ["user"])
        service.declare("bad", "int", 5, ["user"], version="1.1")
        service.intercept = lambda request: None
        client.advance(200)
        assert (names, changed, bad.get(user="jim")) == (["bad"], [("bad",)], 5)
    text = "refresh failed: the service refused the declaration of setting bad: 'no'"
    messages = [(level, message) for level, message, _ in summaries(caplog.records) if "declaration of" in message]
    assert messages[0] == ("ERROR", text)
    assert [message for level, message in messages if level == "ERROR"] == [text]
    assert "the refresh succeeds again" in caplog.text


@pytest.mark.parametrize("headers", [{"retry-after": "200"}, {}])
@pytest.mark.parametrize("status", [422, 429, 503])
def test_d7_retry_after_is_that_setting_s(service: FakeService, status: int, headers: dict[str, str]) -> None:
    """The others do not wait."""
    _good, _bad = Setting("good", int, ["user"], 1), Setting("bad", int, ["user"], 1)
    service.intercept = refuse(CannedResponse(status, headers=headers))
    with driven(service, update_interval=20) as client:
        wait = 200 if headers else 30 if status == 422 else 1
        assert client.status().settings["bad"].next_attempt == wait
        assert client.status().next_attempt == 20


def test_d7_changes_are_still_followed(service: FakeService) -> None:
    """They arrive at once, and cost one refresh each."""
    good, _bad = Setting("good", int, ["user"], 1), Setting("bad", int, ["user"], 1)
    service.offers_changes = True
    service.intercept = refuse(CannedResponse(404, b"no"))
    with driven(service) as client:
        client.advance(100)
        assert client.status().is_following
        service.requests.clear()
        for value in (2, 3):
            service.add_rule("good", value, user=f"u{value}")
            client.advance(0)
            assert good.get(user=f"u{value}") == value
        assert [str(request) for request in service.requests] == [CONTEXT_FEATURES, QUERY] * 2


@pytest.mark.slow
@pytest.mark.unmeasured
@pytest.mark.parametrize("random", [0.0, 0.5, 1.0])
def test_d7_many_refused_settings_are_tried_again_together(service: FakeService, random: float) -> None:
    """Ever more rarely. Ten declarations are sent at once, like all others."""
    _settings = [Setting(f"bad{i}", int, ["planet"], 1) for i in range(100)]
    good = Setting("good", int, ["user"], 1)
    moments: set[float] = set()

    def record(request: RecordedRequest) -> None:
        if str(request) == DECLARE:
            moments.add(client.now)

    client = DrivenClient(service, update_interval=60, jitter=0.1)
    client.random = random
    client.set_defaults(user="jim")
    with pytest.raises(DeclarationError):
        client.start()
    service.intercept = record
    client.advance(3600)
    count = len(service.requests_to(DECLARE))
    assert len(moments) <= 3600 / 150 + 4
    assert count == 101 + 100 * len(moments)
    assert len(service.requests_to(LIST)) == 1 + len(moments)
    service.add_rule("good", 2, user="jim")
    client.advance(67)
    assert good.get() == 2
    client.close()


def test_d7_a_program_whose_only_setting_is_refused_is_retried_as_a_whole(service: FakeService) -> None:
    """There are no others. The wrong URL of a service looks like this as well."""
    _bad = Setting("bad", int, ["user"], 1)
    service.intercept = refuse(CannedResponse(404, b"no"))
    with driven(service, update_interval=10) as client:
        client.refresh(3)
        assert client.waits == [30, 60, 120]
        assert client.status().settings["bad"].next_attempt == client.status().next_attempt == 240
        service.intercept = lambda request: None
        client.refresh()
        assert client.status().state is State.FRESH


def test_d7_a_setting_that_is_not_sent_after_others_failed_is_tried_again_soon(service: FakeService) -> None:
    """If all declarations of a batch fail, no more are sent, but settings that the service has are refreshed."""
    good = Setting("good", int, ["user"], 1)
    with driven(service) as client:
        service.respond_with(DECLARE, CannedResponse(503))
        late = [Setting(f"late{i:02}", int, ["user"], 1) for i in range(70)]
        service.requests.clear()
        service.add_rule("good", 2, user="jim")
        client.advance(0)
        assert len(service.requests_to(DECLARE)) == 60
        assert good.get(user="jim") == 2
        assert "503" in (client.status().settings["late69"].problem or "")
        service.intercept = lambda request: None
        client.advance(1)
        assert {setting.explain(user="jim").reason for setting in late} == {Reason.SERVER_DEFAULT}
        assert client.status().state is State.FRESH


def test_d7_reload_tries_everything_again(service: FakeService) -> None:
    """And raises what still fails."""
    _good, bad = Setting("good", int, ["user"], 1), Setting("bad", int, ["user"], 1)
    service.intercept = refuse(CannedResponse(422, b"no"))
    with driven(service) as client:
        assert client.reload_expecting(DeclarationError).setting == "bad"
        assert client.status().settings["bad"].next_attempt == 60
        service.intercept = lambda request: None
        client.reload()
        assert bad.explain(user="jim").reason is Reason.SERVER_DEFAULT


def test_d7_a_retry_without_a_response_to_its_query_is_repeated(service: FakeService) -> None:
    """The declaration was accepted, so only the query is."""
    _good, bad = Setting("good", int, ["user"], 1), Setting("bad", int, ["user"], 1)
    service.intercept = refuse(CannedResponse(422, b"no"))
    with driven(service) as client:
        service.respond_with(QUERY, UNREACHABLE, times=1)
        client.advance(30)
        assert "no response" in (client.status().settings["bad"].problem or "")
        assert client.status().settings["bad"].declaration == "created"
        client.advance(2)
        assert bad.explain(user="jim").reason is Reason.SERVER_DEFAULT


def test_d7_a_retry_ends_before_the_next_refresh(service: FakeService) -> None:
    """A declaration without a response does not delay the others. It has at least a second."""
    _good, _bad = Setting("good", int, ["user"], 1), Setting("bad", int, ["user"], 1)
    service.intercept = refuse(CannedResponse(503))
    for interval, seconds in ((10, 9.0), (1.5, 1.0)):
        with driven(service, update_interval=interval, request_timeout=30) as client:
            client.now += 1.0
            effect = next(client.session.refresh())
            limits: Limits = getattr(effect, "limits")  # noqa: B009 - an exchange
            assert (limits.total_seconds, timed_out(limits).limit) == (seconds, "limited until the next refresh is due")


def test_d7_a_dropped_setting_is_not_tried_again(service: FakeService) -> None:
    """Its time passes without any request."""
    _good = Setting("good", int, ["user"], 1)
    bad = Setting("bad", int, ["planet"], 1)
    with driven(service) as client:
        service.requests.clear()
        registry._entries.pop(ref(entry_of(bad)))  # as if it was garbage collected
        client.outcomes.clear()
        client.advance(1000)
        assert service.requests == []
        assert "bad" not in client.status().settings


def test_d7_a_defect_in_the_rules_of_one_setting_affects_that_one(
    service: FakeService, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is logged once with its traceback."""
    good, bad = Setting("good", int, ["user"], 1), Setting("bad", int, ["user"], 1)
    decode = "heksher_client._core.refresh.decoding.protocol.parse_queried_setting"
    with driven(service, update_interval=10) as client:
        service.add_rule("good", 2, user="jim")
        service.add_rule("bad", 2, user="jim")
        with monkeypatch.context() as patched:
            parse = protocol.parse_queried_setting
            patched.setattr(decode, lambda name, raw: 1 / 0 if name == "bad" else parse(name, raw))
            client.reload_expecting(ZeroDivisionError)
            client.advance(50)
            assert (good.get(user="jim"), bad.get(user="jim")) == (2, 1)
            assert client.status().settings["bad"].problem == "division by zero"
            assert (client.status().next_attempt or 0) <= 10
        client.advance(60)
        assert (bad.get(user="jim"), client.status().state) == (2, State.FRESH)
    tracebacks = [record for record in caplog.records if record.exc_info]
    assert [record.getMessage() for record in tracebacks] == ["setting bad cannot be updated"]


@pytest.mark.parametrize("fault", [conflict, conflict_in_text])
def test_d7_a_denied_setting_says_what_its_declaration_conflicts_with(service: FakeService, fault: Intercept) -> None:
    """The text of the 409, which has no outcome."""
    _good, _bad = Setting("good", int, ["user"], 1), Setting("bad", int, ["user"], 1)
    service.intercept = fault
    client = DrivenClient(service, raises_at_start=True)
    with pytest.raises(DeclarationError) as raised:
        client.start()
    client.close()
    assert str(raised.value) == f"the service denies setting bad: '{ALIAS}'"


def test_d7_the_queries_for_the_others_do_not_include_a_faulty_setting(service: FakeService) -> None:
    """So an unmodified response is not sent again with each refresh."""
    _good, _bad = Setting("good", int, ["user"], 1), Setting("bad", int, ["user"], 1)
    service.respond_with(QUERY, lambda request: answer(5)(request) if queries_bad(request) else None)
    with driven(service, update_interval=100) as client:
        client.advance(100)
        service.requests.clear()
        client.advance(100)
        (query,) = [request for request in service.requests_to(QUERY) if request.query["settings"] != "bad"]
        assert query.query["settings"] == "good"
        assert "if-none-match" in query.headers


@pytest.mark.unmeasured
def test_d7_many_omitted_settings_do_not_cost_requests_with_each_refresh(service: FakeService) -> None:
    """Each may have been renamed, which takes a request to find out."""
    many = [Setting(f"s{i}", int, ["user"], i) for i in range(50)]
    good = Setting("good", int, ["user"], 1)
    with driven(service, update_interval=1) as client:
        empty = CannedResponse.of({"settings": {"good": {"default_value": 2, "rules": []}}})
        service.respond_with(QUERY, empty)
        service.requests.clear()
        client.advance(300)
        lookups = [request for request in service.requests if request.path.startswith("/api/v1/settings/")]
        assert len(lookups) <= len(many) * (300 / 60 + 7)
        assert len(service.requests_to(CONTEXT_FEATURES)) >= 290
        assert good.get(user="jim") == 2


def test_d7_several_settings_that_are_too_large_affect_themselves_only(service: FakeService) -> None:
    """Even if the first queries are for them, so that the client gives up once, as the service may be failing."""
    several = [Setting(f"s{i:02}", int, ["user"], i) for i in range(20)]

    def reject(request: RecordedRequest) -> CannedResponse | None:
        return CannedResponse(500) if {"s00", "s01"} & {*request.query["settings"].split(",")} else None

    service.respond_with(QUERY, reject)
    with driven(service, update_interval=10) as client:
        assert client.status().next_attempt == 1
        client.advance(1)
        assert [one.explain(user="jim").reason is Reason.SERVER_DEFAULT for one in several] == [False] * 2 + [True] * 18
        assert client.status().next_attempt == 10
        problems = {name: setting.problem for name, setting in client.status().settings.items() if setting.problem}
        text = "cannot be queried: GET /api/v1/query: the service responded with 500"
        assert problems == {name: f"setting {name} {text}" for name in ("s00", "s01")}
        service.intercept = lambda request: None
        client.advance(60)
        assert client.status().state is State.FRESH


def test_d7_a_defect_in_a_retry_does_not_stop_refreshes(
    service: FakeService, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is logged with its traceback, and the setting is tried again."""
    _good, bad = Setting("good", int, ["user"], 1), Setting("bad", int, ["user"], 1)
    service.respond_with(DECLARE, refuse(CannedResponse(422, b"no")), times=2)
    with driven(service) as client:
        with monkeypatch.context() as patched:
            patched.setattr(client.session._refresher.states, "by_canonical_name", lambda entries: 1 / 0)
            client.advance(30)
        assert client.status().settings["bad"].problem == "division by zero"
        client.advance(2)
        assert bad.explain(user="jim").reason is Reason.SERVER_DEFAULT
    tracebacks = [record.getMessage() for record in caplog.records if record.exc_info]
    assert tracebacks == ["a refresh failed in an unforeseen way"]


def test_d7_an_invalid_response_of_the_service_to_everything_is_not_that_of_a_setting(service: FakeService) -> None:
    """The client retries as a whole, with the waits of the client."""
    _settings = [Setting(name, int, ["user"], 1) for name in ("a", "b")]
    with driven(service, update_interval=60) as client:
        for replies, waits in (({QUERY: 503}, [1, 2]), ({QUERY: 404, DECLARE: 503}, [4, 8]), ({DECLARE: 503}, [16])):
            service.intercept = lambda request, replies=replies: (  # type: ignore[misc]
                CannedResponse(replies[str(request)]) if str(request) in replies else None
            )
            for wait in waits:
                client.session.refresh_soon()
                client.refresh()
                assert client.status().next_attempt == wait, replies
                assert isinstance(client.outcomes[-1], HeksherError)


# -- queries without a response ----------------------------------------------------------------------------------------


def hang(service: FakeService, names: set[str]) -> None:
    """From now on, there is no response in time to queries for these settings, and to declarations of them."""

    def intercept(request: RecordedRequest) -> Reply | None:
        is_declaration = str(request) == DECLARE
        asked = {request.json["name"]} if is_declaration else set(request.query.get("settings", "").split(","))
        return HANGING if names & asked else None

    service.intercept = intercept


def refreshes_of(client: DrivenClient, service: FakeService, seconds: float) -> list[float]:
    """Let time pass. Return the times of the refreshes."""
    times: list[float] = []
    respond = service.intercept

    def record(request: RecordedRequest) -> Any:
        if str(request) == CONTEXT_FEATURES:
            times.append(client.now)
        return respond(request)

    service.intercept = record
    client.advance(seconds)
    service.intercept = respond
    return times


def longest(times: list[float]) -> float:
    return max(after - before for before, after in pairwise(times))


def query_sizes(service: FakeService) -> list[int]:
    return [len(request.query["settings"].split(",")) for request in service.requests_to(QUERY)]


@pytest.mark.parametrize("is_known", [True, False])
def test_d7_a_setting_without_a_response_in_time_is_found(service: FakeService, is_known: bool) -> None:
    """Each refresh takes the time for one response at most: the next one sends ten queries, and those for the settings
    in the one that fails have times of their own. The others wait for two refreshes at most."""
    many = [Setting(f"s{i:02}", int, ["user"], 0) for i in range(45)]
    bad = Setting("s20", int, ["user"], 0) if not is_known else many[20]
    with driven(service, update_interval=60) as client:
        for setting in many:
            service.add_rule(setting.name, 5, user="jim")
        hang(service, {bad.name})
        service.requests.clear()
        start = client.now
        client.reload_expecting(ServiceUnavailableError)
        assert (query_sizes(service), client.now - start) == ([45], 30)
        assert client.session.wait() == 1

        client.refresh()
        assert (query_sizes(service)[1:], client.now - start) == ([5] * 9, 61)
        assert [setting.get(user="jim") for setting in many].count(5) == 40
        status = client.status()
        assert (status.state, client.session.wait(), status.next_attempt) == (State.FAILING, 1, 60)
        problem = status.settings["s22"].problem or ""
        assert problem.startswith("setting s20 and 4 more cannot be queried: GET /api/v1/query: no response")

        client.refresh()
        assert query_sizes(service)[10:] == [1] * 5
        assert [setting.get(user="jim") for setting in many].count(5) == 44
        assert [name for name, one in client.status().settings.items() if one.problem] == [bad.name]


def test_d7_a_setting_whose_queries_are_refused_is_found_at_once(service: FakeService) -> None:
    """By a firewall for web applications, say. A refusal takes no time, so the same refresh sends ten queries."""
    many = [Setting(f"s{i:02}", int, ["user"], 0) for i in range(45)]
    with driven(service, update_interval=60) as client:
        for setting in many:
            service.add_rule(setting.name, 5, user="jim")
        service.intercept = lambda r: CannedResponse(403) if "s20" in r.query.get("settings", "") else None
        service.requests.clear()
        client.reload_expecting(UnexpectedResponseError)
        assert query_sizes(service) == [45] + [5] * 9
        assert [setting.get(user="jim") for setting in many].count(5) == 40
        client.advance(1)
        assert query_sizes(service)[10:] == [1] * 5
        assert [setting.get(user="jim") for setting in many].count(5) == 44
        assert [name for name, one in client.status().settings.items() if one.problem] == ["s20"]
        assert longest(refreshes_of(client, service, 1000)) <= 60


def test_d7_queries_that_fail_for_different_reasons_are_split_by_the_next_refresh(service: FakeService) -> None:
    """One is refused, and the other one has no response in time."""
    _many = [Setting(f"s{i:02}", int, ["user"], 0) for i in range(60)]
    with driven(service, update_interval=60) as client:
        replies: Iterator[CannedResponse | Reply] = iter([CannedResponse(403), HANGING])
        service.intercept = lambda request: next(replies, None) if str(request) == QUERY else None
        service.requests.clear()
        client.reload_expecting(HeksherError)
        assert len(query_sizes(service)) == 2
        client.refresh()
        assert max(query_sizes(service)[2:]) <= 6
        assert client.status().state is State.FRESH


def test_d7_a_setting_that_was_found_delays_no_refresh(service: FakeService) -> None:
    """Refreshes do not include it until a query for it alone has a response."""
    many = [Setting(f"s{i:02}", int, ["user"], 0) for i in range(10)]
    with driven(service, update_interval=10) as client:
        hang(service, {"s03"})
        client.advance(100)
        assert longest(refreshes_of(client, service, 1000)) <= 11
        # A failure of everything does not make the setting harmful again.
        hangs, service.intercept = service.intercept, lambda request: UNREACHABLE
        client.refresh(3)
        service.intercept = hangs
        service.add_rule("s04", 4, user="jim")
        client.refresh()
        assert many[4].get(user="jim") == 4
        hang(service, set())
        client.advance(60)
        assert client.status().state is State.FRESH


def test_d7_a_reload_includes_a_setting_without_a_response(service: FakeService) -> None:
    """In a query of its own, so the others are refreshed."""
    good, _bad = Setting("good", int, ["user"], 1), Setting("bad", int, ["user"], 1)
    with driven(service) as client:
        hang(service, {"bad"})
        client.reload_expecting(ServiceUnavailableError)
        client.refresh()
        service.add_rule("good", 2, user="jim")
        service.requests.clear()
        assert "setting bad cannot be queried" in str(client.reload_expecting(ServiceUnavailableError))
        assert [request.query["settings"] for request in service.requests_to(QUERY)] == ["good", "bad"]
        assert good.get(user="jim") == 2


@pytest.mark.parametrize(
    ("reply", "whole", "splits"),
    [(HANGING, 44, 6), (CannedResponse(503), 44, 6), (CannedResponse(403), 50, 6), (CannedResponse(429), 50, 0)],
    ids=["timeout", "503", "403", "429"],
)
def test_d7_a_service_without_any_response_to_queries_gets_few_more(
    service: FakeService, reply: CannedResponse | Reply, whole: int, splits: int
) -> None:
    """It is asked for parts after the first, second, fourth... failure only, and not if it limits requests. After a
    refusal, that is in the same refresh."""
    _many = [Setting(f"s{i:02}", int, ["user"], 0) for i in range(20)]
    with driven(service, update_interval=60) as client:
        service.respond_with(QUERY, reply)
        service.requests.clear()
        client.refresh(50)
        assert query_sizes(service).count(20) == whole
        assert query_sizes(service).count(2) == 10 * splits
        assert len(service.requests) == 50 + len(query_sizes(service))
        service.intercept = lambda request: None
        client.refresh(2)
        assert query_sizes(service)[-1] == 20


def test_d7_a_service_without_any_response_gets_no_more_requests(service: FakeService) -> None:
    """One for each attempt, or two if something responds instead of it."""
    _many = [Setting(f"s{i:02}", int, ["user"], 0) for i in range(20)]
    with driven(service, update_interval=60) as client:
        for reply, count in ((HANGING, 1), (UNREACHABLE, 1), (CannedResponse(502), 2)):
            service.intercept = lambda request, reply=reply: reply  # type: ignore[misc]
            service.requests.clear()
            client.refresh(20)
            assert len(service.requests) == 20 * count


def test_d7_a_part_without_a_response_does_not_affect_the_others(service: FakeService) -> None:
    """Its settings are queried again after a second, and a single failure costs nothing else."""
    many = [Setting(f"s{i:03}", int, ["user"], 0) for i in range(120)]
    with driven(service, update_interval=60) as client:
        for setting in many:
            service.add_rule(setting.name, 5, user="jim")
        service.respond_with(QUERY, CannedResponse(503), times=1)
        client.reload_expecting(UnexpectedResponseError)
        served = [setting.get(user="jim") for setting in many].count(5)
        assert 80 < served < 100
        service.requests.clear()
        client.advance(1)
        assert {setting.get(user="jim") for setting in many} == {5}
        assert CONTEXT_FEATURES not in map(str, service.requests)
        assert client.status().state is State.FRESH
        client.refresh()
        client.refresh()
        assert len(query_sizes(service)[-4:]) == 4
        assert min(query_sizes(service)[-4:]) > 20


def test_d7_a_declaration_without_a_response_delays_the_others_once(service: FakeService) -> None:
    """Then it is tried again apart from the refreshes, until the next one is due."""
    good = Setting("good", int, ["user"], 1)
    with driven(service, update_interval=10) as client:
        _bad = Setting("bad", int, ["user"], 1)
        hang(service, {"bad"})
        start = client.now
        client.refresh()
        assert client.now - start == 30
        service.add_rule("good", 2, user="jim")
        assert longest(refreshes_of(client, service, 500)) <= 11
        assert good.get(user="jim") == 2
        assert client.status().settings["bad"].next_attempt


def test_d7_a_retry_gives_up_after_two_settings(service: FakeService) -> None:
    """Like a refresh. The next one is a back-off later."""
    _many = [Setting(f"s{i:03}", int, ["user"], 0) for i in range(120)]
    with driven(service) as client:
        service.respond_with(QUERY, CannedResponse(503), times=1)
        client.reload_expecting(UnexpectedResponseError)
        failed = {name for name, one in client.status().settings.items() if one.problem}
        service.respond_with(QUERY, CannedResponse(500))
        service.requests.clear()
        client.advance(1)
        assert query_sizes(service)[10:] == [1, 3, 1]
        assert {name for name, one in client.status().settings.items() if one.problem} == failed
        assert {client.status().settings[name].next_attempt for name in failed} == {2}
        service.intercept = lambda request: None
        client.advance(2)
        assert client.status().state is State.FRESH


def test_d7_a_retry_of_the_only_setting_that_is_left_fails(service: FakeService) -> None:
    """It is tried again, as if there were others."""
    good, bad = Setting("good", int, ["user"], 1), Setting("bad", int, ["user"], 1)
    service.intercept = refuse(CannedResponse(503))
    with driven(service) as client:
        registry._entries.pop(ref(entry_of(good)))  # as if it was garbage collected
        client.advance(1)
        assert client.status().settings["bad"].next_attempt == 2
        service.intercept = lambda request: None
        client.advance(2)
        assert bad.explain(user="jim").reason is Reason.SERVER_DEFAULT
