"""Defects of the older public client that this one does not have."""

import gc
import logging
from contextvars import ContextVar
from typing import Any
from weakref import ref

import pytest

from heksher_client import (
    DeclarationError,
    HeksherError,
    MissingContextError,
    Reason,
    ServiceUnavailableError,
    Setting,
    UnexpectedResponseError,
)
from tests.core.settings.test_types import Letters
from tests.support.driven import DrivenClient, driven
from tests.support.fake_service import FakeService
from tests.support.log_records import summaries
from tests.support.service import DECLARE, QUERY, CannedResponse


def test_a_failed_declaration_at_the_start_is_reported(service: FakeService) -> None:
    """The start raises its error, and the hook receives it as well."""
    setting = Setting("s", int, ["no_such_feature"], 1)
    client = DrivenClient(service)
    with pytest.raises(DeclarationError, match="no_such_feature") as raised:
        client.start()
    client.close()
    assert client.outcomes == [raised.value]
    assert setting.get(no_such_feature="x") == 1


def test_a_failed_first_query_is_reported(service: FakeService) -> None:
    """The start raises its error as well."""
    setting = Setting("s", int, ["user"], 1)
    service.respond_with(QUERY, CannedResponse(503))
    client = DrivenClient(service)
    with pytest.raises(UnexpectedResponseError, match="503") as raised:
        client.start()
    client.close()
    assert client.outcomes == [raised.value]
    assert setting.get(user="jim") == 1


def test_each_refresh_calls_exactly_one_hook(service: FakeService) -> None:
    """`on_update_ok` after a success, even if the response is unchanged, and never after an error."""
    setting = Setting("s", int, ["user"], 1)
    client = DrivenClient(service)
    client.set_defaults(user="jim")
    client.start()
    client.reload()
    service.respond_with(QUERY, CannedResponse(502), times=1)
    with pytest.raises(UnexpectedResponseError) as raised:
        client.reload()
    client.reload()
    client.close()
    assert client.outcomes == [None, None, raised.value, None]
    assert setting.get() == 1


def test_get_settings_returns_all_data_of_all_settings(service: FakeService) -> None:
    """The client requests the additional data. Settings of other programs are included."""
    service.declare("other", "Sequence<int>", [1], ["theme", "user"], metadata={"team": "a"}, version="1.0")
    service.rename("other", "renamed", "1.1")
    with driven(service) as client:
        (data,) = client.get_settings().values()

    assert (data.name, data.type, data.default_value, data.version) == ("renamed", "Sequence<int>", [1], "1.1")
    assert (data.configurable_features, data.metadata, data.aliases) == (["user", "theme"], {"team": "a"}, ["other"])


def test_invalid_data_of_one_setting_does_not_affect_the_others(service: FakeService) -> None:
    """The setting with invalid data keeps its rules, and all others are updated. The ETag is not stored."""
    bad, good = Setting("a_bad", int, ["user"], 1), Setting("b_good", int, ["user"], 1)
    with driven(service) as client:
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


def test_an_etag_is_stored_only_after_its_response_is_applied(service: FakeService) -> None:
    """After an invalid body, the next response must not be 304."""
    setting = Setting("s", int, ["user"], 1)
    with driven(service) as client:
        service.add_rule("s", 2, user="jim")
        service.respond_with(QUERY, CannedResponse(200, b'{"settings": {"s": ', {"ETag": '"truncated"'}), times=1)
        client.reload_expecting(UnexpectedResponseError)
        client.reload()
        assert service.requests_to(QUERY)[-1].headers.get("if-none-match") != '"truncated"'
        assert setting.get(user="jim") == 2


def test_reload_does_not_raise_an_earlier_error(service: FakeService) -> None:
    """Each call has the outcome of a refresh that began after the call."""
    setting = Setting("s", int, ["user"], 1)
    with driven(service) as client:
        service.respond_with(QUERY, CannedResponse(500))
        client.reload_expecting(UnexpectedResponseError)
        service.intercept = lambda request: None
        service.add_rule("s", 2, user="jim")
        client.reload()
        assert setting.get(user="jim") == 2


def test_a_failed_refresh_is_followed_by_the_next_one(service: FakeService) -> None:
    """The client recovers without a call of `reload`."""
    setting = Setting("s", int, ["user"], 1)
    with driven(service) as client:
        service.respond_with(QUERY, CannedResponse(200, b"<html>", {"ETag": "x"}), times=1)
        service.add_rule("s", 2, user="jim")
        client.refresh()
        assert isinstance(client.outcomes[-1], UnexpectedResponseError)

        client.refresh()
        assert client.outcomes[-1] is None
        assert setting.get(user="jim") == 2


