"""Random sequences of events in the service, the program and the network: reads return values of the service."""

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
from tests.support.forks import exited_successfully, fork_and_check
from tests.support.service import CannedResponse, WatchedService

USERS = ("jim", "ann")
NAMES = st.sampled_from(["a", "b", "c"])
VALUES = st.integers(0, 9)


# The state machine forks intentionally, although there are threads.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


class ServiceSetting:
    """The default and the rules of a setting in the service."""

    def __init__(self, default: int) -> None:
        self.default = default
        self.rules: dict[str, tuple[int, int]] = {}
        """The id and the value of the rule on each user."""

    def value(self, user: str) -> int:
        return self.rules[user][1] if user in self.rules else self.default


class History(RuleBasedStateMachine):
    """A random sequence of events, with one kind of client."""

    kind: Kind
    service: WatchedService

    def __init__(self) -> None:
        super().__init__()
        self.settings: dict[str, Setting[int]] = {}
        self.in_service: dict[str, ServiceSetting] = {}
        """The settings in the service, by the names that the program declares."""
        self.service_names: dict[str, str] = {}
        """The names of the settings in the service, by the names that the program declares."""
        self.allowed: dict[tuple[str, str], set[int]] = {}
        """All values that the service had for a setting and a user since the last successful refresh."""
        self.is_down = False
        self.has_forked = False
        self.client: Subject | None = None

    @initialize()
    def begin(self) -> None:
        self.service.reset()
        self._start()
        self.declare("always", 0)

    def _start(self) -> None:
        self.client = Subject(self.kind, self.service.url, 3600, FEATURES)
        self.client.client.set_defaults(user="eve")
        try:
            self.client.start()
        except HeksherError:
            assert self.is_down
            assert self.kind.raises_at_start
            self.client = None
            return
        if not self.is_down:
            self._record_refresh()

    def _record_refresh(self) -> None:
        """After a successful refresh, values are those of the service, and missing settings were declared again."""
        for name, setting in self.settings.items():
            self.in_service.setdefault(name, ServiceSetting(setting.default_value))
            self.service_names.setdefault(name, name)
            for user in USERS:
                self.allowed[name, user] = {self.in_service[name].value(user)}

    def _record_change(self, name: str) -> None:
        for user in USERS:
            if name in self.settings:
                self.allowed[name, user].add(self.in_service[name].value(user))

    # -- the program ---------------------------------------------------------------------------------------------------

    @rule(name=NAMES, default=VALUES)
    def declare(self, name: str, default: int) -> None:
        if name in self.settings:
            return
        if name in self.in_service:
            default = self.in_service[name].default  # another one would need a newer version
        self.settings[name] = Setting(name, int, ["user"], default)
        for user in USERS:
            self.allowed[name, user] = {
                default,
                *([self.in_service[name].value(user)] if name in self.in_service else []),
            }
        self.reload()  # the client does so by itself as well, a moment later

    @rule(name=NAMES)
    def delete_from_program(self, name: str) -> None:
        """The rules of the setting stay in the service."""
        deleted = self.settings.pop(name, None)
        if deleted is not None:
            # References to it may remain: captured log records have errors whose frames belong to refreshes.
            registry._entries.pop(ref(entry_of(deleted)), None)
        for user in USERS:
            self.allowed.pop((name, user), None)
        gc.collect()  # a setting and its getter refer to each other

    @rule()
    def reload(self) -> None:
        if self.client is None:
            return
        self.client.clear_outcomes()
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
            self._record_refresh()

    @rule()
    def restart_client(self) -> None:
        if self.client is not None:
            self.client.close()
        self._start()

    @precondition(lambda self: self.client is not None and not self.has_forked)
    @rule()
    def fork(self) -> None:
        """The child starts with the values of the parent, and refreshes by itself if the service is available."""
        self.has_forked = True

        def has_new_values() -> bool:
            expected = {
                name: self.in_service.get(name) or ServiceSetting(setting.default_value)
                for name, setting in self.settings.items()
            }
            return all(
                self.settings[name].get(user=user) == expected[name].value(user) for name in expected for user in USERS
            )

        def child() -> bool:
            self.reads_return_recent_values()
            return self.is_down or eventually(has_new_values)

        assert exited_successfully(fork_and_check(child))

    # -- the service and the network -----------------------------------------------------------------------------------

    @precondition(lambda self: self.in_service)
    @rule(data=st.data(), user=st.sampled_from(USERS), value=VALUES)
    def put_rule(self, data: st.DataObject, user: str, value: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.in_service)))
        state = self.in_service[name]
        if user in state.rules:
            self.service.call("DELETE", f"/api/v1/rules/{state.rules.pop(user)[0]}")
            self._record_change(name)
        state.rules[user] = self.service.add_rule(self.service_names[name], value, user=user), value
        self._record_change(name)

    @precondition(lambda self: self.in_service)
    @rule(data=st.data())
    def rename(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.in_service)))
        if self.service_names[name] == name:
            self.service.declare(
                f"{name}_new", "int", self.in_service[name].default, ["user"], alias=name, version="1.1"
            )
            self.service_names[name] = f"{name}_new"

    @precondition(lambda self: self.in_service)
    @rule(data=st.data())
    def delete_from_service(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.in_service)))
        self.service.call("DELETE", f"/api/v1/settings/{self.service_names.pop(name)}")
        del self.in_service[name]
        if name in self.settings:
            for user in USERS:
                self.allowed[name, user].add(self.settings[name].default_value)

    @rule()
    def empty_the_database(self) -> None:
        is_down = self.is_down
        self.service.reset()
        for name in list(self.in_service):
            del self.in_service[name], self.service_names[name]
            if name in self.settings:
                for user in USERS:
                    self.allowed[name, user].add(self.settings[name].default_value)
        if is_down:
            self.start_outage()

    @rule()
    def start_outage(self) -> None:
        self.is_down = True
        self.service.intercept = lambda request: CannedResponse(502)

    @rule()
    def end_outage(self) -> None:
        self.is_down = False
        self.service.intercept = lambda request: None

    @invariant()
    def reads_return_recent_values(self) -> None:
        for (name, user), allowed in self.allowed.items():
            assert self.settings[name].get(user=user) in allowed, (name, user)

    def teardown(self) -> None:
        if self.client is not None:
            self.client.close()
        registry._entries.clear()


def test_reads_return_values_that_the_service_had(kind: Kind, service: WatchedService) -> None:
    """After any sequence of events, no value is older than the last successful refresh."""
    machine: Any = type("HistoryOfKind", (History,), {"kind": kind, "service": service})
    # Without shrinking, which would take too long: each step uses a real service.
    options = settings(max_examples=15, stateful_step_count=25, deadline=None, phases=[Phase.explicit, Phase.generate])
    run_state_machine_as_test(machine, settings=options)
