"""The lifecycle of a client, of both kinds: start, declarations, refreshes, close; and reads in between."""

import gc
import logging
import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import httpx
import pytest

from heksher_client import (
    TRACK_ALL,
    ClientNotRunningError,
    DeclarationError,
    HeksherError,
    MissingContextError,
    Reason,
    Rule,
    ServiceUnavailableError,
    Setting,
    UnexpectedResponseError,
    UnknownContextError,
    __version__,
)
from heksher_client._core.settings.registry import registry
from heksher_client.service import LocalService
from heksher_client.testing import SyncStubHeksherClient
from tests.core.settings.test_types import Letters
from tests.support.clients import FEATURES, TIMEOUT_SECONDS, AsyncKind, Kind, Subject, running
from tests.support.http import http_request
from tests.support.service import DECLARE, QUERY, CannedResponse, RecordedRequest, WatchedService


def test_a_read_uses_constants_context_variables_and_arguments(kind: Kind, service: WatchedService) -> None:
    """Arguments override the client's defaults, which can be set late."""
    user: ContextVar[str] = ContextVar("user")
    setting = Setting("s", int, ["environment", "user", "theme"], 0)
    with running(kind, service.url) as client:
        service.add_rule("s", 1, environment="prod", user="jim")
        service.add_rule("s", 2, environment="prod", user="john")
        client.reload()
        client.client.set_defaults(environment="prod", user=user)

        token = user.set("jim")
        assert setting.get() == 1
        assert setting.get(user="john") == 2
        assert setting.get(environment="dev") == 0
        user.reset(token)


def test_explain_returns_the_winning_rule_and_the_outranked_rules(kind: Kind, service: WatchedService) -> None:
    """A resolution has the value, the reason, the rule with its id and conditions, and the others by priority."""
    setting = Setting("s", int, ["environment", "user", "theme"], 0)
    with running(kind, service.url) as client:
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


def test_the_order_of_context_features_is_that_of_the_service(
    kind: Kind, service: WatchedService, caplog: pytest.LogCaptureFixture
) -> None:
    """A client with another order logs a warning, and uses the order of the service."""
    setting = Setting("s", int, ["theme", "user"], 0)
    with running(kind, service.url, context_features=("theme", "user", "environment")) as client:
        service.add_rule("s", 1, user="jim")
        service.add_rule("s", 2, theme="dark")
        client.reload()
        assert setting.get(user="jim", theme="dark") == 2
    (record,) = [r for r in caplog.records if "context features" in r.message]
    assert vars(record)["features_in_service"] == ["environment", "user", "theme"]
    assert vars(record)["features_in_client"] == ["theme", "user", "environment"]


def test_without_the_services_context_features_the_clients_order_is_used(
    kind: Kind, service: WatchedService, caplog: pytest.LogCaptureFixture
) -> None:
    """They are requested again at each refresh."""
    setting = Setting("s", int, ["user"], 0)
    service.respond_with("GET /api/v1/context_features", CannedResponse.of({"context_features": [1]}), times=1)
    with running(kind, service.url) as client:
        service.add_rule("s", 1, user="jim")
        client.reload()
        client.reload()
        assert setting.get(user="jim") == 1
        assert len(service.requests_to("GET /api/v1/context_features")) == 3
    assert "order of the context features is not known" in caplog.text


def test_a_setting_created_after_the_start_is_declared_and_loaded_promptly(kind: Kind, service: WatchedService) -> None:
    """Its rules are loaded without waiting for the interval."""
    service.declare("late", "int", 1, ["user"])
    service.add_rule("late", 2, user="jim")
    with running(kind, service.url, interval=3600) as client:
        client.next_outcome()
        late = Setting("late", int, ["user"], 1)
        client.next_outcome()
        assert late.get(user="jim") == 2


def test_a_setting_without_references_is_no_longer_queried(kind: Kind, service: WatchedService) -> None:
    """The client holds settings weakly."""
    kept, dropped = Setting("kept", int, ["user"], 1), Setting("dropped", int, ["user"], 1)
    with running(kind, service.url) as client:
        del dropped
        gc.collect()
        client.reload()
        assert service.requests_to(QUERY)[-1].query["settings"] == "kept"
    assert kept.get() == 1


