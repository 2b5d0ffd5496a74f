"""The lifecycle of a client, driven by hand: start, declarations, refreshes, close; and reads in between."""

import gc
import logging
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import pytest

from heksher_client import (
    TRACK_ALL,
    ClientNotRunningError,
    DeclarationError,
    HeksherError,
    MissingContextError,
    Reason,
    Refresh,
    Rule,
    ServiceUnavailableError,
    Setting,
    State,
    UnexpectedResponseError,
    UnknownContextError,
)
from heksher_client._core.refresh.waiters import Waiter
from heksher_client._core.settings.registry import registry
from heksher_client.testing import SyncStubHeksherClient
from tests.core.settings.test_types import Letters
from tests.support.driven import DrivenClient, driven
from tests.support.fake_service import FakeService
from tests.support.last_known_good import MemoryFile, reset_settings
from tests.support.log_records import summaries
from tests.support.service import CONTEXT_FEATURES, DECLARE, QUERY, CannedResponse, RecordedRequest

# -- reads -------------------------------------------------------------------------------------------------------------


def test_a_read_uses_constants_context_variables_and_arguments(service: FakeService) -> None:
    """Arguments override the client's defaults, which can be set late."""
    user: ContextVar[str] = ContextVar("user")
    setting = Setting("s", int, ["environment", "user", "theme"], 0)
    with driven(service) as client:
        service.add_rule("s", 1, environment="prod", user="jim")
        service.add_rule("s", 2, environment="prod", user="john")
        client.reload()
        client.set_defaults(environment="prod", user=user)

        token = user.set("jim")
        assert setting.get() == 1
        assert setting.get(user="john") == 2
        assert setting.get(environment="dev") == 0
        user.reset(token)


def test_explain_returns_the_winning_rule_and_the_outranked_rules(service: FakeService) -> None:
    """A resolution has the value, the reason, the rule with its id and conditions, and the others by priority."""
    setting = Setting("s", int, ["environment", "user", "theme"], 0)
    with driven(service) as client:
        weakest = service.add_rule("s", 1, environment="prod")
        middle = service.add_rule("s", 2, environment="prod", user="jim")
        winner = service.add_rule("s", 3, theme="dark")
        client.reload()
        resolution = setting.explain(environment="prod", user="jim", theme="dark")

    assert (resolution.value, resolution.reason) == (3, Reason.RULE)
    assert resolution.rule == Rule({"theme": "dark"}, 3, winner)
    assert resolution.outranked == (
        Rule({"environment": "prod", "user": "jim"}, 2, middle),
        Rule({"environment": "prod"}, 1, weakest),
    )
    assert dict(resolution.context) == {"environment": "prod", "user": "jim", "theme": "dark"}


@pytest.mark.parametrize("value", [["x"], 5, b"x"])
def test_a_context_value_that_is_not_a_string_is_an_error(service: FakeService, value: Any) -> None:
    """It is an error with and without rules, as the value could never match."""
    setting = Setting("s", int, ["user"], 1)
    with driven(service), pytest.raises(TypeError, match="setting s: the value of context feature user must be a str"):
        setting.get(user=value)


def test_an_unknown_context_feature_is_an_error(service: FakeService) -> None:
    """A default or a tracked value of an unknown feature would never have an effect."""
    client = DrivenClient(service)
    for use in (client.set_defaults, client.track_contexts):
        with pytest.raises(UnknownContextError) as raised:
            use(planet="mars")
        assert str(raised.value) == "this client has no context feature planet; it has: environment, user, theme"
    with pytest.raises(TypeError, match="user"):
        client.set_defaults(user=5)


# -- context features and tracking -------------------------------------------------------------------------------------


def test_the_order_of_context_features_is_that_of_the_service(
    service: FakeService, caplog: pytest.LogCaptureFixture
) -> None:
    """A client with another order logs a warning, and uses the order of the service."""
    setting = Setting("s", int, ["theme", "user"], 0)
    with driven(service, context_features=("theme", "user", "environment")) as client:
        service.add_rule("s", 1, user="jim")
        service.add_rule("s", 2, theme="dark")
        client.reload()
        assert setting.get(user="jim", theme="dark") == 2
    assert summaries(caplog.records) == [
        (
            "WARNING",
            "the service has the context features environment, user, theme; the client had theme, user, environment: "
            "the order of the service is used",
            {
                "features_in_service": ["environment", "user", "theme"],
                "features_in_client": ["theme", "user", "environment"],
            },
        )
    ]


@pytest.mark.parametrize("listed", [("environment", "user"), ("user",), ("environment", "user", "theme")])
def test_a_client_may_list_some_of_the_context_features(
    service: FakeService, caplog: pytest.LogCaptureFixture, listed: tuple[str, ...]
) -> None:
    """In the order of the service. Later changes of it are logged."""
    _setting = Setting("s", int, ["user"], 0)
    with driven(service, context_features=listed) as client:
        assert not caplog.records
        service.features = ["environment", "user", "theme", "planet"]
        client.reload()
    assert len(caplog.records) == 1


def test_without_the_services_context_features_the_clients_order_is_used(
    service: FakeService, caplog: pytest.LogCaptureFixture
) -> None:
    """They are requested again at each refresh. The error has what the service responded."""
    setting = Setting("s", int, ["user"], 0)
    service.respond_with(CONTEXT_FEATURES, CannedResponse.of({"context_features": [1]}), times=1)
    with driven(service) as client:
        service.add_rule("s", 1, user="jim")
        client.reload()
        client.reload()
        assert setting.get(user="jim") == 1
        assert len(service.requests_to(CONTEXT_FEATURES)) == 3
    assert "order of the context features is not known" in caplog.text


