"""Random histories of a service, its operators, a program and the network: reads give what the service held."""

import gc
from typing import Any
from weakref import ref

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from heksher_client import HeksherError, Setting, State
from heksher_client._core.settings.registry import registry
from heksher_client._core.settings.setting import entry_of
from tests.support.clients import FEATURES, Kind, Subject, eventually
from tests.support.forks import begun_in_child, ended_well
from tests.support.service import Answer, WatchedService

USERS = ("jim", "ann")
NAMES = st.sampled_from(["a", "b", "c"])
VALUES = st.integers(0, 9)


# The machine forks on purpose, where there are threads.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


class ResponseKey:
    """What the service holds for a setting."""

    def __init__(self, default: int) -> None:
        self.default = default
        self.rules: dict[str, tuple[int, int]] = {}
        """The id and the value of the rule on each user."""

    def value(self, user: str) -> int:
        return self.rules[user][1] if user in self.rules else self.default


class History(RuleBasedStateMachine):
    """One history, of one kind of client."""

    kind: Kind
    service: WatchedService

    def __init__(self) -> None:
        super().__init__()
        self.settings: dict[str, Setting[int]] = {}
        self.held: dict[str, ResponseKey] = {}
        """By the names that the program declares."""
        self.names: dict[str, str] = {}
        """What the service calls them."""
        self.allowed: dict[tuple[str, str], set[int]] = {}
        """All that the service held for a setting and a user since the last refresh that went well."""
        self.is_down = False
        self.has_forked = False
        self.client: Subject | None = None

    @initialize()
    def begin(self) -> None:
        self.service.renew()
        self._start()
        self.declare("always", 0)

    def _start(self) -> None:
        self.client = Subject(self.kind, self.service.url, 3600, FEATURES)
        self.client.client.set_defaults(user="nobody")
        try:
            self.client.start()
        except HeksherError:
            assert self.is_down
            assert self.kind.raises_at_start
            self.client = None
            return
        if not self.is_down:
            self._refreshed()

    def _refreshed(self) -> None:
        """All is as the service has it; what was lost there was declared again."""
        for name, setting in self.settings.items():
            self.held.setdefault(name, ResponseKey(setting.default_value))
            self.names.setdefault(name, name)
            for user in USERS:
                self.allowed[name, user] = {self.held[name].value(user)}

    def _changed(self, name: str) -> None:
        for user in USERS:
            if name in self.settings:
                self.allowed[name, user].add(self.held[name].value(user))

    # -- the program ---------------------------------------------------------------------------------------------------

    @rule(name=NAMES, default=VALUES)
    def declare(self, name: str, default: int) -> None:
        if name in self.settings:
            return
        if name in self.held:
            default = self.held[name].default  # another one would need a newer version
        self.settings[name] = Setting(name, int, ["user"], default)
        for user in USERS:
            self.allowed[name, user] = {default, *([self.held[name].value(user)] if name in self.held else [])}
        self.reload()  # which it has the client do by itself as well, a moment later

    @rule(name=NAMES)
    def drop(self, name: str) -> None:
        """Its rules stay in the service."""
        dropped = self.settings.pop(name, None)
        if dropped is not None:
            # Whatever still refers to it: the log that is captured here has errors with frames of refreshes.
            registry._entries.pop(ref(entry_of(dropped)), None)
        for user in USERS:
            self.allowed.pop((name, user), None)
        gc.collect()  # a setting and its reads refer to each other

    @rule()
    def reload(self) -> None:
        if self.client is None:
            return
        self.client.forget_outcomes()
        try:
            self.client.reload()
        except HeksherError:
            assert self.is_down
        failed = self.client.next_outcome() is not None
        while not failed and not self.client.client.outcomes.empty():
            failed = self.client.next_outcome() is not None
        assert failed == self.is_down
        assert (self.client.client.status().state in (State.FAILING, State.STALE)) == self.is_down
        if not self.is_down:
            self._refreshed()

    @rule()
    def restart_client(self) -> None:
        if self.client is not None:
            self.client.close()
        self._start()

    @precondition(lambda self: self.client is not None and not self.has_forked)
    @rule()
    def fork(self) -> None:
        """The child begins with the parent's values, and refreshes by itself if the service is there."""
        self.has_forked = True

        def has_new_values() -> bool:
            held = {
                name: self.held.get(name) or ResponseKey(setting.default_value)
                for name, setting in self.settings.items()
            }
            return all(self.settings[name].get(user=user) == held[name].value(user) for name in held for user in USERS)

        def child() -> bool:
            self.what_is_read_was_held_since_the_last_success()
            return self.is_down or eventually(has_new_values)

        assert ended_well(begun_in_child(child))

    # -- the operators, and the network --------------------------------------------------------------------------------

    @precondition(lambda self: self.held)
    @rule(data=st.data(), user=st.sampled_from(USERS), value=VALUES)
    def put_rule(self, data: st.DataObject, user: str, value: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.held)))
        held = self.held[name]
        if user in held.rules:
            self.service.call("DELETE", f"/api/v1/rules/{held.rules.pop(user)[0]}")
            self._changed(name)
        held.rules[user] = self.service.add_rule(self.names[name], value, user=user), value
        self._changed(name)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def rename(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.held)))
        if self.names[name] == name:
            self.service.declare(f"{name}_new", "int", self.held[name].default, ["user"], alias=name, version="1.1")
            self.names[name] = f"{name}_new"

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.held)))
        self.service.call("DELETE", f"/api/v1/settings/{self.names.pop(name)}")
        del self.held[name]
        if name in self.settings:
            for user in USERS:
                self.allowed[name, user].add(self.settings[name].default_value)

    @rule()
    def empty_the_database(self) -> None:
        is_down = self.is_down
        self.service.renew()
        for name in list(self.held):
            del self.held[name], self.names[name]
            if name in self.settings:
                for user in USERS:
                    self.allowed[name, user].add(self.settings[name].default_value)
        if is_down:
            self.outage()

    @rule()
    def outage(self) -> None:
        self.is_down = True
        self.service.intercept = lambda asked: Answer(502)

    @rule()
    def end_of_outage(self) -> None:
        self.is_down = False
        self.service.intercept = lambda asked: None

    @invariant()
    def what_is_read_was_held_since_the_last_success(self) -> None:
        for (name, user), allowed in self.allowed.items():
            assert self.settings[name].get(user=user) in allowed, (name, user)

    def teardown(self) -> None:
        if self.client is not None:
            self.client.close()
        registry._entries.clear()


def test_what_is_read_is_what_the_service_held(kind: Kind, service: WatchedService) -> None:
    """Whatever happens, in whatever order: nothing older than the last refresh that went well, and nothing made up."""
    machine: Any = type("HistoryOfOne", (History,), {"kind": kind, "service": service})
    # Without shrinking: a history that fails is read as it is, and takes as long as it takes.
    chosen = settings(max_examples=15, stateful_step_count=25, deadline=None, phases=[Phase.explicit, Phase.generate])
    run_state_machine_as_test(machine, settings=chosen)
