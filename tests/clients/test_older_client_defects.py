"""What the older public client does wrong, and these do not; with both clients."""

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
from tests.support.clients import FEATURES, AsyncKind, Kind, Subject, running
from tests.support.service import DECLARE, QUERY, Answer, WatchedService


def test_a_failed_declaration_is_not_swallowed_at_the_start(kind: Kind, service: WatchedService) -> None:
    """`set_as_main` of the async client raises it; the thread client reports it and goes on trying."""
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


def test_a_failed_first_update_is_not_swallowed_either(kind: Kind, service: WatchedService) -> None:
    """`set_as_main` of the async client raises the error of the first update as well."""
    setting = Setting("s", int, ["user"], 1)
    service.answering(QUERY, Answer(503))
    subject = Subject(kind, service.url, 3600, FEATURES)

    if kind.raises_at_start:
        with pytest.raises(UnexpectedResponseError, match="503"):
            subject.start()
    else:
        subject.start()
    assert isinstance(subject.next_outcome(), UnexpectedResponseError)
    subject.close()
    assert setting.get(user="jim") == 1


def test_each_refresh_calls_one_hook_and_the_right_one(kind: Kind, service: WatchedService) -> None:
    """After an error `on_update_ok` is not called; after a success, an unchanged answer included, it is."""
    setting = Setting("s", int, ["user"], 1)
    with running(kind, service.url) as client:
        assert client.next_outcome() is None
        client.reload()
        assert client.next_outcome() is None
        service.answering(QUERY, Answer(502))
        client.reload_expecting(UnexpectedResponseError)
        service.intercept = lambda asked: None
        client.reload()
        assert client.next_outcome() is None
        assert client.client.outcomes.empty()
        assert setting.get() == 1


def test_get_settings_tells_everything_of_all_settings(kind: Kind, service: WatchedService) -> None:
    """Both clients ask for the additional data, and for settings that others declared too."""
    service.declare("theirs", "Sequence<int>", [1], ["theme", "user"], metadata={"team": "a"}, version="1.0")
    service.call("PUT", "/api/v1/settings/theirs/name", {"name": "renamed", "version": "1.1"})
    with running(kind, service.url) as client:
        (data,) = client.get_settings().values()

    assert (data.name, data.type, data.default_value, data.version) == ("renamed", "Sequence<int>", [1], "1.1")
    assert (data.configurable_features, data.metadata, data.aliases) == (["user", "theme"], {"team": "a"}, ["theirs"])


def test_a_bad_setting_does_not_abort_the_others(kind: Kind, service: WatchedService) -> None:
    """A setting whose part of the answer makes no sense keeps its rules, and all others get theirs."""
    bad, good = Setting("a_bad", int, ["user"], 1), Setting("b_good", int, ["user"], 1)
    with running(kind, service.url) as client:
        service.add_rule("a_bad", 2, user="jim")
        client.reload()
        rule = {"value": 9, "context_features": [["user", "jim"]], "rule_id": 99}
        answer = {"a_bad": {"rules": None}, "b_good": {"default_value": 1, "rules": [rule]}, "unasked": 5}
        service.answering(QUERY, Answer.of({"settings": answer}, ETag='"broken"'))
        error = client.reload_expecting(UnexpectedResponseError)

        assert "a_bad" in str(error)
        assert (bad.get(user="jim"), good.get(user="jim")) == (2, 9)
        client.reload_expecting(UnexpectedResponseError)
        assert "if-none-match" not in service.questions(QUERY)[-1].headers


def test_an_etag_is_kept_only_when_its_answer_was_put_in_place(kind: Kind, service: WatchedService) -> None:
    """A body that cannot be used must not make the next answer "unchanged"."""
    setting = Setting("s", int, ["user"], 1)
    with running(kind, service.url) as client:
        service.add_rule("s", 2, user="jim")
        service.answering(QUERY, Answer(200, b'{"settings": {"s": ', {"ETag": '"truncated"'}), times=1)
        client.reload_expecting(UnexpectedResponseError)
        client.reload()

        assert service.questions(QUERY)[-1].headers.get("if-none-match") != '"truncated"'
        assert setting.get(user="jim") == 2


def test_a_later_reload_does_not_raise_an_earlier_error(kind: Kind, service: WatchedService) -> None:
    """Each reload has the outcome of a refresh that began after it was called."""
    setting = Setting("s", int, ["user"], 1)
    with running(kind, service.url) as client:
        service.answering(QUERY, Answer(500), times=2)
        client.reload_expecting(UnexpectedResponseError)
        service.intercept = lambda asked: None
        service.add_rule("s", 2, user="jim")
        client.reload()
        assert setting.get(user="jim") == 2


def test_a_failed_refresh_does_not_end_the_refreshing(kind: Kind, service: WatchedService) -> None:
    """The client goes on by itself after any failure, be it one that nobody foresaw."""
    setting = Setting("s", int, ["user"], 1)
    with running(kind, service.url, interval=0.02) as client:
        service.answering(QUERY, Answer(200, b"<html>", {"ETag": "x"}))
        service.add_rule("s", 2, user="jim")
        while client.next_outcome() is None:
            pass
        service.intercept = lambda asked: None
        while client.next_outcome() is not None:
            pass
        assert setting.get(user="jim") == 2