def test_a_new_order_of_context_features_changes_priorities(service: FakeService) -> None:
    """The new order applies even if the responses to queries are unchanged."""
    setting = Setting("s", int, ["user", "theme"], 0)
    with driven(service) as client:
        service.add_rule("s", 1, user="jim")
        service.add_rule("s", 2, theme="dark")
        client.reload()
        assert setting.get(user="jim", theme="dark") == 2
        moved = CannedResponse.of({"context_features": ["environment", "theme", "user"]})
        service.respond_with(CONTEXT_FEATURES, moved)
        client.reload()
        assert setting.get(user="jim", theme="dark") == 1


def test_a_context_feature_that_the_service_lacks_is_an_error(
    service: FakeService, caplog: pytest.LogCaptureFixture
) -> None:
    """The start fails with it, and each call that waits; the rules are applied. It ends when the service has it."""
    setting = Setting("s", int, ["user"], 0)
    service.declare("s", "int", 0, ["user"])
    service.add_rule("s", 1, user="jim")
    client = DrivenClient(service, update_interval=60, context_features=("user", "planet", "galaxy"))
    with pytest.raises(UnknownContextError) as raised:
        client.start()
    assert str(raised.value) == "the service has no context feature planet, galaxy; it has: environment, user, theme"
    assert setting.get(user="jim") == 1
    assert (client.status().state, client.status().last_error) == (State.FAILING, str(raised.value))
    client.refresh()
    service.add_rule("s", 2, user="john")
    client.reload_expecting(UnknownContextError)
    assert setting.get(user="john") == 2
    assert client.outcomes == [raised.value, client.outcomes[-1]], "not reported by the refresh in between"
    service.features = ["environment", "user", "planet", "theme", "galaxy"]
    client.refresh()
    assert (client.status().state, client.outcomes[-1]) == (State.FRESH, None)
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == [
        f"refresh failed: {raised.value}"
    ]
    client.close()


def test_the_context_features_can_be_those_of_the_service(
    service: FakeService, caplog: pytest.LogCaptureFixture
) -> None:
    """Their order is that of the service, and the names that the program uses are checked when they are known."""
    setting = Setting("s", int, ["user", "theme"], 0)
    service.declare("s", "int", 0, ["user", "theme"])
    service.add_rule("s", 1, user="jim")
    service.add_rule("s", 2, theme="dark")
    with driven(service, context_features=None) as client:
        assert client.session.context_features == ("environment", "user", "theme")
        assert setting.get(user="jim", theme="dark") == 2
        client.set_defaults(user="jim", theme="light")
        assert setting.get() == 1
        for use in (client.set_defaults, client.track_contexts):
            with pytest.raises(UnknownContextError, match=r"^the service has no context feature planet; it has: env"):
                use(planet="mars")
        assert not caplog.records, "the first order is not a change"
        service.features = ["environment", "theme", "user", "planet"]
        client.reload()
        assert setting.get(theme="dark") == 1
        client.set_defaults(planet="mars")
        assert summaries(caplog.records)[0][2] == {
            "features_in_service": ["environment", "theme", "user", "planet"],
            "features_in_client": ["environment", "user", "theme"],
        }
        service.features = ["environment", "theme", "user"]
        error = client.reload_expecting(UnknownContextError)
        assert str(error) == "the service has no context feature planet; it has: environment, theme, user"


def test_unknown_names_that_were_used_before_the_start_are_an_error_of_the_start(service: FakeService) -> None:
    """Without a list of context features. All other defaults apply."""
    setting = Setting("s", int, ["user"], 0)
    service.declare("s", "int", 0, ["user"])
    service.add_rule("s", 1, user="jim")
    client = DrivenClient(service, context_features=None)
    assert client.session.context_features is None
    client.set_defaults(user="jim", planet="mars")
    client.track_contexts(user="jim", galaxy=TRACK_ALL)
    with pytest.raises(ValueError, match="'has-dash' is not a valid name"):
        client.set_defaults(**{"has-dash": "x"})
    with pytest.raises(UnknownContextError, match=r"^the service has no context feature planet, galaxy; it has: "):
        client.start()
    assert setting.get() == 1
    client.close()


@pytest.mark.parametrize("is_stored", [False, True])
def test_a_start_without_the_service_and_without_context_features(service: FakeService, *, is_stored: bool) -> None:
    """Settings have their declared defaults, or the last known good, with the order of the service in it."""
    setting = Setting("s", int, ["user", "theme"], 0)
    service.declare("s", "int", 0, ["user", "theme"])
    path = MemoryFile()
    service.add_rule("s", 1, user="jim")
    service.add_rule("s", 2, theme="dark")
    if is_stored:
        with driven(service, last_known_good=path, context_features=None):
            pass
        reset_settings()
    service.is_running = False
    with driven(service, last_known_good=path, context_features=None) as client:
        assert client.session.context_features == (("environment", "user", "theme") if is_stored else None)
        assert setting.get(user="jim", theme="dark") == (2 if is_stored else 0)
        service.is_running = True
        client.reload()
        assert setting.get(user="jim", theme="dark") == 2


