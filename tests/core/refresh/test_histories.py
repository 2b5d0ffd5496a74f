"""Random histories of the service, the program and the network, compared with a naive model after each step.

The history is driven by hand. The model is the service itself, whose rules are evaluated one by one; it does not know
how a client works, but which values it may have, and when it refreshes.
"""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from enum import Enum
from typing import Any, NamedTuple
from weakref import ref

import pytest
from hypothesis import HealthCheck, settings
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
from heksher_client._core.refresh.positions import newest_by_service
from heksher_client._core.settings.registry import registry
from heksher_client._core.settings.setting import entry_of
from tests.support.clients import FEATURES
from tests.support.driven import START, WALL_CLOCK_OFFSET, DrivenClient
from tests.support.fake_service import FakeService
from tests.support.last_known_good import MemoryFile
from tests.support.service import CHANGES, CONTEXT_FEATURES, QUERY, CannedResponse

INTERVAL = 100.0
LONG_INTERVAL = 3600.0
"""With the change stream, so that refreshes in between are due to the stream."""
STALE_AFTER = 250
NAMES = st.sampled_from(["a", "b", "c"])
VALUES = st.integers(0, 9)
SECONDS = st.sampled_from([0.0, 1.0, 7.0, 60.0, 100.0, 1000.0])
USERS = st.sampled_from(["jim", "ann"])
THEMES = st.sampled_from([{"dark"}, {"dark", "light"}])
CONDITIONS = st.fixed_dictionaries({}, optional={"user": USERS, "theme": st.sampled_from(["dark", "light"])})
CONTEXTS = [{"user": user, "theme": theme} for user in ("jim", "ann", "eve") for theme in ("dark", "light")]
VALIDATED = 100
"""What each validator adds to a value."""


class Fault(Enum):
    """A fault of the service or the network."""

    NETWORK = "no response to any request"
    PROXY = "502 to any request"
    QUERY = "503 to queries; declarations succeed"
    ORDER = "500 to requests for the context features; values are refreshed with the last known order"


class Rules(NamedTuple):
    """The default and the rules of a setting at some time."""

    default: int
    rules: tuple[tuple[int, int, Mapping[str, str]], ...]
    """Id, value and conditions."""

    def value(self, context: Mapping[str, str], order: Iterable[str], tracked: Mapping[str, set[str]]) -> int:
        """Return the value of the matching rule with conditions on the last context features, or the default."""
        priority = list(reversed([*order]))
        matching = [
            ([feature in conditions for feature in priority], rule_id, value)
            for rule_id, value, conditions in self.rules
            if conditions.items() <= context.items()
            and (not tracked or all(value in tracked.get(feature, ()) for feature, value in conditions.items()))
        ]
        return max(matching)[2] if matching else self.default


class Client(DrivenClient):
    """A client that reports the end of each refresh to its history."""

    def __init__(self, history: "History", **options: Any) -> None:
        self._history = history
        super().__init__(
            history.service,
            context_features=FEATURES,
            update_interval=history.interval,
            stale_after=STALE_AFTER,
            now=history.now,
            last_known_good=history.file,
            **options,
        )

    def _refresh(self) -> None:
        super()._refresh()
        self._history.refreshed(self, self.outcomes[-1])