def test_a_change_of_tracking_takes_effect_at_once(kind: Kind, service: WatchedService) -> None:
    """Tracked values accumulate, and all settings are queried again; `TRACK_ALL` tracks all values of a feature."""
    setting = Setting("s", int, ["environment", "user", "theme"], 0)
    with running(kind, service.url) as client:
        service.add_rule("s", 1, user="jim")
        service.add_rule("s", 2, user="john")
        service.add_rule("s", 3, environment="prod")
        service.add_rule("s", 4, theme="dark")
        client.next_outcome()

        client.client.track_contexts(user="jim", environment=TRACK_ALL)
        client.next_outcome()
        assert [setting.get(user=user) for user in ("jim", "john")] == [1, 0]
        assert (setting.get(environment="prod"), setting.get(theme="dark")) == (3, 0)

        client.client.track_contexts(user=["john", "jack"])
        client.next_outcome()
        assert [setting.get(user=user) for user in ("jim", "john")] == [1, 2]
        filters = service.requests_to(QUERY)[-1].query["context_filters"]
        assert filters == "environment:*,user:(jack,jim,john)"


@pytest.mark.parametrize("value", ["has-dash", "", "has space", "jim\n", 5])
def test_tracking_an_invalid_value_is_an_error(kind: Kind, value: Any) -> None:
    """The `ValueError` names the value."""
    subject = Subject(kind, "http://127.0.0.1:9", 3600, FEATURES)
    with pytest.raises(ValueError, match="cannot be tracked") as raised:
        subject.client.track_contexts(user=[value])
    assert repr(value) in str(raised.value)
    subject.close()


def test_an_unknown_context_feature_is_an_error(kind: Kind) -> None:
    """A default or a tracked value of an unknown feature would never have an effect."""
    subject = Subject(kind, "http://127.0.0.1:9", 3600, FEATURES)
    with pytest.raises(UnknownContextError, match="planet"):
        subject.client.set_defaults(planet="mars")
    with pytest.raises(UnknownContextError, match="planet"):
        subject.client.track_contexts(planet="mars")
    with pytest.raises(TypeError, match="user"):
        subject.client.set_defaults(user=5)
    subject.close()


def test_a_validator_applies_to_earlier_values_as_well(
    kind: Kind, service: WatchedService, caplog: pytest.LogCaptureFixture
) -> None:
    """A validator can change or reject a value. One that is added after the start is applied promptly."""
    setting = Setting("s", int, ["user"], 1)
    with running(kind, service.url) as client:
        service.add_rule("s", 5, user="jim")
        service.add_rule("s", 500, user="john")
        client.reload()
        client.clear_outcomes()
        seen: list[Any] = []

        @setting.add_validator
        def at_most_100(value: int, rule: Rule[int] | None, of: Setting[int]) -> int:
            seen.append((value, rule and rule.rule_id, of))
            if value > 100:
                raise ValueError("too large")
            return value + 1

        client.next_outcome()
        assert (setting.get(user="jim"), setting.get(user="john"), setting.get(user="x")) == (6, 2, 2)
    assert seen == [(1, None, setting), (5, 1, setting), (500, 2, setting)]
    assert "too large" in caplog.text


def test_values_do_not_change_while_the_modification_lock_is_held(kind: Kind, service: WatchedService) -> None:
    """A received update is applied as a whole once the lock is released."""
    first, second = Setting("a", int, ["user"], 1), Setting("b", int, ["user"], 1)
    arrived = threading.Event()
    with running(kind, service.url) as client:
        service.add_rule("a", 2, user="jim")
        service.add_rule("b", 2, user="jim")
        lock = client.client.modification_lock
        acquired = lock.acquire()
        if kind.raises_at_start:
            kind.call(acquired)
        client.clear_outcomes()

        class SignalingLock:
            """A lock that signals when the client waits for it."""

            def __enter__(self) -> None:
                arrived.set()
                lock.acquire()

            def __exit__(self, *_: object) -> None:
                lock.release()

            async def __aenter__(self) -> None:
                arrived.set()
                await lock.acquire()

            async def __aexit__(self, *_: object) -> None:
                lock.release()

        client.client.modification_lock = SignalingLock()
        client.client._session.refresh_soon()
        assert arrived.wait(TIMEOUT_SECONDS)
        assert (first.get(user="jim"), second.get(user="jim")) == (1, 1)
        if kind.raises_at_start:
            client.kind.loop.call_soon_threadsafe(lock.release)  # type: ignore[attr-defined]
        else:
            lock.release()
        client.next_outcome()
        assert (first.get(user="jim"), second.get(user="jim")) == (2, 2)