def test_rules_that_were_stored_without_an_order_need_one_of_the_program(service: FakeService) -> None:
    """The file was written by a program with a list, which the service had not confirmed."""
    setting = Setting("s", int, ["user", "theme"], 0)
    service.declare("s", "int", 0, ["user", "theme"])
    service.add_rule("s", 1, user="jim")
    file = MemoryFile()
    with driven(service, last_known_good=file):
        pass
    assert file.content is not None
    file.content.order = ()
    service.is_running = False
    for features, expected in ((None, 0), (("environment", "user", "theme"), 1)):
        reset_settings()
        with driven(service, last_known_good=file, context_features=features):
            assert setting.get(user="jim", theme="dark") == expected


@pytest.mark.parametrize("is_stored", [False, True])
def test_without_any_order_of_context_features_no_rules_are_applied(service: FakeService, *, is_stored: bool) -> None:
    """Another order would give other values. The stored order is used, if there is one."""
    setting = Setting("s", int, ["user", "theme"], 0)
    service.declare("s", "int", 0, ["user", "theme"])
    path = MemoryFile()
    service.add_rule("s", 1, user="jim")
    service.add_rule("s", 2, theme="dark")
    if is_stored:
        with driven(service, last_known_good=path, context_features=None):
            pass
        reset_settings()
    service.respond_with(CONTEXT_FEATURES, CannedResponse.of({"context_features": [1]}), times=1)
    with driven(service, last_known_good=path, context_features=None) as client:
        assert setting.get(user="jim", theme="dark") == (2 if is_stored else 0)
        error = client.status().last_error
        assert error is not None
        assert error.startswith("the order of the context features is not known: GET /api/v1/context_features")
        client.reload()
        assert setting.get(user="jim", theme="dark") == 2


def test_a_change_of_tracking_takes_effect_at_once(service: FakeService) -> None:
    """Tracked values accumulate, and all settings are queried again; `TRACK_ALL` tracks all values of a feature."""
    setting = Setting("s", int, ["environment", "user", "theme"], 0)
    with driven(service) as client:
        service.add_rule("s", 1, user="jim")
        service.add_rule("s", 2, user="john")
        service.add_rule("s", 3, environment="prod")
        service.add_rule("s", 4, theme="dark")

        client.track_contexts(user="jim", environment=TRACK_ALL)
        client.advance(0)
        assert [setting.get(user=user) for user in ("jim", "john")] == [1, 0]
        assert (setting.get(environment="prod"), setting.get(theme="dark")) == (3, 0)

        client.track_contexts(user=["john", "jack"])
        client.advance(0)
        assert [setting.get(user=user) for user in ("jim", "john")] == [1, 2]
        filters = service.requests_to(QUERY)[-1].query["context_filters"]
        assert filters == "environment:*,user:(jack,jim,john)"


def test_contexts_can_be_tracked_before_the_start(service: FakeService) -> None:
    """The first query has them as its context filter."""
    setting = Setting("s", int, ["user"], 1)
    setting.add_validator(lambda value, rule, of: value)
    client = DrivenClient(service)
    client.track_contexts(user=["jim", "john"])
    client.start()
    client.close()
    assert [request.query["context_filters"] for request in service.requests_to(QUERY)] == ["user:(jim,john)"]


def test_a_filter_with_other_values_is_sent_to_a_service_that_announces_them(
    service: FakeService, caplog: pytest.LogCaptureFixture
) -> None:
    """Any other service gets no filter, and the client omits the rules. One record says that there may be none."""
    setting = Setting("s", int, ["user"], 0)
    with driven(service) as client:
        for value, user in ((1, "jim@example.com"), (2, "ann")):
            service.add_rule("s", value, user=user)
        client.track_contexts(user=["jim@example.com", "Lee, e\u0301"])
        for accepts_any_value, context_filter in (
            (False, "*"), (True, "user:(Lee~2C \u00e9,jim@example.com)"), (False, "*"),
        ):  # fmt: skip
            service.accepts_any_value = accepts_any_value
            client.reload()
            assert service.requests_to(QUERY)[-1].query["context_filters"] == context_filter
            assert [setting.get(user=user) for user in ("jim@example.com", "ann")] == [1, 0]
    text = (
        "rules for the tracked value 'Lee, \u00e9' of user may be impossible: the service does not announce that it "
        "accepts other characters than letters, digits and underscores"
    )
    assert summaries(caplog.records) == [("WARNING", text, {"unsupported_values": 2})]


@pytest.mark.parametrize("is_partial", [False, True])
def test_a_filter_that_is_refused_is_replaced(service: FakeService, *, is_partial: bool) -> None:
    """Behind a load balancer, another instance than the one that announced the values may be of an older version."""
    settings = [Setting(f"s{i}", int, ["user"], 0) for i in range(60)]
    with driven(service) as client:
        for i in range(60):
            service.add_rule(f"s{i}", 1, user="a-b")
        service.accepts_any_value = True
        replies = iter([None] if is_partial else [])

        def respond(request: RecordedRequest) -> CannedResponse | None:
            if request.query["context_filters"] == "*":
                return None
            return next(replies, CannedResponse.of({"detail": "string does not match regex"}, 422))

        service.respond_with(QUERY, respond)
        client.track_contexts(user="a-b")
        client.reload()
        assert [setting.get(user="a-b") for setting in settings] == [1] * 60
        assert client.status().state is State.FRESH