class History(RuleBasedStateMachine):
    """A random history of one program and its service."""

    offers_changes: bool
    has_file: bool

    def __init__(self) -> None:
        super().__init__()
        self.service = FakeService(FEATURES)
        self.service.offers_changes = self.offers_changes
        self.interval = LONG_INTERVAL if self.offers_changes else INTERVAL
        self.file = MemoryFile() if self.has_file else None
        self.client: Client | None = None
        self.raises_at_start = False
        self.now = START
        self.fault_of_service: Fault | None = None
        self.versions = 0

        self.program: dict[str, Setting[int]] = {}
        self.validators: dict[str, int] = {}
        """How many validators each setting has."""
        self.tracked: dict[str, set[str]] = {}
        self.allowed: dict[tuple[str, int], set[int]] = {}
        """The values that the service had since the last successful refresh, by setting and index of the context."""
        self.orders: list[list[str]] = []
        """The orders of the context features that the client may use: one, if the service has said it."""
        self.is_order_known = False
        self.stored: dict[str, list[tuple[Rules, Mapping[str, set[str]]]]] = {}
        """The rules, and what was tracked, at each successful refresh that was stored; by setting."""
        self.restored_from: dict[str, int] = {}
        """The indexes of those that the last start without the service may have restored; by setting."""
        self.stored_orders: list[list[str]] = []

        self.due = START
        self.is_requested = False
        self.retries = 0
        self.failures = 0
        self.last_success: float | None = None
        self.received_at: float | None = None
        self.is_restored = False
        """True if some values may be older than `received_at`."""
        self.requests = 0
        self.revision, self.changed_at = 0, START - 60
        self.backup: FakeService | None = None
        newest_by_service.clear()

    @initialize(raises_at_start=st.booleans())
    def begin(self, raises_at_start: bool) -> None:
        self.raises_at_start = raises_at_start
        self.create("a", 0)
        self.create("b", 1)
        self.start_client()
        self.service.add_rule("a", 2, user="jim")
        self.service.add_rule("a", 3, theme="dark")
        self.changed()

    @property
    def fault(self) -> Fault | None:
        """The fault that refreshes have now: without settings, there are no queries."""
        without_queries = {Fault.PROXY: Fault.ORDER, Fault.QUERY: None}
        fault = self.fault_of_service
        return fault if self.program or fault is None else without_queries.get(fault, fault)

    # -- the model -----------------------------------------------------------------------------------------------------

    def rules_of(self, name: str) -> Rules | None:
        """Return the rules that the service has for a setting."""
        setting = self.service._find(name)
        if setting is None:
            return None
        rules = tuple((rule_id, rule.value, rule.conditions) for rule_id, rule in setting.rules.items())
        return Rules(setting.declaration.default_value, rules)

    def observe(self) -> None:
        """Allow the values that the service has now."""
        for name in self.program:
            if (rules := self.rules_of(name)) is not None:
                self.allow(name, rules)
        if self.service.revision != self.revision:
            self.revision, self.changed_at = self.service.revision, self.now

    def allow(self, name: str, rules: Rules) -> None:
        for index, context in enumerate(CONTEXTS):
            values = {rules.value(context, order, self.tracked) for order in (self.service.features, *self.orders)}
            # The default may arrive without the rules, with the outcome of the declaration.
            self.allowed[name, index] |= {rules.default, *values}

    def values(self, name: str) -> list[int]:
        return [self.program[name].get(**context) for context in CONTEXTS]

    def check_values(self) -> None:
        """Check that all values are those of the service, with one of the orders that the client may know."""

        def expected(order: list[str]) -> dict[str, list[int]]:
            result = {}
            for name in self.program:
                rules = self.rules_of(name)
                assert rules is not None, f"{name} was not declared again"
                added = VALIDATED * self.validators[name]
                result[name] = [rules.value(context, order, self.tracked) + added for context in CONTEXTS]
            return result

        values = {name: self.values(name) for name in self.program}
        assert values in [expected(order) for order in self.orders], self.orders

    def refreshed(self, client: Client, error: Exception | None) -> None:
        """Check a refresh that has just ended: whether it was due, its outcome, its cost and its values."""
        self.now = client.now
        is_scheduled = self.is_requested or self.now == self.due
        assert is_scheduled or (self.offers_changes and self.now < self.due)
        requests = [str(request) for request in self.service.requests[self.requests :] if str(request) != CHANGES]
        # If nothing has changed, nothing is queried.
        fault = None if self.fault is Fault.QUERY and QUERY not in requests else self.fault
        assert (error is None) == (fault is None)
        # The order may have changed in between, or the database was restored, which three repetitions confirm.
        # A replica that lags responds to every second request.
        assert len(requests) <= (7 + 3 * len(self.program)) * (1 if self.service.replica is None else 2), requests
        self.requests, self.is_requested = len(self.service.requests), False

        self.failures = 0 if error is None else self.failures + 1
        if fault in (None, Fault.QUERY):
            self.orders, self.is_order_known = [list(self.service.features)], True
        self.retries = 0 if fault is None else self.retries + 1
        self.due = self.now + min(60, 2 ** (self.retries - 1))
        if fault in (None, Fault.ORDER):
            self.due = self.now + self.interval if fault is None else min(self.due, self.now + self.interval)
            self.received_at, self.is_restored = self.now, False
            self.check_values()
            self.allowed = {
                (name, index): {value % VALIDATED}
                for name in self.program
                for index, value in enumerate(self.values(name))
            }
            self.store(fault)
        else:
            self.is_restored = self.file is not None
        if error is None:
            self.last_success = self.now + WALL_CLOCK_OFFSET
        self.observe()

    def store(self, fault: Fault | None) -> None:
        """Record what the client has stored after a successful refresh."""
        if self.file is None or self.file.error is not None:
            return
        for name in self.program:
            rules = self.rules_of(name)
            assert rules is not None
            tracked = {feature: set(values) for feature, values in self.tracked.items()}
            self.stored.setdefault(name, []).append((rules, tracked))
        if fault is None:
            self.stored_orders.append(list(self.service.features))

    # -- the program ---------------------------------------------------------------------------------------------------

    @rule(
        what=st.sampled_from(["start_client", "start_program", "start_program_without_tracking", "fork"]),
        fault=st.none() | st.sampled_from(Fault),
    )
    def restart(self, what: str, fault: Fault | None) -> None:
        if fault is not None:
            self.begin_fault(fault, 0.0)
        getattr(self, what)()

    def start_client(self) -> None:
        """Start a client, in place of the running one if there is one."""
        self.close_client()
        self.forget_order()
        self.due, self.is_requested = self.now, True
        self.retries = self.failures = 0
        self.last_success = self.received_at = None
        self.is_restored = False
        self.client = client = Client(self, raises_at_start=self.raises_at_start)
        client.set_defaults(**dict.fromkeys(FEATURES, "none"))
        client.track_contexts(**self.tracked)
        try:
            client.start()
        except HeksherError:
            assert self.fault in (Fault.NETWORK, Fault.PROXY, Fault.QUERY)
            assert not client.status().is_last_known_good
            if self.raises_at_start:
                self.close_client()

    def forget_order(self) -> None:
        """At the start the client has its own order, or that of the last known good."""
        self.is_order_known = False
        self.orders = [list(FEATURES), *(self.stored_orders if self.file else [])]

    def close_client(self) -> None:
        if self.client is not None:
            self.client.close()
            assert self.client.status().state is State.CLOSED
        self.client = None

    def start_program_without_tracking(self) -> None:
        self.start_program(keeps_tracking=False)

    def start_program(self, *, keeps_tracking: bool = True) -> None:
        """Start the program again. Only the last known good is left of the values."""
        self.close_client()
        self.forget_order()  # before the values are allowed that the last known good has with it
        newest_by_service.clear()
        self.service.replica = None  # A new process cannot tell that it lags.
        names = list(self.program)
        for name in names:
            self.drop(name)
        self.tracked = self.tracked if keeps_tracking else {}
        for name in names:
            self.program[name] = Setting(name, int, ["user", "theme"], 0)
            self.validators[name] = 0
            for index in range(len(CONTEXTS)):
                self.allowed[name, index] = {0}
            for rules, _ in self.stored.get(name, []) if self.file else []:
                self.allow(name, rules)
            covering = [index for index, (_, tracked) in enumerate(self.stored.get(name, [])) if self.covers(tracked)]
            self.restored_from[name] = covering[-1] if covering else 0
        self.observe()
        self.start_client()
        if self.fault is Fault.NETWORK and self.client is not None:
            self.check_restored_values()

    def check_restored_values(self) -> None:
        """Check the values after a start without the service: those of the last refresh, or the declared defaults."""
        is_stored = self.file is not None and self.file.error is None
        for name in self.program:
            rules, tracked = self.stored[name][-1] if is_stored and name in self.stored else (None, self.tracked)
            if rules is None:
                assert self.values(name) == [0] * len(CONTEXTS)
            elif tracked == self.tracked:
                order = self.stored_orders[-1]
                assert self.values(name) == [rules.value(context, order, self.tracked) for context in CONTEXTS]

    @rule(what=st.sampled_from(["create", "drop", "add_validator", "track"]), data=st.data())
    def change_the_program(self, what: str, data: st.DataObject) -> None:
        match what:
            case "create":
                self.create(data.draw(NAMES), data.draw(VALUES))
            case "track":
                self.track(data.draw(USERS), data.draw(THEMES))
            case _:
                getattr(self, what)(data.draw(NAMES))

    def create(self, name: str, default: int) -> None:
        """Create a setting. If the service has it with another default, the declaration is in conflict with it."""
        if name in self.program:
            return
        self.program[name] = Setting(name, int, ["user", "theme"], default)
        self.validators[name] = 0
        for index in range(len(CONTEXTS)):
            self.allowed[name, index] = {default}
        for rules, _ in self.stored.get(name, []) if self.file else []:
            self.allow(name, rules)
        self.observe()
        self.is_requested = self.client is not None

    def drop(self, name: str) -> None:
        """Delete a setting from the program. Its rules stay in the service."""
        setting = self.program.pop(name, None)
        if setting is not None:
            # References to it may remain in frames of errors.
            registry._entries.pop(ref(entry_of(setting)), None)
        for index in range(len(CONTEXTS)):
            self.allowed.pop((name, index), None)

    def add_validator(self, name: str) -> None:
        """Values that were received before are validated by the next refresh."""
        if name in self.program:
            self.program[name].add_validator(lambda value, rule, setting: value + VALIDATED)
            self.validators[name] += 1
            self.is_requested = self.client is not None

    def track(self, user: str, themes: set[str]) -> None:
        if self.client is None:
            return
        self.client.track_contexts(user=user, theme=themes)
        for feature, values in (("user", {user}), ("theme", themes)):
            self.tracked = {**self.tracked, feature: self.tracked.get(feature, set()) | values}
        self.is_requested = True
        for name in self.program:
            # If no refresh has succeeded yet, a stored response may have more rules. But values do not go back.
            for rules, _ in self.stored.get(name, [])[self.restored_from.get(name, 0) :] if self.is_restored else []:
                self.allow(name, rules)
        self.observe()

    def covers(self, tracked: Mapping[str, set[str]]) -> bool:
        """True if all that is tracked now was tracked then. Nothing means everything."""
        return not tracked or (
            bool(self.tracked) and all(values <= tracked.get(name, set()) for name, values in self.tracked.items())
        )

    def reload(self) -> None:
        assert self.client is not None
        self.is_requested = True
        with suppress(HeksherError):
            self.client.reload()

    @precondition(lambda self: self.client is not None and self.fault is None and self.service.replica is None)
    @rule()
    def reload_without_changes(self) -> None:
        """Costs one request, or two if the service does not say its revision. The rules are not sent again."""
        assert self.client is not None
        for _ in range(3):  # The first ones may query what could not be stored.
            before = len(self.service.requests)
            self.reload()
        first, *others = self.service.requests[before:]
        assert str(first) == CONTEXT_FEATURES
        assert [str(request) for request in others] == [QUERY] * (bool(self.program) and not self.offers_changes)
        assert all("if-none-match" in request.headers for request in others)

    def fork(self) -> None:
        """Continue as the child of a fork, which refreshes soon."""
        if self.client is not None:
            self.client.continue_in_child()
            self.due, self.is_requested = self.now, False

    @rule(seconds=SECONDS)
    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        if self.client is not None:
            self.client.advance(seconds)
            assert self.due > end
            assert not self.is_requested
        self.now = end

    # -- the service ---------------------------------------------------------------------------------------------------

    def changed(self) -> None:
        """Check that a change is loaded at once if the client follows changes, and the last one was not just before."""
        is_quiet = self.now - self.changed_at >= 4
        self.observe()
        for name, setting in self.program.items():
            if self.rules_of(name) is None:  # It is declared again.
                for index in range(len(CONTEXTS)):
                    self.allowed[name, index].add(setting.default_value)
        if self.client is not None and self.client.status().is_following and self.fault is None:
            self.advance(0 if is_quiet else 1)
            # After a failure the next refresh may be due later, as not each change is of a setting of the program.
            if self.retries == 0:
                self.check_values()

    @rule(
        several=st.lists(
            st.sampled_from(
                ["put_rule", "move_feature", "rename", "upgrade", "delete", "empty", "replace", "restore", "restart"]
            ),
            min_size=1,
            max_size=3,
        ),
        data=st.data(),
    )
    def change_the_service(self, several: list[str], data: st.DataObject) -> None:
        for what in several:
            self.change_one(what, data)

    def change_one(self, what: str, data: st.DataObject) -> None:
        self.versions += 1
        names = sorted(self.service.settings)
        match what:
            case "move_feature":
                feature, to_after, _ = data.draw(st.permutations(FEATURES))
                self.service.move_feature(feature, to_after)
            case "empty":
                self.service.empty()
            case "replace":
                self.service.replace_database()
                self.lose_stream()
            case "restore" if self.backup is not None:
                self.service.restore(self.backup)
                self.service.replica = None  # Otherwise the client would send more requests, and wait in between.
                self.changed_at = self.now
                self.lose_stream()
            case "restart":
                self.service.restart()
                self.lose_stream()
            case "restore":
                pass
            case _ if names:
                getattr(self, what)(data, data.draw(st.sampled_from(names)))
        self.changed()

    @rule()
    def back_up(self) -> None:
        self.backup = self.service.snapshot()

    @precondition(lambda self: self.client is not None and self.fault is None and self.offers_changes)
    @rule()
    def begin_lag(self) -> None:
        """From now on, a replica that is older than the client responds to every second request."""
        replica = self.service.snapshot()
        self.service.change_another_setting()
        self.observe()
        self.reload()
        self.service.replica = replica

    @rule()
    def end_lag(self) -> None:
        self.service.replica = None

    def put_rule(self, data: st.DataObject, name: str) -> None:
        """Add a rule, or replace the one with the same conditions, in two steps."""
        conditions = data.draw(CONDITIONS)
        former = [i for i, one in self.service.setting(name).rules.items() if one.conditions == conditions]
        if former:
            self.service.delete_rule(former[0])
            self.observe()
        self.service.add_rule(name, data.draw(VALUES), **conditions)

    def rename(self, data: st.DataObject, name: str) -> None:
        self.service.rename(name, f"{name[0]}{self.versions}", f"1.{self.versions}")

    def upgrade(self, data: st.DataObject, name: str) -> None:
        """A newer release of another program declares another default."""
        self.service.declare(name, "int", data.draw(VALUES), ["user", "theme"], version=f"1.{self.versions}")

    def delete(self, data: st.DataObject, name: str) -> None:
        self.service.delete(name)

    # -- the network and the disk --------------------------------------------------------------------------------------

    @rule(fault=st.sampled_from(Fault), seconds=SECONDS)
    def begin_fault(self, fault: Fault, seconds: float) -> None:
        self.end_fault()
        self.fault_of_service = fault
        match fault:
            case Fault.NETWORK:
                self.service.is_running = False
                self.lose_stream()
            case Fault.PROXY:
                self.service.intercept = lambda request: CannedResponse(502)
            case Fault.QUERY:
                self.service.respond_with(QUERY, CannedResponse(503))
            case Fault.ORDER:
                self.service.respond_with(CONTEXT_FEATURES, CannedResponse(500))
        self.advance(seconds)

    @precondition(lambda self: self.client is not None)
    @rule()
    def recover(self) -> None:
        """End all faults. Within a minute, or an interval, all values are those of the service."""
        self.end_fault()
        if self.file is not None:
            self.file.error = None
        if not self.is_order_known:
            # Otherwise the client would use its own order and no stream until the interval ends.
            self.reload()
        self.advance(65 if self.offers_changes else INTERVAL)
        self.check_values()
        assert self.client is not None
        assert self.client.status().is_following == self.offers_changes or not self.program

    def end_fault(self) -> None:
        self.fault_of_service, self.service.is_running = None, True
        self.service.intercept = lambda request: None

    def lose_stream(self) -> None:
        if self.client is not None and self.client.status().is_following:
            self.client.lose_stream()

    def fill_the_disk(self) -> None:
        if self.file is not None:
            self.file.error = OSError(28, "No space left on device")

    @rule(what=st.sampled_from(["lose_stream", "fill_the_disk", "end_fault"]))
    def change_the_environment(self, what: str) -> None:
        getattr(self, what)()

    # -- after each step -----------------------------------------------------------------------------------------------

    @invariant()
    def values_are_recent(self) -> None:
        """No value is older than the last successful refresh."""
        for name in self.program:
            for index, value in enumerate(self.values(name)):
                assert value % VALIDATED in self.allowed[name, index], (name, CONTEXTS[index])
                assert value // VALIDATED <= self.validators[name]

    @invariant()
    def the_next_refresh_is_due_in_time(self) -> None:
        if self.client is not None:
            wait = self.client.session.wait()
            expected = 0 if self.is_requested else self.due - self.now
            assert wait == expected or (self.offers_changes and wait < expected)
            assert self.client.status().next_attempt == wait

    @invariant()
    def the_status_is_true(self) -> None:
        if self.client is None:
            return
        status = self.client.status()
        assert (status.failures, status.last_success) == (self.failures, self.last_success)
        assert (status.last_error is not None) or not status.failures
        assert not status.is_last_known_good or self.is_restored
        if self.is_restored:
            assert status.age is None or status.age >= self.now - (self.received_at or self.now)
        else:
            assert status.age == (None if self.received_at is None else self.now - self.received_at)
        if status.age is None or status.age >= STALE_AFTER:
            assert status.state is State.STALE
        else:
            assert status.state is (State.FAILING if self.failures else State.FRESH)
        assert status.settings.keys() == self.program.keys()

    def teardown(self) -> None:
        self.close_client()
        registry._entries.clear()


@pytest.mark.slow
@pytest.mark.unmeasured
@pytest.mark.parametrize("offers_changes", [False, True])
@pytest.mark.parametrize("has_file", [False, True])
def test_a_client_agrees_with_the_model_after_any_history(
    offers_changes: bool, has_file: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Values, status, schedule and costs, with and without the change stream and the last known good."""
    caplog.set_level("CRITICAL", "heksher_client")
    machine: Any = type("HistoryOfService", (History,), {"offers_changes": offers_changes, "has_file": has_file})
    options = settings(max_examples=60, stateful_step_count=40, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(machine, settings=options)
