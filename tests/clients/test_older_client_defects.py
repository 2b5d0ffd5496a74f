"""Defects of the older public client that neither client has."""

import gc
import logging
from contextvars import ContextVar
from typing import Any

import pytest

from heksher_client import (
    AsyncHeksherClient,
    DeclarationError,
    HeksherError,
    MissingContextError,
    Reason,
    ServiceUnavailableError,
    Setting,
    ThreadHeksherClient,
    UnexpectedResponseError,
)
from tests.core.settings.test_types import Letters
from tests.support.clients import FEATURES, AsyncKind, Kind, Subject, running
from tests.support.service import DECLARE, QUERY, CannedResponse, WatchedService


def test_a_failed_declaration_at_the_start_is_reported(kind: Kind, service: WatchedService) -> None:
    """`set_as_main` of the async client raises the error; the thread client calls `on_update_error`."""
    setting = Setting("s", int, ["no_such_feature"], 1)
    subject = Subject(kind, service.url, 3600, FEATURES)

    if kind.raises_at_start:
        with pytest.raises(DeclarationError, match="no_such_feature"):
            subject.start()
    else:
        subject.start()
    assert isinstance(subject.next_outcome(), DeclarationError)
    subject.close()
    assert setting.get(no_such_feature="x") == 1


def test_a_failed_first_query_is_reported(kind: Kind, service: WatchedService) -> None:
    """`set_as_main` of the async client raises its error as well."""
    setting = Setting("s", int, ["user"], 1)
    service.respond_with(QUERY, CannedResponse(503))
    subject = Subject(kind, service.url, 3600, FEATURES)

    if kind.raises_at_start:
        with pytest.raises(UnexpectedResponseError, match="503"):
            subject.start()
    else:
        subject.start()
    assert isinstance(subject.next_outcome(), UnexpectedResponseError)
    subject.close()
    assert setting.get(user="jim") == 1


def test_each_refresh_calls_exactly_one_hook(kind: Kind, service: WatchedService) -> None:
    """`on_update_ok` is called after a success, even if the response is unchanged, and never after an error."""
    setting = Setting("s", int, ["user"], 1)
    with running(kind, service.url) as client:
        assert client.next_outcome() is None
        client.reload()
        assert client.next_outcome() is None
        service.respond_with(QUERY, CannedResponse(502))
        client.reload_expecting(UnexpectedResponseError)
        service.intercept = lambda request: None
        client.reload()
        assert client.next_outcome() is None
        assert client.client.outcomes.empty()
        assert setting.get() == 1


def test_get_settings_returns_all_data_of_all_settings(kind: Kind, service: WatchedService) -> None:
    """Both clients request the additional data. Settings of other programs are included."""
    service.declare("other", "Sequence<int>", [1], ["theme", "user"], metadata={"team": "a"}, version="1.0")
    service.call("PUT", "/api/v1/settings/other/name", {"name": "renamed", "version": "1.1"})
    with running(kind, service.url) as client:
        (data,) = client.get_settings().values()

    assert (data.name, data.type, data.default_value, data.version) == ("renamed", "Sequence<int>", [1], "1.1")
    assert (data.configurable_features, data.metadata, data.aliases) == (["user", "theme"], {"team": "a"}, ["other"])


def test_invalid_data_of_one_setting_does_not_affect_the_others(kind: Kind, service: WatchedService) -> None:
    """The setting with invalid data keeps its rules, and all others are updated."""
    bad, good = Setting("a_bad", int, ["user"], 1), Setting("b_good", int, ["user"], 1)
    with running(kind, service.url) as client:
        service.add_rule("a_bad", 2, user="jim")
        client.reload()
        rule = {"value": 9, "context_features": [["user", "jim"]], "rule_id": 99}
        settings = {"a_bad": {"rules": None}, "b_good": {"default_value": 1, "rules": [rule]}, "not_requested": 5}
        service.respond_with(QUERY, CannedResponse.of({"settings": settings}, ETag='"invalid"'))
        error = client.reload_expecting(UnexpectedResponseError)

        assert "a_bad" in str(error)
        assert (bad.get(user="jim"), good.get(user="jim")) == (2, 9)
        client.reload_expecting(UnexpectedResponseError)
        assert "if-none-match" not in service.requests_to(QUERY)[-1].headers