def test_another_error_of_a_query_is_not_a_refused_filter(service: FakeService) -> None:
    """The filter is sent again in the next refresh."""
    _setting = Setting("s", int, ["user"], 0)
    with driven(service) as client:
        service.accepts_any_value = True
        client.track_contexts(user="a-b")
        service.respond_with(QUERY, CannedResponse(503))
        client.advance(0)
        client.refresh(1)
        assert {request.query["context_filters"] for request in service.requests_to(QUERY)[1:]} == {"user:(a-b)"}


@pytest.mark.parametrize("value", ["", "jim\n", "\x85", "\ud800", "x" * 256])
def test_tracking_an_invalid_value_is_an_error(service: FakeService, value: Any) -> None:
    """The `ValueError` names the value, and the values that are possible."""
    with pytest.raises(ValueError, match="the value of context feature user must have 1 to 255 characters") as raised:
        DrivenClient(service).track_contexts(user=[value])
    assert repr(value[:59])[:-1] in str(raised.value)


# -- settings that come and go -----------------------------------------------------------------------------------------


def test_a_setting_created_after_the_start_is_declared_and_loaded_promptly(service: FakeService) -> None:
    """Its rules are loaded without waiting for the interval."""
    service.declare("late", "int", 1, ["user"])
    service.add_rule("late", 2, user="jim")
    with driven(service, update_interval=3600) as client:
        late = Setting("late", int, ["user"], 1)
        client.advance(0)
        assert late.get(user="jim") == 2


def test_a_setting_without_references_is_no_longer_queried(service: FakeService) -> None:
    """The client holds settings weakly."""
    kept, dropped = Setting("kept", int, ["user"], 1), Setting("dropped", int, ["user"], 1)
    with driven(service) as client:
        del dropped
        gc.collect()
        client.reload()
        assert service.requests_to(QUERY)[-1].query["settings"] == "kept"
    assert kept.get() == 1


def test_a_validator_applies_to_earlier_values_as_well(service: FakeService, caplog: pytest.LogCaptureFixture) -> None:
    """A validator can change or reject a value. One that is added after the start is applied promptly."""
    setting = Setting("s", int, ["user"], 1)
    with driven(service) as client:
        service.add_rule("s", 5, user="jim")
        service.add_rule("s", 500, user="john")
        client.reload()
        seen: list[Any] = []

        @setting.add_validator
        def at_most_100(value: int, rule: Rule[int] | None, of: Setting[int]) -> int:
            seen.append((value, rule and rule.rule_id, of))
            if value > 100:
                raise ValueError("too large")
            return value + 1

        client.advance(0)
        assert (setting.get(user="jim"), setting.get(user="john"), setting.get(user="x")) == (6, 2, 2)
    assert seen == [(1, None, setting), (5, 1, setting), (500, 2, setting)]
    assert "too large" in caplog.text


# -- callers that wait -------------------------------------------------------------------------------------------------


def test_callers_of_reload_share_a_refresh_that_begins_after_their_calls(service: FakeService) -> None:
    """Callers during a refresh wait for the next one, which has the rules that existed at their call."""
    setting = Setting("s", int, ["user"], 1)
    seen: list[int] = []
    with driven(service) as client:

        def call_during_the_refresh(request: RecordedRequest) -> None:
            if str(request) == QUERY and len(service.requests_to(QUERY)) == before + 1:
                for _ in range(50):
                    client.session.add_waiter(lambda error: seen.append(setting.get(user="jim")))

        before = len(service.requests_to(QUERY))
        service.intercept = call_during_the_refresh
        client.reload()
        assert seen == []
        service.add_rule("s", 2, user="jim")
        client.advance(0)
        assert seen == [2] * 50
        assert len(service.requests_to(QUERY)) == before + 2


def test_a_client_is_started_once(service: FakeService) -> None:
    """Neither a second time, nor after it is closed. Only in between it can be reloaded."""
    client = DrivenClient(service)
    not_running = r"^the client is not running: it was not set as main, or it is closed$"
    with pytest.raises(ClientNotRunningError, match=not_running):
        client.reload()
    client.start()
    with pytest.raises(RuntimeError, match=r"^the client was set as main before$"):
        client.start()
    client.close()
    with pytest.raises(ClientNotRunningError, match=not_running):
        client.reload()
    with pytest.raises(ClientNotRunningError, match=r"^the client is closed: make a new one$"):
        client.start()


def test_a_caller_gets_an_error_if_the_client_is_closed_during_its_refresh(service: FakeService) -> None:
    """The response is dropped."""
    setting = Setting("s", int, ["user"], 1)
    with driven(service) as client:
        service.add_rule("s", 2, user="jim")

        def close(request: RecordedRequest) -> None:
            if str(request) == QUERY:
                client.close()

        service.intercept = close
        with pytest.raises(ClientNotRunningError, match=r"^the client was closed before the refresh was done$"):
            client.reload()
        assert setting.get(user="jim") == 1


