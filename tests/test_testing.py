"""The stub clients, as the tests of a program use them."""

import inspect
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import Any
from unittest import mock

import pytest

from heksher_client import (
    AsyncHeksherClient,
    Change,
    ClientNotRunningError,
    MissingContextError,
    Reason,
    Setting,
    State,
    ThreadHeksherClient,
    UnknownContextError,
)
from heksher_client._core.settings.registry import registry
from heksher_client.testing import AsyncStubHeksherClient, Call, Rule, SyncStubHeksherClient
from tests.core.settings.test_types import Letters
from tests.support.clients import ThreadKind, running
from tests.support.service import WatchedService


@pytest.fixture
def setting() -> Setting[int]:
    return Setting("s", int, ["environment", "user", "theme"], 1)


@pytest.fixture
def stub() -> Any:
    with SyncStubHeksherClient(context_features=["environment", "user", "theme"]) as stub:
        stub.set_defaults(environment="prod", user="jim", theme="dark")
        yield stub


def test_an_assigned_value_applies_in_every_context(stub: SyncStubHeksherClient, setting: Setting[int]) -> None:
    """Every read returns it."""
    assert setting.get() == 1
    stub[setting].rules = 5
    assert (setting.get(), setting.get(user="john")) == (5, 5)


def test_a_stub_resolves_rules_like_a_client(stub: SyncStubHeksherClient, setting: Setting[int]) -> None:
    """Priority, defaults and explanations are the same."""
    stub[setting].rules = [Rule({"environment": "prod"}, 2), Rule({"user": "jim"}, 3), Rule({}, 4)]
    assert (setting.get(), setting.get(user="john"), setting.get(user="john", environment="dev")) == (3, 2, 4)
    resolution = setting.explain()
    assert (resolution.reason, resolution.rule) == (Reason.RULE, Rule({"user": "jim"}, 3))
    assert stub[setting].rules == (Rule({"user": "jim"}, 3), Rule({"environment": "prod"}, 2), Rule({}, 4))


def test_a_read_without_a_context_value_fails_like_with_a_client(setting: Setting[int]) -> None:
    """A test finds the mistakes that would occur in production."""
    user: ContextVar[str] = ContextVar("user")
    with SyncStubHeksherClient() as stub:
        stub.set_defaults(user=user, environment="prod")
        stub[setting].rules = 5
        with pytest.raises(MissingContextError, match="user, theme"):
            setting.get()
        user.set("jim")
        assert setting.get(theme="dark") == 5


