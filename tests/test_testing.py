"""The stub clients: what they promise to the tests of programs."""

import inspect
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import Any
from unittest import mock

import pytest

from heksher_client import (
    AsyncHeksherClient,
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
from tests.core.test_setting_types import Letters
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


def test_a_value_holds_in_every_context(stub: SyncStubHeksherClient, setting: Setting[int]) -> None:
    """Assigned, it is what all reads give."""
    assert setting.get() == 1
    stub[setting].rules = 5
    assert (setting.get(), setting.get(user="john")) == (5, 5)


def test_rules_are_resolved_as_a_client_resolves_them(stub: SyncStubHeksherClient, setting: Setting[int]) -> None:
    """The same priority, the same defaults, the same explanation."""
    stub[setting].rules = [Rule({"environment": "prod"}, 2), Rule({"user": "jim"}, 3), Rule({}, 4)]
    assert (setting.get(), setting.get(user="john"), setting.get(user="john", environment="dev")) == (3, 2, 4)
    resolution = setting.explain()
    assert (resolution.reason, resolution.rule) == (Reason.RULE, Rule({"user": "jim"}, 3))
    assert stub[setting].rules == (Rule({"user": "jim"}, 3), Rule({"environment": "prod"}, 2), Rule({}, 4))


def test_a_read_needs_its_context_as_with_a_client(setting: Setting[int]) -> None:
    """A test finds what production would."""
    user: ContextVar[str] = ContextVar("user")
    with SyncStubHeksherClient() as stub:
        stub.set_defaults(user=user, environment="prod")
        stub[setting].rules = 5
        with pytest.raises(MissingContextError, match="user, theme"):
            setting.get()
        user.set("jim")
        assert setting.get(theme="dark") == 5


def test_monkeypatch_puts_back_what_was_there(
    stub: SyncStubHeksherClient, setting: Setting[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A value or rules, for a part of a test."""
    stub[setting].rules = [Rule({"user": "jim"}, 2)]
    with monkeypatch.context() as patched:
        patched.setattr(stub[setting], "rules", 3)
        assert setting.get() == 3
        patched.setattr(stub[setting], "rules", 4)
        assert setting.get() == 4
    assert (setting.get(), setting.get(user="john")) == (2, 1)


def test_mock_patch_puts_back_what_was_there(stub: SyncStubHeksherClient, setting: Setting[int]) -> None:
    """Also when something else was assigned meanwhile."""
    with mock.patch.object(stub[setting], "rules", 3):
        assert setting.get() == 3
        stub[setting].rules = 4
        assert setting.get() == 4
    assert (setting.get(), setting.explain().reason) == (1, Reason.DECLARED_DEFAULT)


def test_all_who_hold_a_stubbed_setting_see_the_same(stub: SyncStubHeksherClient, setting: Setting[int]) -> None:
    """So that what is put back is what was there."""
    held = stub[setting]
    stub[setting].rules = 5
    assert held.rules == (Rule({}, 5),)
    with mock.patch.object(held, "rules", 6):
        assert setting.get() == 6
    assert setting.get() == 5


def test_a_client_that_was_started_inside_a_stub_keeps_its_values(
    service: WatchedService, setting: Setting[int]
) -> None:
    """Whichever of the two ends first."""
    service.declare("s", "int", 1, ["environment", "user", "theme"])
    service.add_rule("s", 2, user="none")
    stub = SyncStubHeksherClient()
    stub.set_as_main()
    with running(ThreadKind(), service.url):
        stub.close()
        assert setting.get() == 2


def test_a_setting_made_inside_a_stub_belongs_to_the_client_outside(service: WatchedService) -> None:
    """From the end of the stub on."""
    service.declare("inside", "int", 1, ["user"])
    service.add_rule("inside", 2, user="none")
    with running(ThreadKind(), service.url) as client:
        with SyncStubHeksherClient():
            inside = Setting("inside", int, ["user"], 1)
        client.reload()
        assert inside.get() == 2


def test_patch_works_and_is_deprecated(stub: SyncStubHeksherClient, setting: Setting[int]) -> None:
    """As in the older client it takes effect at once, and is undone at the end of the block."""
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
def test_a_value_is_what_the_service_would_make_of_it(
    stub: SyncStubHeksherClient, python_type: Any, default: Any, value: Any, expected: Any
) -> None:
    """Made immutable, and an empty list is a value for a sequence, and a lack of rules for all others."""
    setting: Setting[Any] = Setting("x", python_type, ["user"], default)
    stub[setting].rules = value
    assert setting.get() == expected
    assert type(setting.get()) is not list


def test_a_value_that_the_setting_could_never_have_is_refused(
    stub: SyncStubHeksherClient, setting: Setting[int]
) -> None:
    """A slip in a test must not pass for a setting's value."""
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


def test_at_the_end_everything_is_as_it_was(service: WatchedService, setting: Setting[int]) -> None:
    """The former main client is the main one again, and settings have the rules and the defaults that they had."""
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


def test_what_was_called_can_be_asked(setting: Setting[int]) -> None:
    """In order, with the arguments that matter."""
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


def test_mistakes_are_mistakes_with_a_stub_too() -> None:
    """Names are checked against the context features, where the stub was given any."""
    with SyncStubHeksherClient(context_features=["user"]) as stub:
        with pytest.raises(UnknownContextError):
            stub.set_defaults(planet="mars")
        with pytest.raises(ValueError, match="has-dash"):
            stub.track_contexts(user="has-dash")


@pytest.mark.anyio
async def test_the_async_stub_does_the_same(setting: Setting[int]) -> None:
    """With the methods of the async client."""
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


def test_a_stub_takes_a_credential_and_tells_whether_it_is_closed() -> None:
    """It has no use for it."""
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
def test_a_stub_can_stand_wherever_a_client_does(stub_class: type, client_class: type) -> None:
    """It has every public method of the client, with the same signature."""
    for name, method in inspect.getmembers(client_class, inspect.isfunction):
        if name.startswith("_") and name not in ("__enter__", "__exit__", "__aenter__", "__aexit__"):
            continue
        ours = getattr(stub_class, name)
        assert inspect.signature(ours) == inspect.signature(method), name
        assert inspect.iscoroutinefunction(ours) == inspect.iscoroutinefunction(method), name
    parameters = inspect.signature(stub_class).parameters
    assert list(parameters) == list(inspect.signature(client_class).parameters)
    assert all(p.default is not p.empty or p.kind is p.VAR_KEYWORD for p in parameters.values())


def test_a_stub_has_a_status() -> None:
    """As of a client that has just received what the test has said."""
    setting = Setting("s", int, ["user"], 1)
    stub = SyncStubHeksherClient()
    assert stub.status().state is State.STARTING
    with stub:
        stub[setting].rules = [Rule({"user": "jim"}, 2)]
        status = stub.status()
        assert (status.state, status.is_healthy, status.is_main, status.rules) == (State.FRESH, True, True, 1)