def test_a_caller_gets_an_error_while_the_client_is_being_closed(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It never waits for a refresh that does not take place."""
    errors: list[Exception | None] = []
    client = DrivenClient(service)
    client.start()
    waiters = client.session._waiters
    add = waiters.add

    def close_and_add(waiter: Waiter) -> None:
        client.close()  # like a thread that closes it after the check that it is running
        add(waiter)

    monkeypatch.setattr(waiters, "add", close_and_add)
    client.session.add_waiter(errors.append)
    assert [type(error) for error in errors] == [ClientNotRunningError]


def test_closing_again_or_before_the_start_has_no_effect(service: FakeService) -> None:
    """A client can be closed at any time."""
    client = DrivenClient(service)
    client.close()
    client.close()
    assert client.status().state is State.CLOSED
    client = DrivenClient(service)
    client.start()
    client.close()
    client.close()
    assert registry.main is None


# -- several clients ---------------------------------------------------------------------------------------------------


def test_values_stay_readable_after_the_client_is_closed(service: FakeService) -> None:
    """Settings keep their last values until the next client refreshes them."""
    setting = Setting("s", int, ["user"], 1)
    with driven(service) as client:
        rule = service.add_rule("s", 2, user="jim")
        client.reload()
    assert setting.get(user="jim") == 2
    service.delete_rule(rule)
    service.add_rule("s", 3, user="jim")
    assert setting.get(user="jim") == 2
    with driven(service):
        assert setting.get(user="jim") == 3


def test_a_second_main_client_takes_over_until_it_is_closed(
    service: FakeService, caplog: pytest.LogCaptureFixture
) -> None:
    """After that, the former main client applies its rules again at once. The takeover is logged."""
    setting = Setting("s", int, ["environment"], 1)
    other = FakeService()
    other.declare("s", "int", 1, ["environment"])
    other.add_rule("s", 3, environment="dev")
    with driven(service) as first:
        first.set_defaults(environment="prod")
        rule = service.add_rule("s", 2, environment="prod")
        first.reload()
        with driven(other) as second:
            second.set_defaults(environment="dev")
            assert setting.get() == 3
            service.delete_rule(rule)
            service.add_rule("s", 4, environment="prod")
            assert (first.status().is_main, second.status().is_main) == (False, True)
            text = r"^another client is the main one, so this one updates nothing$"
            with pytest.raises(ClientNotRunningError, match=text):
                first.reload()
            assert setting.get() == 3
        first.advance(0)
        assert setting.get() == 4
    assert summaries(caplog.records) == [
        (
            "WARNING",
            "another client is the main client now; the former one stops updating settings until that is closed",
            {"service_url": second.session.service_url, "former_service_url": first.session.service_url},
        )
    ]


def test_a_former_main_client_can_be_closed_first(service: FakeService) -> None:
    """The main client goes on."""
    setting = Setting("s", int, ["user"], 1)
    first = DrivenClient(FakeService())
    first.start()
    with driven(service) as second:
        first.close()
        service.add_rule("s", 2, user="jim")
        second.reload()
        assert setting.get(user="jim") == 2
        assert second.status().is_main


def test_a_client_that_is_main_again_applies_its_own_rules(service: FakeService) -> None:
    """It applies them even if nothing has changed in its service."""
    setting = Setting("s", int, ["user"], 1)
    other = FakeService()
    other.declare("s", "int", 1, ["user"])
    other.add_rule("s", 3, user="jim")
    with driven(service) as first:
        service.add_rule("s", 2, user="jim")
        first.reload()
        with driven(other):
            assert setting.get(user="jim") == 3
        first.advance(0)
        assert setting.get(user="jim") == 2


def test_a_response_that_arrives_while_another_client_is_main_is_applied_later(service: FakeService) -> None:
    """Its ETag is not stored, so the next response is not 304."""
    setting = Setting("s", int, ["user"], 1)
    with driven(service) as client:
        stub = SyncStubHeksherClient()

        def take_over(request: RecordedRequest) -> None:
            if str(request) == QUERY:
                service.intercept = lambda request: None
                stub.set_as_main()

        service.add_rule("s", 2, user="jim")
        service.intercept = take_over
        client.now += 10.0
        client.reload()
        assert client.status().age == 10.0  # The response does not confirm what is published.
        stub.close()
        client.reload()
        assert (setting.get(user="jim"), client.status().age) == (2, 0.0)


def test_a_newer_default_that_arrives_after_a_takeover_is_not_used(service: FakeService) -> None:
    """Only the main client applies defaults."""
    service.declare("late", "int", 1, ["user"])
    service.declare("late", "int", 7, ["user"], version="1.1")
    with driven(service) as client:
        stub = SyncStubHeksherClient()
        stub.set_defaults(user="jim")

        def take_over(request: RecordedRequest) -> None:
            if str(request) == DECLARE:
                stub.set_as_main()

        service.intercept = take_over
        late = Setting("late", int, ["user"], 1)
        client.advance(0)
        assert late.get() == 1
        stub.close()


# -- failures ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("raises_at_start", [True, False])
def test_a_start_without_the_service_is_retried(
    service: FakeService, caplog: pytest.LogCaptureFixture, raises_at_start: bool
) -> None:
    """The error is logged, unless the driver raises it."""
    setting, without_default = Setting("s", int, ["user"], 1), Setting("t", int, ["theme"], 1)
    service.is_running = False
    client = DrivenClient(service, raises_at_start=raises_at_start)
    client.set_defaults(user="jim")
    with pytest.raises(ServiceUnavailableError) as raised:
        client.start()
    text = "GET /api/v1/context_features: no response (ConnectionError: connection refused)"
    record = ("ERROR", f"refresh failed: {text}", {"error": raised.value, "attempts": 1})
    assert str(raised.value) == text
    assert summaries(caplog.records) == ([] if raises_at_start else [record])
    assert setting.get() == 1
    with pytest.raises(MissingContextError):
        without_default.get()

    service.is_running = True
    service.declare("s", "int", 1, ["user"])
    service.add_rule("s", 2, user="jim")
    client.refresh()
    assert client.waits == [1]
    assert setting.get() == 2
    client.close()


@pytest.mark.parametrize("status", [204, 206, 304, 401, 403, 404, 429, 503])
def test_settings_keep_their_values_after_an_invalid_response(service: FakeService, status: int) -> None:
    """The refresh fails with an error."""
    setting = Setting("s", int, ["user"], 1)
    rule = {"value": 2, "context_features": [["user", "jim"]], "rule_id": 1}
    service.respond_with(
        QUERY, CannedResponse.of({"settings": {"s": {"default_value": 1, "rules": [rule]}}})
    )  # without an ETag
    with driven(service) as client:
        assert setting.get(user="jim") == 2
        service.intercept = lambda request: CannedResponse(status) if str(request) in (QUERY, DECLARE) else None
        client.reload_expecting(HeksherError)
        assert setting.get(user="jim") == 2


def test_a_setting_that_is_missing_in_a_response_keeps_its_rules(service: FakeService) -> None:
    """The refresh fails with an error that names the setting."""
    setting = Setting("s", int, ["user"], 1)
    with driven(service) as client:
        service.add_rule("s", 2, user="jim")
        client.reload()
        service.respond_with(QUERY, CannedResponse.of({"settings": {}}))
        error = client.reload_expecting(UnexpectedResponseError)
        assert "did not include setting s" in str(error)
        assert setting.get(user="jim") == 2


def test_several_failures_are_all_reported(service: FakeService, caplog: pytest.LogCaptureFixture) -> None:
    """The first error is raised with the others as notes, and each is logged."""
    settings = [Setting(f"s{i}", int, ["no_such_feature"], 1) for i in range(3)]
    client = DrivenClient(service)
    refreshes: list[Refresh] = []
    client.on_refresh(refreshes.append)
    with pytest.raises(DeclarationError) as raised:
        client.start()
    client.close()
    ((first, *others),) = [refresh.errors for refresh in refreshes]
    assert [vars(error)["setting"] for error in (first, *others)] == [setting.name for setting in settings]
    assert raised.value is first
    assert first.__notes__ == [f"and: {error}" for error in others]
    assert summaries(caplog.records) == [
        ("ERROR", f"refresh failed: {error}", {"error": error, "attempts": 1}) for error in (first, *others)
    ]


def test_the_notes_of_an_error_are_those_of_its_last_refresh(service: FakeService) -> None:
    """The error of a refused declaration is that of each refresh until it is sent again."""
    _first, _second = Setting("first", int, ["no_such_feature"], 1), Setting("second", int, ["no_such_feature"], 1)
    _good = Setting("good", int, ["user"], 1)
    with driven(service, update_interval=10) as client:
        errors = []
        client.on_refresh(lambda refresh: errors.append(refresh.errors[0]))
        client.reload_expecting(DeclarationError)
        client.refresh()
        before, error = errors
        assert error is before
        assert isinstance(error, DeclarationError)
        assert (error.setting, len(error.__notes__)) == ("first", 1)


def test_an_error_is_reported_even_if_the_next_request_fails_as_well(service: FakeService) -> None:
    """The errors of a refused declaration and of the query after it are both reported."""
    responses = {DECLARE: CannedResponse(422, b"no"), QUERY: CannedResponse(503)}
    with driven(service) as client:
        service.intercept = lambda request: responses.get(str(request))
        kept, refused = Setting("kept", int, ["user"], 1), Setting("refused", int, ["user"], 1)
        error = client.reload_expecting(DeclarationError)
        assert {"kept", "refused"} <= set(str([error, *error.__notes__]).replace(":", " ").split())
        assert (kept.get(), refused.get()) == (1, 1)


def test_an_unexpected_error_while_saving_fails_a_refresh_whose_rules_are_used(
    service: FakeService, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error is logged with its traceback. The next refresh succeeds."""
    file = MemoryFile()
    setting = Setting("s", int, ["user"], 1)
    with driven(service, last_known_good=file) as client:
        service.add_rule("s", 2, user="jim")
        with monkeypatch.context() as patched:
            patched.setattr(file, "write", lambda *_: 1 // 0)
            error = client.reload_expecting(ZeroDivisionError)
        assert setting.get(user="jim") == 2
        client.reload()
    assert summaries(caplog.records)[0] == ("ERROR", "a refresh failed in an unforeseen way", {"error": error})
    assert caplog.records[0].exc_info


def test_a_404_of_a_proxy_fails_one_refresh(service: FakeService) -> None:
    """It does not delay declarations by five minutes."""
    settings = [Setting(f"s{i}", int, ["user"], 1) for i in range(3)]
    with driven(service) as client:
        for setting in settings:
            service.add_rule(setting.name, 2, user="jim")
        service.intercept = lambda request: CannedResponse(404, b"<html>no route</html>")
        client.reload_expecting(HeksherError)
        service.intercept = lambda request: None
        client.session.refresh_soon()
        client.advance(0)
        assert client.outcomes[-1] is None
        assert [setting.get(user="jim") for setting in settings] == [2, 2, 2]


def test_of_rules_with_the_same_conditions_the_higher_id_wins(
    service: FakeService, caplog: pytest.LogCaptureFixture
) -> None:
    """The service should not send such rules. The log record names the unused rule."""
    setting = Setting("s", int, ["environment", "user"], 1)
    conditions = [["user", "jim"], ["environment", "prod"]]
    rules = [
        {"value": 2, "context_features": conditions, "rule_id": 8},
        {"value": 3, "context_features": conditions[::-1], "rule_id": 7},
    ]
    service.respond_with(QUERY, CannedResponse.of({"settings": {"s": {"default_value": 1, "rules": rules}}}))
    with driven(service):
        assert setting.get(environment="prod", user="jim") == 2
    assert summaries(caplog.records) == [
        (
            "WARNING",
            "setting s: 1 rules have the same conditions as another rule; the one with the highest id is used",
            {"setting": "s", "unused_rules": [7]},
        )
    ]


def test_split_queries_are_merged_again_after_a_while(service: FakeService) -> None:
    """A single response with status 500 does not split queries forever."""
    settings = [Setting(f"s{i}", int, ["user"], i) for i in range(8)]
    with driven(service) as client:
        service.respond_with(QUERY, CannedResponse(500), times=1)
        client.reload()
        assert [len(request.query["settings"].split(",")) for request in service.requests_to(QUERY)][-3:] == [8, 4, 4]
        for _ in range(61):
            client.reload()
        assert len(service.requests_to(QUERY)[-1].query["settings"].split(",")) == len(settings)


# -- declarations ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("version", "level"), [("1.1", "INFO"), ("2.0", "WARNING"), ("10.0", "WARNING")])
def test_an_outdated_declaration_uses_the_newer_default(
    service: FakeService, caplog: pytest.LogCaptureFixture, version: str, level: str
) -> None:
    """The default of the newer declaration is used even if the rules cannot be loaded.

    An older major version is logged as a warning.
    """
    caplog.set_level(logging.INFO, "heksher_client")
    service.declare("s", "int", 1, ["user"])
    service.declare("s", "int", 7, ["user"], version=version)
    setting = Setting("s", int, ["user"], 1)
    service.respond_with(QUERY, CannedResponse(503))
    client = DrivenClient(service)
    client.set_defaults(user="jim")
    with pytest.raises(UnexpectedResponseError):
        client.start()
    client.close()

    assert setting.explain(user="jim").reason is Reason.SERVER_DEFAULT
    assert setting.get(user="jim") == 7
    outdated, _ = summaries(caplog.records)
    assert outdated == (
        level,
        f"the declaration of setting s is outdated: it has version 1.0, the service has {version}",
        {
            "setting": "s",
            "outcome": "outdated",
            "differences": [{"level": "minor", "attribute": "default_value", "latest_value": 7}],
            "declared_version": "1.0",
            "latest_version": version,
            "detail": "",
        },
    )


OTHER_DEFAULT = {"level": "minor", "attribute": "default_value", "latest_value": 1}
OTHER_TYPE = {"level": "mismatch", "message": "setting type incompatible with values for rules: [1]"}


@pytest.mark.parametrize(
    ("declare", "outcome", "differences", "detail"),
    [
        (lambda: Setting("s", int, ["user"], 2), "mismatch", [OTHER_DEFAULT], ""),
        (lambda: Setting("s", str, ["user"], "x", version="1.1"), "rejected", [OTHER_DEFAULT, OTHER_TYPE], ""),
        (
            lambda: Setting("s", int, ["user"], 1, alias="unrelated"),
            "conflict",
            [],
            "'alias unrelated is an alias of unrelated setting unrelated'",
        ),
    ],
    ids=["mismatch", "rejected", "conflict"],
)
def test_a_conflicting_declaration_is_logged_and_the_setting_is_loaded(
    service: FakeService,
    caplog: pytest.LogCaptureFixture,
    declare: Callable[[], Setting[Any]],
    outcome: str,
    differences: list[Any],
    detail: str,
) -> None:
    """A response with status 409 is logged with the differences, or with the explanation of the service."""
    service.declare("s", "int", 1, ["user"])
    service.declare("unrelated", "int", 1, ["user"])
    service.add_rule("s", 5, user="jim")
    setting = declare()
    with driven(service):
        expected = "x" if outcome == "rejected" else 5
        assert setting.get(user="jim") == expected
    assert summaries(caplog.records)[0] == (
        "ERROR",
        f"the declaration of setting s conflicts with the service's ({outcome}): {detail or differences}",
        {
            "setting": "s",
            "outcome": outcome,
            "differences": differences,
            "declared_version": "1.1" if outcome == "rejected" else "1.0",
            "latest_version": None,
            "detail": detail,
        },
    )


def test_a_refused_declaration_is_sent_again_after_half_a_minute(service: FakeService) -> None:
    """Until then the refreshes have its error, as an operator has to fix the declaration."""
    refused, _good = Setting("refused", int, ["user"], 1), Setting("good", int, ["user"], 1)
    service.declare("good", "int", 1, ["user"])
    service.respond_with(
        DECLARE, lambda request: CannedResponse(422, b"no") if request.json["name"] == "refused" else None
    )
    with driven(service) as client:
        client.advance(29)
        client.session.refresh_soon()
        client.refresh()
        assert (client.outcomes, client.status().failures) == ([], 2)
        assert (len(service.requests_to(DECLARE)), client.status().last_success) == (2, None)
        service.intercept = lambda request: None
        client.advance(1)
        assert client.outcomes[-1] is None
        assert refused.explain(user="jim").reason is Reason.SERVER_DEFAULT


def test_reload_sends_a_refused_declaration_again(service: FakeService) -> None:
    """A call of `reload` after a fix does not wait for its time."""
    with driven(service) as client:
        service.respond_with(DECLARE, CannedResponse(422, b"no"), times=1)
        setting = Setting("s", int, ["user"], 1)
        client.advance(0)
        assert isinstance(client.outcomes[-1], DeclarationError)
        client.reload()
        assert setting.explain().reason is Reason.SERVER_DEFAULT


@pytest.mark.parametrize(
    "response",
    [CannedResponse(200, b"text"), CannedResponse.of({"outcome": "unknown"}), CannedResponse(503), CannedResponse(401)],
)
def test_a_declaration_with_an_invalid_response_affects_that_setting_only(
    service: FakeService, response: CannedResponse
) -> None:
    """The error names it, and the others are refreshed."""
    settings = [Setting(f"s{i}", int, ["user"], 1) for i in range(3)]
    with driven(service) as client:
        service.add_rule("s0", 2, user="ann")
        service.respond_with(DECLARE, response)
        later = Setting("later", int, ["user"], 1)
        error = client.reload_expecting(UnexpectedResponseError)
        assert str(error).startswith("the declaration of setting later failed: POST /api/v1/settings/declare: ")
        assert settings[0].get(user="ann") == 2
        service.intercept = lambda request: None
        service.declare("later", "int", 1, ["user"])
        service.add_rule("later", 2, user="jim")
        client.reload()
        assert later.get(user="jim") == 2
        assert [setting.get() for setting in settings] == [1] * 3


def test_a_declaration_that_repeatedly_gets_500_affects_that_setting_only(service: FakeService) -> None:
    """After three attempts it is an error of that setting until the next refresh."""
    good = Setting("good", int, ["user"], 1)
    with driven(service) as client:
        service.add_rule("good", 2, user="jim")
        service.respond_with(DECLARE, CannedResponse(500), times=3)
        bad = Setting("bad", int, ["user"], 1)
        client.advance(0)
        assert isinstance(client.outcomes[-1], UnexpectedResponseError)
        assert good.get(user="jim") == 2
        assert bad.explain().reason is Reason.DECLARED_DEFAULT
        client.reload()
        assert bad.explain().reason is Reason.SERVER_DEFAULT


def test_a_default_that_is_coerced_is_used_and_logged(service: FakeService, caplog: pytest.LogCaptureFixture) -> None:
    """The valid part of the service's default is used, and the rest is logged."""
    service.declare("s", 'Flags["A","B","C"]', ["A"], ["user"])
    service.declare("s", 'Flags["A","B","C"]', ["A", "C"], ["user"], version="1.1")
    setting = Setting("s", Letters, ["user"], Letters.A)
    with driven(service):
        assert setting.explain().reason is Reason.SERVER_DEFAULT
        assert setting.get() == Letters.A
    assert summaries(caplog.records)[-1] == (
        "WARNING",
        "setting s: the service's default value was coerced: unknown flag 'C' dropped",
        {"setting": "s", "default_value": ["A", "C"], "coercions": ["unknown flag 'C' dropped"]},
    )


def test_null_and_false_are_defaults_as_well(service: FakeService) -> None:
    """A default that is false is not a missing default."""
    service.declare("s", "bool", True, ["user"])
    service.declare("s", "bool", False, ["user"], version="1.1")
    setting = Setting("s", bool, ["user"], True)
    with driven(service):
        resolution = setting.explain()
    assert (resolution.value, resolution.reason) == (False, Reason.SERVER_DEFAULT)


# -- interrupts --------------------------------------------------------------------------------------------------------


def test_c13_closing_while_the_client_becomes_the_main_one(service: FakeService) -> None:
    """Like a signal handler, or another thread, that does not see it as active yet."""
    setting = Setting("s", int, ["user"], 1)
    client = DrivenClient(service)

    def close_and_adopt(entry: Any) -> None:
        client.close()
        adopt(entry)

    adopt = client.session.adopt
    client.session.adopt = close_and_adopt  # type: ignore[method-assign]
    with pytest.raises(ClientNotRunningError, match="is closed"):
        client.session.start()
    assert (registry.main, setting.get(user="jim")) == (None, 1)


def test_c13_another_client_becomes_the_main_one_while_settings_are_adopted(service: FakeService) -> None:
    """It has all settings at the end."""
    settings = [Setting(name, int, ["user"], 1) for name in "ab"]
    first, second = DrivenClient(service), DrivenClient(service)
    second.set_defaults(user="jim")

    def start_second_and_adopt(entry: Any) -> None:
        first.session.adopt = adopt  # type: ignore[method-assign]
        second.session.start()
        adopt(entry)

    adopt = first.session.adopt
    first.session.adopt = start_second_and_adopt  # type: ignore[method-assign]
    first.session.start()
    assert registry.main is second.session
    assert [setting.get() for setting in settings] == [1, 1]  # with the default of the second client
    second.close()
    first.close()


def test_c15_interrupts_while_settings_are_adopted_and_while_the_client_closes(service: FakeService) -> None:
    """The settings have the client that is the main one at the end."""
    setting = Setting("s", int, ["user"], 1)

    def interrupt(entry: Any) -> None:
        raise KeyboardInterrupt

    with driven(service) as former:
        former.set_defaults(user="jim")
        client = DrivenClient(service)
        client.session.adopt = interrupt  # type: ignore[method-assign]
        with pytest.raises(KeyboardInterrupt):
            client.session.start()
        adopt = former.session.adopt

        def interrupt_once(entry: Any) -> None:
            former.session.adopt = adopt  # type: ignore[method-assign]
            raise KeyboardInterrupt

        former.session.adopt = interrupt_once  # type: ignore[method-assign]
        with pytest.raises(KeyboardInterrupt):
            client.close()
        assert (registry.main, client.session.is_closed, setting.get()) == (former.session, True, 1)