def test_an_unexpected_exception_in_a_refresh_does_not_stop_refreshes(
    service: FakeService, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A defect of the client is reported as well, with its traceback, and the next refresh takes place."""
    setting = Setting("s", int, ["user"], 1)
    with driven(service) as client:
        service.add_rule("s", 2, user="jim")
        with monkeypatch.context() as patched:
            patched.setattr(client.session._refresher.states, "by_canonical_name", lambda settings: 1 // 0)
            error = client.reload_expecting(ZeroDivisionError)
        client.refresh()
        assert client.outcomes[-1] is None
        assert setting.get(user="jim") == 2
    assert summaries(caplog.records)[0] == ("ERROR", "a refresh failed in an unforeseen way", {"error": error})
    assert caplog.records[0].exc_info


@pytest.mark.parametrize("hook", ["on_update_ok", "on_update_error"])
def test_a_hook_that_raises_does_not_stop_refreshes(
    service: FakeService, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, hook: str
) -> None:
    """Its error is logged."""
    setting = Setting("s", int, ["user"], 1)

    def failing_hook(*args: object) -> None:
        raise LookupError("a defect of the program")

    failing_hook.__name__ = hook
    with driven(service) as client:
        monkeypatch.setattr(client, hook, failing_hook)
        if hook == "on_update_error":
            service.respond_with(QUERY, CannedResponse(503), times=1)
            client.refresh()
        service.add_rule("s", 2, user="jim")
        client.refresh()
        assert setting.get(user="jim") == 2
    assert [vars(r)["hook"] for r in caplog.records if r.message == f"{hook} raised"] == [hook]


def test_the_next_client_loads_all_settings_after_a_failed_start(service: FakeService) -> None:
    """A client that failed to start does not keep the settings."""
    setting = Setting("s", int, ["user"], 1)
    client = DrivenClient(service)
    service.is_running = False
    with pytest.raises(ServiceUnavailableError):
        client.start()
    client.close()
    service.is_running = True
    service.declare("s", "int", 1, ["user"])
    service.add_rule("s", 2, user="jim")

    with driven(service):
        assert setting.get(user="jim") == 2


def test_settings_with_the_same_name_share_their_rules(service: FakeService) -> None:
    """Each converts the values to its own type. Equal declarations are sent once."""
    first, second = (Setting("s", int, ["user"], 1) for _ in range(2))
    other = Setting("s", float, ["user"], 1.0)
    with driven(service) as client:
        service.add_rule("s", 2, user="jim")
        client.reload()
        assert (first.get(user="jim"), second.get(user="jim"), other.get(user="jim")) == (2, 2, 2.0)
        assert type(other.get(user="jim")) is float
        assert len(service.requests_to(DECLARE)) == 2


def test_on_coerce_decides_about_values_of_which_a_part_is_valid(service: FakeService) -> None:
    """With None they are rejected. With a callable, the program decides. By default, the valid part is used."""
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

    with driven(service):
        assert (strict.get(user="jim"), strict.get(user="john")) == (Letters.A, Letters.B)
        assert strict.explain(user="jim").reason is Reason.SERVER_DEFAULT
        assert lenient.get(user="jim") == Letters.A
        assert lenient.explain(user="jim").reason is Reason.RULE
        assert custom.get(user="jim") == Letters.B
    ((value, raw, coercions, rule, setting),) = calls
    assert (value, raw, coercions, setting) == (Letters.A, ["A", "C"], ("unknown flag 'C' dropped",), custom)
    assert (rule.rule_id, dict(rule.match_conditions)) == (1, {"user": "jim"})


def test_get_raises_for_a_missing_context_value_with_and_without_rules(service: FakeService) -> None:
    """A new rule does not make a call of `get` fail that succeeded before."""
    setting = Setting("s", int, ["user"], 1)
    unset: ContextVar[str] = ContextVar("unset")
    client = DrivenClient(service)
    client.start()
    with pytest.raises(MissingContextError, match="user"):
        setting.get()
    client.set_defaults(user=unset)
    with pytest.raises(MissingContextError, match="user"):
        setting.get()

    service.add_rule("s", 2, user="jim")
    client.reload()
    with pytest.raises(MissingContextError, match="user"):
        setting.get()
    assert setting.get(user="jim") == 2
    client.close()


def test_reads_do_not_log(service: FakeService, caplog: pytest.LogCaptureFixture) -> None:
    """A read of an untracked value, or without rules, is not logged either."""
    caplog.set_level(logging.DEBUG, "heksher_client")
    setting = Setting("s", int, ["user"], 1)
    setting.get(user="jim")
    with driven(service) as client:
        client.track_contexts(user="jim")
        client.reload()
        caplog.clear()
        for _ in range(3):
            setting.get(user="john")
        assert caplog.records == []


def test_settings_stay_readable_after_the_client_is_garbage_collected(service: FakeService) -> None:
    """They keep the last values, and the client's defaults of context features, but not the client."""
    setting = Setting("s", int, ["environment", "user"], 1)
    client = DrivenClient(service)
    client.set_defaults(environment="prod")
    client.start()
    service.add_rule("s", 2, environment="prod", user="jim")
    client.reload()
    client.close()
    session = ref(client.session)
    del client
    gc.collect()

    assert session() is None
    assert setting.get(user="jim") == 2
    with pytest.raises(MissingContextError):
        setting.get()


def test_an_unexpected_response_raises_a_heksher_error(service: FakeService) -> None:
    """A program can catch all errors of the service and the network with one class."""
    service.respond_with("GET /api/v1/settings", CannedResponse(200, b"[]"))
    with driven(service) as client, pytest.raises(HeksherError):
        client.get_settings()