def test_monkeypatch_restores_the_former_rules(
    stub: SyncStubHeksherClient, setting: Setting[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A patch may assign a value or rules, several times, for a part of a test."""
    stub[setting].rules = [Rule({"user": "jim"}, 2)]
    with monkeypatch.context() as patched:
        patched.setattr(stub[setting], "rules", 3)
        assert setting.get() == 3
        patched.setattr(stub[setting], "rules", 4)
        assert setting.get() == 4
    assert (setting.get(), setting.get(user="john")) == (2, 1)


def test_mock_patch_restores_the_former_rules(stub: SyncStubHeksherClient, setting: Setting[int]) -> None:
    """It does so even if other rules were assigned inside the block."""
    with mock.patch.object(stub[setting], "rules", 3):
        assert setting.get() == 3
        stub[setting].rules = 4
        assert setting.get() == 4
    assert (setting.get(), setting.explain().reason) == (1, Reason.DECLARED_DEFAULT)


def test_all_references_to_a_stubbed_setting_see_the_same_rules(
    stub: SyncStubHeksherClient, setting: Setting[int]
) -> None:
    """A patch of one of them restores the rules that another one assigned."""
    held = stub[setting]
    stub[setting].rules = 5
    assert held.rules == (Rule({}, 5),)
    with mock.patch.object(held, "rules", 6):
        assert setting.get() == 6
    assert setting.get() == 5


def test_a_client_started_inside_a_stub_keeps_its_rules(service: WatchedService, setting: Setting[int]) -> None:
    """It does so even if the stub closes first."""
    service.declare("s", "int", 1, ["environment", "user", "theme"])
    service.add_rule("s", 2, user="none")
    stub = SyncStubHeksherClient()
    stub.set_as_main()
    with running(ThreadKind(), service.url):
        stub.close()
        assert setting.get() == 2


def test_a_setting_declared_inside_a_stub_belongs_to_the_outer_client_afterwards(service: WatchedService) -> None:
    """The client declares the setting and loads its rules when the stub has closed."""
    service.declare("inside", "int", 1, ["user"])
    service.add_rule("inside", 2, user="none")
    with running(ThreadKind(), service.url) as client:
        with SyncStubHeksherClient():
            inside = Setting("inside", int, ["user"], 1)
        client.reload()
        assert inside.get() == 2


def test_patch_works_and_is_deprecated(stub: SyncStubHeksherClient, setting: Setting[int]) -> None:
    """As in the older client, it applies immediately and is undone at the end of the block."""
    with pytest.warns(DeprecationWarning, match="rules"):
        patch = stub.patch(setting, [Rule({"user": "jim"}, 3)])
    assert setting.get() == 3
    with patch:
        assert setting.get() == 3
    assert setting.get() == 1


@pytest.mark.parametrize(
    ("python_type", "default", "value", "expected"),
    [
        (Sequence[int], [1], [], ()),
        (Sequence[int], [1], [2, 3], (2, 3)),
        (Mapping[str, int], {}, {"a": 1}, {"a": 1}),
        (Letters, Letters.A, Letters.AB, Letters.AB),
        (float, 0.5, 2, 2.0),
        (int, 1, [], 1),
    ],
)
def test_a_value_is_converted_as_if_the_service_had_sent_it(
    stub: SyncStubHeksherClient, python_type: Any, default: Any, value: Any, expected: Any
) -> None:
    """It becomes immutable. An empty list is a value of a sequence, and means "no rules" for any other type."""
    setting: Setting[Any] = Setting("x", python_type, ["user"], default)
    stub[setting].rules = value
    assert setting.get() == expected
    assert type(setting.get()) is not list


def test_a_value_of_the_wrong_type_is_refused(stub: SyncStubHeksherClient, setting: Setting[int]) -> None:
    """So are unknown features, duplicate conditions and misspelled attributes; the setting keeps its rules."""
    values: list[Any] = ["5", None, [5], [Rule({}, 5), 5], [Rule({}, "5")], mock.Mock()]
    for value in values:
        with pytest.raises(TypeError, match="setting s"):
            stub[setting].rules = value
    with pytest.raises(UnknownContextError, match="planet"):
        stub[setting].rules = [Rule({"planet": "mars"}, 5)]
    with pytest.raises(ValueError, match="same conditions"):
        stub[setting].rules = [Rule({"user": "jim"}, 5), Rule({"user": "jim"}, 6)]
    with pytest.raises(AttributeError, match="rule"):
        stub[setting].rule = 5  # type: ignore[attr-defined]
    assert setting.get() == 1


def test_closing_a_stub_restores_the_former_state(service: WatchedService, setting: Setting[int]) -> None:
    """The former main client is the main one again, and each setting has its former rules and defaults."""
    service.declare("s", "int", 1, ["environment", "user", "theme"])
    service.add_rule("s", 2, user="jim")
    with running(ThreadKind(), service.url) as client:
        client.client.set_defaults(user="jim")
        former = registry.main
        assert setting.get() == 2
        with SyncStubHeksherClient() as outer:
            outer.set_defaults(environment="a", user="b", theme="c")
            outer[setting].rules = 3
            with SyncStubHeksherClient() as inner:
                inner.set_defaults(environment="a", user="b", theme="c")
                inner[setting].rules = 4
                with pytest.raises(RuntimeError, match="before"):
                    inner.set_as_main()
                inside = Setting("inside", int, ["user"], 7)
                assert (setting.get(), inside.get()) == (4, 7)
            assert setting.get() == 3
            with pytest.raises(ClientNotRunningError):
                client.reload()
            assert setting.get() == 3
        assert (setting.get(), registry.main) == (2, former)
        client.reload()
        assert setting.get() == 2
    assert registry.main is None


def test_is_assigned_is_true_once_the_test_has_assigned_rules(
    stub: SyncStubHeksherClient, setting: Setting[int]
) -> None:
    """Reading `rules` does not change it, and an empty list of rules counts as well."""
    assert (stub[setting].rules, stub[setting].is_assigned) == ((), False)
    stub[setting].rules = []
    assert stub[setting].is_assigned


def test_calls_records_the_calls_of_methods(setting: Setting[int]) -> None:
    """It has them in order, with their keyword arguments, and without hooks."""
    with SyncStubHeksherClient("http://x", 5, ["user"], http_client_args={}) as stub:
        stub.set_defaults(user="jim")
        stub.track_contexts(user=["jim", "john"])
        stub.reload()
        stub.ping()
        with stub.modification_lock:
            data = stub.get_settings()
        stub.on_update_ok()
        stub.on_update_error(ValueError())
        Setting("later", int, ["user"], 1)
    assert stub.calls == [
        Call("set_as_main"),
        Call("set_defaults", {"user": "jim"}),
        Call("track_contexts", {"user": ["jim", "john"]}),
        Call("reload"),
        Call("ping"),
        Call("get_settings"),
        Call("close"),
    ]
    assert data["s"].configurable_features == ["environment", "user", "theme"]
    assert (data["s"].type, data["s"].aliases) == ("int", [])


def test_a_stub_checks_names_and_values_like_a_client() -> None:
    """Names are checked against the context features if the stub was created with some."""
    with SyncStubHeksherClient(context_features=None) as unlisted:
        unlisted.set_defaults(planet="mars")
    with SyncStubHeksherClient(context_features=["user"]) as stub:
        with pytest.raises(UnknownContextError):
            stub.set_defaults(planet="mars")
        with pytest.raises(ValueError, match="the value of context feature user must have"):
            stub.track_contexts(user="")


@pytest.mark.anyio
async def test_the_async_stub_does_the_same(setting: Setting[int]) -> None:
    """Its methods are those of the async client."""
    aliased = Setting("new", int, ["user"], 1, alias="old")
    async with AsyncStubHeksherClient() as stub:
        stub.set_defaults(environment="prod", user="jim", theme="dark")
        stub[setting].rules = 5
        async with stub.modification_lock:
            assert setting.get() == 5
        await stub.reload()
        await stub.ping()
        assert (await stub.get_settings())[aliased.name].aliases == ["old"]
    assert [call.method for call in stub.calls] == [
        "set_as_main", "set_defaults", "reload", "ping", "get_settings", "aclose",
    ]  # fmt: skip
    with pytest.warns(DeprecationWarning, match="aclose"):
        await stub.close()
    assert setting.get() == 1


def test_a_stub_accepts_a_credential_and_has_the_attribute_closed() -> None:
    """It records the credential and does not use it."""
    stub = SyncStubHeksherClient()
    with stub:
        stub.use_credential(("jim", "x"))
        assert (stub.closed, stub.credential) == (False, None)
    assert stub.closed
    assert ("use_credential", {"auth": ("jim", "x")}) in stub.calls


@pytest.mark.parametrize(
    ("stub_class", "client_class"),
    [(SyncStubHeksherClient, ThreadHeksherClient), (AsyncStubHeksherClient, AsyncHeksherClient)],
)
def test_a_stub_has_the_interface_of_its_client(stub_class: type, client_class: type) -> None:
    """It has every public method of the client, with the same signature."""
    for name, method in inspect.getmembers(client_class, inspect.isfunction):
        if name.startswith("_") and name not in ("__enter__", "__exit__", "__aenter__", "__aexit__"):
            continue
        stub_method = getattr(stub_class, name)
        assert inspect.signature(stub_method) == inspect.signature(method), name
        assert inspect.iscoroutinefunction(stub_method) == inspect.iscoroutinefunction(method), name
    parameters = inspect.signature(stub_class).parameters
    assert list(parameters) == list(inspect.signature(client_class).parameters)
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    assert all(p.default is not p.empty or p.kind in variadic for p in parameters.values())


def test_a_stub_of_a_class_with_arguments_of_its_own() -> None:
    """They are passed to `__post_init__`, as by a client. Without it they are errors."""

    class ShopStub(SyncStubHeksherClient):
        def __post_init__(self, team: str, *, region: str) -> None:
            self.own = (team, region, self.closed)

    stub: Any = ShopStub
    assert stub("http://host", 60, ["user"], "shop", region="eu", jitter=0).own == ("shop", "eu", False)
    plain: Any = SyncStubHeksherClient
    with pytest.raises(TypeError, match="SyncStubHeksherClient got an unexpected keyword argument 'region'"):
        plain(region="eu")
    with pytest.raises(TypeError, match="SyncStubHeksherClient takes 3 positional arguments, but 4 were given"):
        plain("http://host", 60, ["user"], "shop")


def test_a_stub_records_the_timeout_of_a_call() -> None:
    """It must be valid, as for a client."""
    with SyncStubHeksherClient() as stub:
        stub.calls.clear()
        stub.reload(timeout=2)
        stub.ping(timeout=0.5)
        stub.get_settings(timeout=1)
        assert stub.calls == [("reload", {"timeout": 2}), ("ping", {"timeout": 0.5}), ("get_settings", {"timeout": 1})]
        with pytest.raises(ValueError, match="timeout must be a positive number of seconds"):
            stub.reload(timeout=-1)


def test_a_stub_has_a_status() -> None:
    """It is the status of a client that has just received the rules that the test assigned."""
    setting = Setting("s", int, ["user"], 1)
    stub = SyncStubHeksherClient()
    assert stub.status().state is State.STARTING
    with stub:
        stub[setting].rules = [Rule({"user": "jim"}, 2)]
        status = stub.status()
        assert (status.state, status.is_healthy, status.is_main, status.rules) == (State.FRESH, True, True, 1)


def test_a_stub_does_not_call_a_callback_that_another_callback_removed(setting: Setting[int]) -> None:
    """A stub drops pending changes of a removed callback, as a client does."""
    called: list[Any] = []
    with SyncStubHeksherClient() as stub:
        stub.on_change(lambda change: stub.off_change(called.append))
        stub.on_change(called.append)
        stub[setting].rules = 5
    assert called == []


def test_a_stub_notifies_callbacks_and_iterators(setting: Setting[int], caplog: pytest.LogCaptureFixture) -> None:
    """A test that sets rules of a stub triggers the notifications that a client sends."""
    seen: list[Change[Any]] = []
    with SyncStubHeksherClient() as stub:
        changes = stub.changes(name="billing")
        stub.on_change(seen.append)
        stub.on_change(_raise)
        setting.on_change(seen.append)
        stub[setting].rules = 5
        stub[setting].rules = 5
        stub.off_change(seen.append)
        stub[setting].rules = 6
    assert [[rule.value for rule in change.added] for change in seen] == [[5], [5], []]
    assert [change.missed for change in changes] == [1]
    assert "_raise" in caplog.text


def _raise(change: Change[Any]) -> None:
    raise KeyError("mine")