def test_callers_of_reload_share_a_refresh_that_begins_after_their_calls(kind: Kind, service: WatchedService) -> None:
    """Fifty calls at once take a few refreshes, and each sees the rules that existed when it was called."""
    setting = Setting("s", int, ["user"], 1)
    with running(kind, service.url) as client:
        before = len(service.requests_to(QUERY))
        results: list[int] = []
        gate = threading.Barrier(50)

        def reload() -> None:
            gate.wait(TIMEOUT_SECONDS)
            client.reload()
            results.append(setting.get(user="jim"))

        service.add_rule("s", 2, user="jim")
        threads = [threading.Thread(target=reload) for _ in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(TIMEOUT_SECONDS)

        assert results == [2] * 50
        assert len(service.requests_to(QUERY)) - before <= 10


def test_reload_needs_a_running_client(kind: Kind, service: WatchedService) -> None:
    """It raises before the start and after the client is closed."""
    subject = Subject(kind, service.url, 3600, FEATURES)
    with pytest.raises(ClientNotRunningError):
        subject.reload()
    subject.start()
    with pytest.raises(RuntimeError, match="before"):
        subject.start()
    subject.close()
    with pytest.raises(ClientNotRunningError):
        subject.reload()
    with pytest.raises(ClientNotRunningError):
        subject.start()


def test_closing_again_or_before_the_start_has_no_effect(kind: Kind, service: WatchedService) -> None:
    """A client can be closed at any time."""
    never_started = Subject(kind, service.url, 3600, FEATURES)
    never_started.close()
    never_started.close()
    subject = Subject(kind, service.url, 3600, FEATURES)
    subject.start()
    subject.close()
    subject.close()
    assert registry.main is None


def test_closing_an_idle_client_takes_less_than_half_a_second(kind: Kind, service: WatchedService) -> None:
    """Its thread or task has ended when the call returns."""
    subject = Subject(kind, service.url, 3600, FEATURES)
    subject.start()
    started = time.monotonic()
    subject.close()
    assert time.monotonic() - started < 0.5
    assert not any(thread.name == "heksher-client" for thread in threading.enumerate())


def test_closing_does_not_wait_for_a_response(kind: Kind, service: WatchedService) -> None:
    """A response that arrives later is dropped, and pending calls of `reload` raise."""
    setting = Setting("s", int, ["user"], 1)
    received, release = threading.Event(), threading.Event()
    subject = Subject(kind, service.url, 3600, FEATURES)
    subject.client.set_defaults(user="jim")
    subject.start()
    service.add_rule("s", 2, user="jim")

    def stall(request: RecordedRequest) -> None:
        if str(request) == QUERY:
            received.set()
            release.wait(TIMEOUT_SECONDS)

    service.intercept = stall
    errors: list[Exception] = []

    def reload() -> None:
        try:
            subject.reload()
        except ClientNotRunningError as error:
            errors.append(error)

    thread = threading.Thread(target=reload)
    thread.start()
    assert received.wait(TIMEOUT_SECONDS)
    started = time.monotonic()
    subject.close()
    assert time.monotonic() - started < 1
    release.set()
    thread.join(TIMEOUT_SECONDS)
    assert len(errors) == 1
    assert setting.get() == 1


def test_values_stay_readable_after_the_client_is_closed(kind: Kind, service: WatchedService) -> None:
    """Settings keep their last values until the next client refreshes them."""
    setting = Setting("s", int, ["user"], 1)
    with running(kind, service.url) as client:
        service.add_rule("s", 2, user="jim")
        client.reload()
    assert setting.get(user="jim") == 2
    service.call("PUT", "/api/v1/rules/1/value", {"value": 3})
    assert setting.get(user="jim") == 2
    with running(kind, service.url):
        assert setting.get(user="jim") == 3


def test_a_second_main_client_takes_over_until_it_is_closed(
    kind: Kind, service: WatchedService, caplog: pytest.LogCaptureFixture
) -> None:
    """After that, the former main client applies its rules again. The takeover is logged."""
    setting = Setting("s", int, ["environment"], 1)
    with WatchedService() as other, running(kind, service.url) as first:
        first.client.set_defaults(environment="prod")
        service.add_rule("s", 2, environment="prod")
        first.reload()
        other.declare("s", "int", 1, ["environment"])
        other.add_rule("s", 3, environment="dev")
        with running(kind, other.url) as second:
            second.client.set_defaults(environment="dev")
            assert setting.get() == 3
            service.call("PUT", "/api/v1/rules/1/value", {"value": 4})
            with pytest.raises(ClientNotRunningError, match="another client"):
                first.reload()
            assert setting.get() == 3
            first.clear_outcomes()
        first.next_outcome()
        assert setting.get() == 4
    assert "another client is the main client now" in caplog.text


def test_a_client_that_is_main_again_applies_its_own_rules(kind: Kind, service: WatchedService) -> None:
    """It applies them even if nothing has changed in its service."""
    setting = Setting("s", int, ["user"], 1)
    with WatchedService() as other, running(kind, service.url) as first:
        service.add_rule("s", 2, user="jim")
        first.reload()
        other.declare("s", "int", 1, ["user"])
        other.add_rule("s", 3, user="jim")
        with running(kind, other.url):
            assert setting.get(user="jim") == 3
            first.clear_outcomes()
        first.next_outcome()
        assert setting.get(user="jim") == 2


def test_a_start_without_the_service_raises_or_is_retried(kind: Kind, caplog: pytest.LogCaptureFixture) -> None:
    """The async client raises and is closed; the thread client logs the error, and tries again."""
    setting, without_default = Setting("s", int, ["user"], 1), Setting("t", int, ["theme"], 1)
    down = WatchedService()
    with down:
        pass  # from here on, no service listens on its port
    subject = Subject(kind, down.url, 0.05, FEATURES)
    subject.client.set_defaults(user="jim")
    if kind.raises_at_start:
        with pytest.raises(ServiceUnavailableError):
            subject.start()
        assert registry.main is None
        assert "refresh failed" not in caplog.text
        with pytest.raises(ClientNotRunningError):
            subject.reload()
        return
    subject.start()
    assert isinstance(subject.next_outcome(), ServiceUnavailableError)
    assert setting.get() == 1
    with pytest.raises(MissingContextError):
        without_default.get()
    assert "refresh failed: GET /api/v1/context_features: no response" in caplog.text
    with down:
        while subject.next_outcome() is not None:
            pass
        down.add_rule("s", 2, user="jim")
        subject.reload()
        assert setting.get() == 2
        subject.close()


def test_http_client_args_are_used_for_all_requests(
    kind: Kind, service: WatchedService, caplog: pytest.LogCaptureFixture
) -> None:
    """Headers, authentication and a base URL with a path are used. The client sets the user agent."""
    paths: list[str] = []

    def respond_under_path(request: RecordedRequest) -> CannedResponse | None:
        paths.append(request.path)
        return (
            CannedResponse.of({"context_features": list(FEATURES)})
            if request.path.endswith("context_features")
            else None
        )

    service.intercept = respond_under_path
    arguments = {"headers": {"X-Team": "shop"}, "auth": ("somebody", "secret"), "timeout": 3.0}
    with running(kind, f"{service.url}/settings/", http_client_args=arguments):
        pass
    request = service.requests[0]
    assert paths == ["/settings/api/v1/context_features"]
    assert request.headers["x-team"] == "shop"
    assert request.headers["authorization"].startswith("Basic ")
    assert request.headers["user-agent"] == f"heksher-client/{__version__}"

    with_password = service.url.replace("http://", "http://jim:p%40ss@")
    caplog.set_level(logging.DEBUG)
    with running(kind, with_password) as client:
        client.get_settings()
    assert service.requests[-1].headers["authorization"] == "Basic amltOnBAc3M="
    assert "p%40ss" not in caplog.text

    with running(kind, service.url, http_client_args={"headers": [("User-Agent", "mine")]}):
        pass
    assert service.requests[-1].headers["user-agent"] == "mine"


def test_an_error_in_user_code_of_a_request_is_a_service_unavailable_error(kind: Kind, service: WatchedService) -> None:
    """An `httpx.Auth` that raises does not stop the refreshes."""
    setting = Setting("s", int, ["user"], 1)

    class Tokens(httpx.Auth):
        is_broken = False

        def auth_flow(self, request: httpx.Request) -> Any:
            if self.is_broken:
                raise KeyError("token")
            yield request

    auth = Tokens()
    with running(kind, service.url, http_client_args={"auth": auth}) as client:
        auth.is_broken = True
        error = client.reload_expecting(ServiceUnavailableError)
        assert isinstance(error.__cause__, KeyError)
        auth.is_broken = False
        service.add_rule("s", 2, user="jim")
        client.reload()
        assert setting.get(user="jim") == 2


def test_errors_of_ping_are_httpx_errors_as_well(kind: Kind) -> None:
    """An unhealthy or unavailable service causes an error that is both a `HeksherError` and an `httpx.HTTPError`."""
    with WatchedService() as service:
        subject = Subject(kind, service.url, 3600, FEATURES)
        subject.ping()
        service.respond_with("GET /api/health", CannedResponse(500, b"unhealthy"))
        with pytest.raises(httpx.HTTPError) as unhealthy:
            subject.ping()
    assert isinstance(unhealthy.value, UnexpectedResponseError)
    assert (unhealthy.value.status, unhealthy.value.content) == (500, b"unhealthy")
    with pytest.raises(httpx.HTTPError) as unavailable:
        subject.ping()
    assert isinstance(unavailable.value, ServiceUnavailableError)
    assert isinstance(unavailable.value.__cause__, httpx.HTTPError)
    subject.close()
    with pytest.raises(ClientNotRunningError):
        subject.ping()
    with pytest.raises(ClientNotRunningError):
        subject.get_settings()


@pytest.mark.parametrize("status", [204, 206, 304, 401, 403, 404, 429, 503])
def test_settings_keep_their_values_after_an_invalid_response(kind: Kind, service: WatchedService, status: int) -> None:
    """The refresh fails with an error."""
    setting = Setting("s", int, ["user"], 1)
    rule = {"value": 2, "context_features": [["user", "jim"]], "rule_id": 1}
    service.respond_with(
        QUERY, CannedResponse.of({"settings": {"s": {"default_value": 1, "rules": [rule]}}})
    )  # without an ETag
    with running(kind, service.url) as client:
        assert setting.get(user="jim") == 2
        service.intercept = lambda request: CannedResponse(status) if str(request) in (QUERY, DECLARE) else None
        client.reload_expecting(HeksherError)
        assert setting.get(user="jim") == 2


@pytest.mark.parametrize(("version", "level"), [("1.1", logging.INFO), ("2.0", logging.WARNING)])
def test_an_outdated_declaration_uses_the_newer_default(
    kind: Kind, service: WatchedService, caplog: pytest.LogCaptureFixture, version: str, level: int
) -> None:
    """The default of the newer declaration is used even if the rules cannot be loaded.

    An older major version is logged as a warning.
    """
    caplog.set_level(logging.INFO, "heksher_client")
    service.declare("s", "int", 1, ["user"])
    service.declare("s", "int", 7, ["user"], version=version)
    setting = Setting("s", int, ["user"], 1)
    service.respond_with(QUERY, CannedResponse(503))
    subject = Subject(kind, service.url, 3600, FEATURES)
    subject.client.set_defaults(user="jim")
    if kind.raises_at_start:
        with pytest.raises(UnexpectedResponseError):
            subject.start()
    else:
        subject.start()
    subject.close()

    assert setting.explain(user="jim").reason is Reason.SERVER_DEFAULT
    assert setting.get(user="jim") == 7
    (record,) = [r for r in caplog.records if "is outdated" in r.message]
    assert record.levelno == level
    assert vars(record)["latest_version"] == version


@pytest.mark.parametrize("outcome", ["mismatch", "rejected", "conflict"])
def test_a_conflicting_declaration_is_logged_and_the_setting_is_loaded(
    kind: Kind, service: WatchedService, caplog: pytest.LogCaptureFixture, outcome: str
) -> None:
    """A response with status 409 is logged with the differences."""
    service.declare("s", "int", 1, ["user"])
    service.declare("unrelated", "int", 1, ["user"])
    service.add_rule("s", 5, user="jim")
    declarations: dict[str, Callable[[], Setting[Any]]] = {
        "mismatch": lambda: Setting("s", int, ["user"], 2),
        "rejected": lambda: Setting("s", str, ["user"], "x", version="1.1"),
        "conflict": lambda: Setting("s", int, ["user"], 1, alias="unrelated"),
    }
    setting = declarations[outcome]()
    with running(kind, service.url):
        expected = "x" if outcome == "rejected" else 5
        assert setting.get(user="jim") == expected
    (record,) = [r for r in caplog.records if "conflicts with" in r.message]
    assert record.levelname == "ERROR"
    assert vars(record)["outcome"] == outcome
    assert bool(vars(record)["differences"]) == (outcome != "conflict")
    assert ("alias of unrelated setting" in record.message) == (outcome == "conflict")


def test_a_refused_declaration_is_sent_again_after_five_minutes(
    kind: Kind, service: WatchedService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then each refresh fails, as an operator has to fix the declaration."""
    setting = Setting("s", int, ["user"], 1)
    service.respond_with(DECLARE, CannedResponse(422, b"no"), times=1)
    clock = [1000.0]
    monkeypatch.setattr("heksher_client._drivers.client._clock", lambda: clock[0])
    subject = Subject(kind, service.url, 3600, FEATURES)
    monkeypatch.undo()
    subject.client.set_defaults(user="jim")
    if kind.raises_at_start:
        with pytest.raises(HeksherError):
            subject.start()
        subject.close()
        return
    subject.start()
    for elapsed, declarations in ((0, 1), (301, 2)):
        clock[0] += elapsed
        subject.clear_outcomes()
        subject.client._session.refresh_soon()
        assert isinstance(subject.next_outcome(), DeclarationError) == (declarations == 1)
        assert len(service.requests_to(DECLARE)) == declarations
        assert (subject.client.status().last_success is None) == (declarations == 1)
    assert setting.explain().reason is Reason.SERVER_DEFAULT
    subject.close()


def test_reload_sends_a_refused_declaration_again(kind: Kind, service: WatchedService) -> None:
    """A call of `reload` after a fix does not wait for five minutes."""
    with running(kind, service.url) as client:
        client.clear_outcomes()
        service.respond_with(DECLARE, CannedResponse(422, b"no"), times=1)
        setting = Setting("s", int, ["user"], 1)
        assert isinstance(client.next_outcome(), DeclarationError)
        client.reload()
        assert setting.explain().reason is Reason.SERVER_DEFAULT


def test_a_404_of_a_proxy_fails_one_refresh(kind: Kind, service: WatchedService) -> None:
    """It does not delay declarations by five minutes."""
    settings = [Setting(f"s{i}", int, ["user"], 1) for i in range(3)]
    with running(kind, service.url) as client:
        for setting in settings:
            service.add_rule(setting.name, 2, user="jim")
        service.intercept = lambda request: CannedResponse(404, b"<html>no route</html>")
        client.reload_expecting(HeksherError)
        service.intercept = lambda request: None
        client.client._session.refresh_soon()
        assert client.next_outcome() is None
        assert [setting.get(user="jim") for setting in settings] == [2, 2, 2]


def test_an_error_is_reported_even_if_the_next_request_fails_as_well(
    kind: Kind, service: WatchedService, caplog: pytest.LogCaptureFixture
) -> None:
    """The errors of a refused declaration and of the query after it are both reported."""
    with running(kind, service.url) as client:
        client.clear_outcomes()
        service.intercept = lambda request: (
            CannedResponse(422, b"no")
            if str(request) == DECLARE
            else CannedResponse(503)
            if str(request) == QUERY
            else None
        )
        kept, refused = Setting("kept", int, ["user"], 1), Setting("refused", int, ["user"], 1)
        error = client.reload_expecting(DeclarationError)
        assert {"kept", "refused"} <= set(str([error, *error.__notes__]).replace(":", " ").split())
        assert (kept.get(), refused.get()) == (1, 1)


def test_a_new_order_of_context_features_changes_priorities(kind: Kind, service: WatchedService) -> None:
    """The new order applies even if the responses to queries are unchanged."""
    setting = Setting("s", int, ["user", "theme"], 0)
    with running(kind, service.url) as client:
        service.add_rule("s", 1, user="jim")
        service.add_rule("s", 2, theme="dark")
        client.reload()
        assert setting.get(user="jim", theme="dark") == 2
        moved = CannedResponse.of({"context_features": ["environment", "theme", "user"]})
        service.respond_with("GET /api/v1/context_features", moved)
        client.reload()
        assert setting.get(user="jim", theme="dark") == 1


def test_a_response_that_arrives_while_another_client_is_main_is_applied_later(
    kind: Kind, service: WatchedService
) -> None:
    """Its ETag is not stored, so the next response is not 304."""
    setting = Setting("s", int, ["user"], 1)
    with running(kind, service.url) as client:
        stub = SyncStubHeksherClient()

        def take_over(request: RecordedRequest) -> None:
            if str(request) == QUERY:
                service.intercept = lambda request: None
                stub.set_as_main()

        service.add_rule("s", 2, user="jim")
        service.intercept = take_over
        client.reload()
        stub.close()
        client.reload()
        assert setting.get(user="jim") == 2


def test_split_queries_are_merged_again_after_a_while(kind: Kind, service: WatchedService) -> None:
    """A single response with status 500 does not split queries forever."""
    settings = [Setting(f"s{i}", int, ["user"], i) for i in range(8)]
    with running(kind, service.url) as client:
        service.respond_with(QUERY, CannedResponse(500), times=1)
        client.reload()
        assert [len(request.query["settings"].split(",")) for request in service.requests_to(QUERY)][-3:] == [8, 4, 4]
        for _ in range(61):
            client.reload()
        assert len(service.requests_to(QUERY)[-1].query["settings"].split(",")) == len(settings)


def test_query_parameters_of_the_http_client_are_added(kind: Kind, service: WatchedService) -> None:
    """A program can set an API key in the query string."""
    setting = Setting("s", int, ["user"], 1)
    with running(kind, service.url, http_client_args={"params": {"key": "k y"}}) as client:
        client.get_settings()
        query = service.requests_to(QUERY)[-1].query
    assert query == {"settings": "s", "context_filters": "*", "include_metadata": "false", "key": "k y"}
    assert service.requests[0].query == {"key": "k y"}
    assert setting.get() == 1


def test_no_header_or_token_is_in_an_error_or_a_log_record(kind: Kind, caplog: pytest.LogCaptureFixture) -> None:
    """An invalid header value is redacted as well, though the error of httpx quotes it."""
    caplog.set_level(logging.DEBUG, "heksher_client")
    headers = httpx.Headers({"Authorization": "Bearer s3cret\n"})
    with WatchedService() as service:
        subject = Subject(kind, service.url, 3600, FEATURES, http_client_args={"headers": headers})
        if kind.raises_at_start:
            with pytest.raises(ServiceUnavailableError) as raised:
                subject.start()
            assert "s3cret" not in str(raised.value)
        else:
            subject.start()
        subject.close()
    assert "s3cret" not in caplog.text


@pytest.mark.parametrize("value", [["x"], 5, b"x"])
def test_a_context_value_that_is_not_a_string_is_an_error(kind: Kind, service: WatchedService, value: Any) -> None:
    """It is an error with and without rules, as the value could never match."""
    setting = Setting("s", int, ["user"], 1)
    with running(kind, service.url), pytest.raises(TypeError, match="user must be a str"):
        setting.get(user=value)


def test_a_setting_that_is_missing_in_a_response_keeps_its_rules(kind: Kind, service: WatchedService) -> None:
    """The refresh fails with an error that names the setting."""
    setting = Setting("s", int, ["user"], 1)
    with running(kind, service.url) as client:
        service.add_rule("s", 2, user="jim")
        client.reload()
        service.respond_with(QUERY, CannedResponse.of({"settings": {}}))
        error = client.reload_expecting(UnexpectedResponseError)
        assert "did not include setting s" in str(error)
        assert setting.get(user="jim") == 2


def test_several_failures_are_all_reported(
    kind: Kind, service: WatchedService, caplog: pytest.LogCaptureFixture
) -> None:
    """The first error is raised with the others as notes, and each is logged."""
    settings = [Setting(f"s{i}", int, ["no_such_feature"], 1) for i in range(3)]
    subject = Subject(kind, service.url, 3600, FEATURES)
    if kind.raises_at_start:
        with pytest.raises(HeksherError) as raised:
            subject.start()
        error: Any = raised.value
    else:
        subject.start()
        error = subject.next_outcome()
        assert len([r for r in caplog.records if r.message.startswith("refresh failed")]) == len(settings)
    subject.close()
    assert len(error.__notes__) == 2


def test_of_rules_with_the_same_conditions_the_higher_id_wins(
    kind: Kind, service: WatchedService, caplog: pytest.LogCaptureFixture
) -> None:
    """The service should not send such rules. The log record names the unused rule."""
    setting = Setting("s", int, ["environment", "user"], 1)
    conditions = [["user", "jim"], ["environment", "prod"]]
    rules = [
        {"value": 2, "context_features": conditions, "rule_id": 8},
        {"value": 3, "context_features": conditions[::-1], "rule_id": 7},
    ]
    service.respond_with(QUERY, CannedResponse.of({"settings": {"s": {"default_value": 1, "rules": rules}}}))
    with running(kind, service.url):
        assert setting.get(environment="prod", user="jim") == 2
    (record,) = [r for r in caplog.records if "same conditions" in r.message]
    assert vars(record)["unused_rules"] == [7]


def test_threads_can_read_the_settings_of_an_async_client(service: WatchedService) -> None:
    """Reads do not depend on an event loop or a thread."""
    kind = AsyncKind()
    setting = Setting("s", int, ["user"], 1)
    with running(kind, service.url) as client:
        service.add_rule("s", 2, user="jim")
        client.reload()
        values: list[int] = []
        thread = threading.Thread(target=lambda: values.append(setting.get(user="jim")))
        thread.start()
        thread.join(TIMEOUT_SECONDS)
    kind.stop()
    assert values == [2]


def test_a_local_service_with_a_database_file_is_persistent(kind: Kind, tmp_path: Any) -> None:
    """A service that is restarted with its file has all settings and rules."""
    setting = Setting("s", int, ["user"], 1)
    local = LocalService(["user"], database=tmp_path / "settings.db")
    with local, running(kind, local.url, context_features=("user",)):
        body = {"setting": "s", "feature_values": {"user": "jim"}, "value": 2}
        http_request("POST", f"{local.url}/api/v1/rules", json=body).raise_for_status()
    with local, running(kind, local.url, context_features=("user",)):
        assert setting.get(user="jim") == 2


@pytest.mark.parametrize(
    "response",
    [CannedResponse(200, b"text"), CannedResponse.of({"outcome": "unknown"}), CannedResponse(503), CannedResponse(401)],
)
def test_a_declaration_with_an_invalid_response_is_sent_again_at_the_next_refresh(
    kind: Kind, service: WatchedService, response: CannedResponse
) -> None:
    """The refresh stops there, as other requests would fail as well."""
    settings = [Setting(f"s{i}", int, ["user"], 1) for i in range(3)]
    with running(kind, service.url) as client:
        client.clear_outcomes()
        service.respond_with(DECLARE, response)
        later = Setting("later", int, ["user"], 1)
        client.reload_expecting(UnexpectedResponseError)
        service.intercept = lambda request: None
        service.declare("later", "int", 1, ["user"])
        service.add_rule("later", 2, user="jim")
        client.reload()
        assert later.get(user="jim") == 2
        assert [setting.get() for setting in settings] == [1] * 3


def test_a_declaration_that_repeatedly_gets_500_affects_that_setting_only(kind: Kind, service: WatchedService) -> None:
    """After three attempts it is an error of that setting until the next refresh."""
    good = Setting("good", int, ["user"], 1)
    with running(kind, service.url) as client:
        service.add_rule("good", 2, user="jim")
        service.respond_with(DECLARE, CannedResponse(500), times=3)
        client.clear_outcomes()
        bad = Setting("bad", int, ["user"], 1)
        assert isinstance(client.next_outcome(), UnexpectedResponseError)
        assert good.get(user="jim") == 2
        assert bad.explain().reason is Reason.DECLARED_DEFAULT
        client.reload()
        assert bad.explain().reason is Reason.SERVER_DEFAULT


def test_a_default_that_is_coerced_is_used_and_logged(
    kind: Kind, service: WatchedService, caplog: pytest.LogCaptureFixture
) -> None:
    """The valid part of the service's default is used, and the rest is logged."""
    service.declare("s", 'Flags["A","B","C"]', ["A"], ["user"])
    service.declare("s", 'Flags["A","B","C"]', ["A", "C"], ["user"], version="1.1")
    setting = Setting("s", Letters, ["user"], Letters.A)
    with running(kind, service.url):
        assert setting.explain().reason is Reason.SERVER_DEFAULT
        assert setting.get() == Letters.A
    assert "default value was coerced: unknown flag 'C' dropped" in caplog.text


def test_null_and_false_are_defaults_as_well(kind: Kind, service: WatchedService) -> None:
    """A default that is false is not a missing default."""
    service.declare("s", "bool", True, ["user"])
    service.declare("s", "bool", False, ["user"], version="1.1")
    setting = Setting("s", bool, ["user"], True)
    with running(kind, service.url):
        resolution = setting.explain()
    assert (resolution.value, resolution.reason) == (False, Reason.SERVER_DEFAULT)


def test_a_newer_default_that_arrives_after_a_takeover_is_not_used(kind: Kind, service: WatchedService) -> None:
    """Only the main client applies defaults."""
    service.declare("late", "int", 1, ["user"])
    service.declare("late", "int", 7, ["user"], version="1.1")
    with running(kind, service.url) as client:
        stub = SyncStubHeksherClient()
        stub.set_defaults(user="jim")

        def take_over(request: RecordedRequest) -> None:
            if str(request) == DECLARE:
                stub.set_as_main()

        service.intercept = take_over
        client.clear_outcomes()
        late = Setting("late", int, ["user"], 1)
        client.next_outcome()
        assert late.get() == 1
        stub.close()


def test_reload_raises_while_the_client_is_being_closed(kind: Kind, service: WatchedService) -> None:
    """A caller never waits for a refresh that does not take place."""
    errors: list[Exception | None] = []
    subject = Subject(kind, service.url, 3600, FEATURES)
    subject.start()
    session = subject.client._session
    session._wake = session.close  # like a thread that closes it between the check and the wait
    session.add_waiter(errors.append)
    session._wake = subject.client._wake_up
    subject.close()
    assert [type(error) for error in errors] == [ClientNotRunningError]


def test_contexts_can_be_tracked_before_the_start(kind: Kind, service: WatchedService) -> None:
    """The first query has them as its context filter."""
    setting = Setting("s", int, ["user"], 1)
    setting.add_validator(lambda value, rule, of: value)
    subject = Subject(kind, service.url, 3600, FEATURES)
    subject.client.track_contexts(user=["jim", "john"])
    subject.start()
    subject.close()
    assert [request.query["context_filters"] for request in service.requests_to(QUERY)] == ["user:(jim,john)"]