def test_an_unforeseen_defect_does_not_end_the_refreshing(
    kind: Kind, service: WatchedService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even an error of ours in a refresh is reported, and the next one takes place."""
    setting = Setting("s", int, ["user"], 1)
    with running(kind, service.url) as client:
        service.add_rule("s", 2, user="jim")
        with monkeypatch.context() as patched:
            patched.setattr(client.client._session._refresher.states, "by_canonical_name", lambda settings: 1 // 0)
            client.reload_expecting(ZeroDivisionError)
        client.reload()
        assert setting.get(user="jim") == 2


@pytest.mark.parametrize("hook", ["on_update_ok", "on_update_error"])
def test_a_hook_that_raises_ends_nothing(
    kind: Kind, service: WatchedService, caplog: pytest.LogCaptureFixture, hook: str
) -> None:
    """An error in a program's hook is logged, and the refreshing goes on."""
    setting = Setting("s", int, ["user"], 1)
    with running(kind, service.url) as client:

        def broken(*args: object) -> None:
            client.client.outcomes.put(args[0] if args else None)
            raise LookupError("a defect of the program")

        broken.__name__ = hook
        setattr(client.client, hook, broken)
        if hook == "on_update_error":
            service.answering(QUERY, Answer(503), times=1)
            client.reload_expecting(UnexpectedResponseError)
        service.add_rule("s", 2, user="jim")
        client.reload()
        assert setting.get(user="jim") == 2
    assert [vars(r)["hook"] for r in caplog.records if r.message == f"{hook} raised"] == [hook]


def test_a_failed_start_leaves_the_settings_to_the_next_client(kind: Kind, service: WatchedService) -> None:
    """A client that could not start takes nothing with it: the next one declares and loads all settings."""
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


def test_two_settings_of_one_name_both_work(kind: Kind, service: WatchedService) -> None:
    """The rules of a name go to every setting of that name, each by its own type; a declaration is sent once."""
    first, second = (Setting("s", int, ["user"], 1) for _ in range(2))
    other = Setting("s", float, ["user"], 1.0)
    with running(kind, service.url) as client:
        service.add_rule("s", 2, user="jim")
        client.reload()

        assert (first.get(user="jim"), second.get(user="jim"), other.get(user="jim")) == (2, 2, 2.0)
        assert type(other.get(user="jim")) is float
        assert len(service.questions(DECLARE)) == 2


def test_on_coerce_none_rejects_what_would_be_coerced(
    kind: Kind, service: WatchedService, caplog: pytest.LogCaptureFixture
) -> None:
    """With `on_coerce=None` a rule that could be used in part only is not used at all, and says so."""
    service.declare("s", 'Flags["A","B","C"]', ["A"], ["user"])
    service.add_rule("s", ["A", "C"], user="jim")
    service.add_rule("s", ["B"], user="john")
    from tests.core.settings.test_types import Letters

    strict = Setting("s", Letters, ["user"], Letters.A, on_coerce=None)
    lenient = Setting("s", Letters, ["user"], Letters.A)
    calls: list[Any] = []

    def ask(*args: Any) -> Letters:
        calls.append(args)
        return Letters.B

    asking = Setting("s", Letters, ["user"], Letters.A, on_coerce=ask)

    with running(kind, service.url):
        assert (strict.get(user="jim"), strict.get(user="john")) == (Letters.A, Letters.B)
        assert lenient.get(user="jim") == Letters.A
        assert lenient.explain(user="jim").reason is Reason.RULE
        assert asking.get(user="jim") == Letters.B
    ((value, raw, coercions, rule, setting),) = calls
    assert (value, raw, coercions, setting) == (Letters.A, ["A", "C"], ("unknown flag 'C' dropped",), asking)
    assert (rule.rule_id, dict(rule.match_conditions)) == (1, {"user": "jim"})


def test_get_does_not_begin_to_raise_when_an_operator_adds_a_rule(kind: Kind, service: WatchedService) -> None:
    """A context feature without a value is the caller's mistake from the first read on, rules or not."""
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


def test_reads_log_nothing(kind: Kind, service: WatchedService, caplog: pytest.LogCaptureFixture) -> None:
    """A read is no event: neither before the first client, nor of an untracked value, nor without rules."""
    caplog.set_level(logging.DEBUG, "heksher_client")
    setting = Setting("s", int, ["user"], 1)
    setting.get(user="jim")
    with running(kind, service.url) as client:
        client.client.track_contexts(user="jim")
        client.reload()
        caplog.clear()
        for _ in range(3):
            setting.get(user="somebody_else")
        assert caplog.records == []


@pytest.mark.parametrize("client_class", [AsyncHeksherClient, ThreadHeksherClient])
def test_get_works_after_the_client_was_collected(service: WatchedService, client_class: Any) -> None:
    """The last values and the defaults stay readable when the client is closed and gone."""
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


def test_every_error_of_the_service_is_a_heksher_error(kind: Kind, service: WatchedService) -> None:
    """A program catches one class for whatever the service or the network does."""
    service.answering("GET /api/v1/settings", Answer(200, b"[]"))
    with running(kind, service.url) as client, pytest.raises(HeksherError):
        client.get_settings()