def test_an_etag_is_stored_only_after_its_response_is_applied(kind: Kind, service: WatchedService) -> None:
    """After an invalid body, the next response must not be 304."""
    setting = Setting("s", int, ["user"], 1)
    with running(kind, service.url) as client:
        service.add_rule("s", 2, user="jim")
        service.respond_with(QUERY, CannedResponse(200, b'{"settings": {"s": ', {"ETag": '"truncated"'}), times=1)
        client.reload_expecting(UnexpectedResponseError)
        client.reload()

        assert service.requests_to(QUERY)[-1].headers.get("if-none-match") != '"truncated"'
        assert setting.get(user="jim") == 2


def test_reload_does_not_raise_an_earlier_error(kind: Kind, service: WatchedService) -> None:
    """Each call has the outcome of a refresh that began after the call."""
    setting = Setting("s", int, ["user"], 1)
    with running(kind, service.url) as client:
        service.respond_with(QUERY, CannedResponse(500), times=2)
        client.reload_expecting(UnexpectedResponseError)
        service.intercept = lambda request: None
        service.add_rule("s", 2, user="jim")
        client.reload()
        assert setting.get(user="jim") == 2


def test_a_failed_refresh_is_followed_by_the_next_one(kind: Kind, service: WatchedService) -> None:
    """The client recovers without a call of `reload`."""
    setting = Setting("s", int, ["user"], 1)
    with running(kind, service.url, interval=0.02) as client:
        service.respond_with(QUERY, CannedResponse(200, b"<html>", {"ETag": "x"}))
        service.add_rule("s", 2, user="jim")
        while client.next_outcome() is None:
            pass
        service.intercept = lambda request: None
        while client.next_outcome() is not None:
            pass
        assert setting.get(user="jim") == 2


def test_an_unexpected_exception_in_a_refresh_does_not_stop_refreshes(
    kind: Kind, service: WatchedService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A defect of the client is reported as well, and the next refresh takes place."""
    setting = Setting("s", int, ["user"], 1)
    with running(kind, service.url) as client:
        service.add_rule("s", 2, user="jim")
        with monkeypatch.context() as patched:
            patched.setattr(client.client._session._refresher.states, "by_canonical_name", lambda settings: 1 // 0)
            client.reload_expecting(ZeroDivisionError)
        client.reload()
        assert setting.get(user="jim") == 2


@pytest.mark.parametrize("hook", ["on_update_ok", "on_update_error"])
def test_a_hook_that_raises_does_not_stop_refreshes(
    kind: Kind, service: WatchedService, caplog: pytest.LogCaptureFixture, hook: str
) -> None:
    """The error is logged."""
    setting = Setting("s", int, ["user"], 1)
    with running(kind, service.url) as client:

        def failing_hook(*args: object) -> None:
            client.client.outcomes.put(args[0] if args else None)
            raise LookupError("a defect of the program")

        failing_hook.__name__ = hook
        setattr(client.client, hook, failing_hook)
        if hook == "on_update_error":
            service.respond_with(QUERY, CannedResponse(503), times=1)
            client.reload_expecting(UnexpectedResponseError)
        service.add_rule("s", 2, user="jim")
        client.reload()
        assert setting.get(user="jim") == 2
    assert [vars(r)["hook"] for r in caplog.records if r.message == f"{hook} raised"] == [hook]


def test_the_next_client_loads_all_settings_after_a_failed_start(kind: Kind, service: WatchedService) -> None:
    """A client that failed to start does not keep the settings."""
    setting = Setting("s", int, ["user"], 1)
    subject = Subject(kind, "http://127.0.0.1:9", 3600, FEATURES)
    if kind.raises_at_start:
        with pytest.raises(ServiceUnavailableError):
            subject.start()
    else:
        subject.start()
        subject.close()
    service.declare("s", "int", 1, ["user"])
    service.add_rule("s", 2, user="jim")

    with running(kind, service.url):
        assert setting.get(user="jim") == 2


def test_settings_with_the_same_name_share_their_rules(kind: Kind, service: WatchedService) -> None:
    """Each converts the values to its own type. Equal declarations are sent once."""
    first, second = (Setting("s", int, ["user"], 1) for _ in range(2))
    other = Setting("s", float, ["user"], 1.0)
    with running(kind, service.url) as client:
        service.add_rule("s", 2, user="jim")
        client.reload()

        assert (first.get(user="jim"), second.get(user="jim"), other.get(user="jim")) == (2, 2, 2.0)
        assert type(other.get(user="jim")) is float
        assert len(service.requests_to(DECLARE)) == 2


def test_on_coerce_none_rejects_values_that_would_be_coerced(
    kind: Kind, service: WatchedService, caplog: pytest.LogCaptureFixture
) -> None:
    """With a callable, the program decides. By default, the valid part of the value is used."""
    service.declare("s", 'Flags["A","B","C"]', ["A"], ["user"])
    service.add_rule("s", ["A", "C"], user="jim")
    service.add_rule("s", ["B"], user="john")
    strict = Setting("s", Letters, ["user"], Letters.A, on_coerce=None)
    lenient = Setting("s", Letters, ["user"], Letters.A)
    calls: list[Any] = []

    def choose(*args: Any) -> Letters:
        calls.append(args)
        return Letters.B

    custom = Setting("s", Letters, ["user"], Letters.A, on_coerce=choose)

    with running(kind, service.url):
        assert (strict.get(user="jim"), strict.get(user="john")) == (Letters.A, Letters.B)
        assert lenient.get(user="jim") == Letters.A
        assert lenient.explain(user="jim").reason is Reason.RULE
        assert custom.get(user="jim") == Letters.B
    ((value, raw, coercions, rule, setting),) = calls
    assert (value, raw, coercions, setting) == (Letters.A, ["A", "C"], ("unknown flag 'C' dropped",), custom)
    assert (rule.rule_id, dict(rule.match_conditions)) == (1, {"user": "jim"})


def test_get_raises_for_a_missing_context_value_with_and_without_rules(kind: Kind, service: WatchedService) -> None:
    """A new rule does not make a call of `get` fail that succeeded before."""
    setting = Setting("s", int, ["user"], 1)
    unset: ContextVar[str] = ContextVar("unset")
    subject = Subject(kind, service.url, 3600, FEATURES)
    try:
        subject.start()
        with pytest.raises(MissingContextError, match="user"):
            setting.get()
        subject.client.set_defaults(user=unset)
        with pytest.raises(MissingContextError, match="user"):
            setting.get()
        service.add_rule("s", 2, user="jim")
        subject.reload()
        with pytest.raises(MissingContextError, match="user"):
            setting.get()
        assert setting.get(user="jim") == 2
    finally:
        subject.close()


def test_reads_do_not_log(kind: Kind, service: WatchedService, caplog: pytest.LogCaptureFixture) -> None:
    """A read of an untracked value, or without rules, is not logged either."""
    caplog.set_level(logging.DEBUG, "heksher_client")
    setting = Setting("s", int, ["user"], 1)
    setting.get(user="jim")
    with running(kind, service.url) as client:
        client.client.track_contexts(user="jim")
        client.reload()
        caplog.clear()
        for _ in range(3):
            setting.get(user="john")
        assert caplog.records == []


@pytest.mark.parametrize("client_class", [AsyncHeksherClient, ThreadHeksherClient])
def test_settings_stay_readable_after_the_client_is_garbage_collected(
    service: WatchedService, client_class: Any
) -> None:
    """They keep the last values, and the client's defaults of context features."""
    setting = Setting("s", int, ["environment", "user"], 1)
    kind = AsyncKind() if client_class is AsyncHeksherClient else None
    client = client_class(service.url, 3600, FEATURES)
    client.set_defaults(environment="prod")
    call = kind.call if kind else (lambda result: result)
    call(client.set_as_main())
    service.add_rule("s", 2, environment="prod", user="jim")
    call(client.reload())
    call(client.aclose() if kind else client.close())
    del client
    if kind:
        kind.stop()
    gc.collect()

    assert setting.get(user="jim") == 2
    with pytest.raises(MissingContextError):
        setting.get()


def test_an_unexpected_response_raises_a_heksher_error(kind: Kind, service: WatchedService) -> None:
    """A program can catch all errors of the service and the network with one class."""
    service.respond_with("GET /api/v1/settings", CannedResponse(200, b"[]"))
    with running(kind, service.url) as client, pytest.raises(HeksherError):
        client.get_settings()
