"""One refresh, of all settings or of those that failed: declare what is new, load rules, and store them.

If nothing has changed since the last one, that is all there is to find out.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple
from weakref import WeakSet

from heksher_client._core.refresh.backoff import Backoff
from heksher_client._core.refresh.declarations import Declarations
from heksher_client._core.refresh.effects import Flow
from heksher_client._core.refresh.feature_order import FeatureOrder
from heksher_client._core.refresh.last_known_good import AppliedResponses, LastKnownGood, LastKnownGoodStore
from heksher_client._core.refresh.loader import Loader
from heksher_client._core.refresh.positions import Position, Positions
from heksher_client._core.refresh.publisher import AnyEntry, Publisher, RefreshResult
from heksher_client._core.refresh.setting_state import SettingStates
from heksher_client._core.refresh.work_budget import WorkBudget
from heksher_client._core.settings.context import Defaults, Tracking
from heksher_client._core.settings.listeners import CallbackRegistry
from heksher_client._core.settings.registry import MainClient, Registry
from heksher_client._core.settings.snapshot import publications
from heksher_client._logging import logger
from heksher_client.exceptions import HeksherError


class _Inputs(NamedTuple):
    """The inputs of a refresh of all settings. While they stay the same, so does its result."""

    position: Position
    """The position of the responses in the history of the service's database."""
    tracking: Tracking
    order: tuple[str, ...]
    """The order of the context features."""
    generation: int
    """The generation of the registry."""
    publications: int
    """How often any client or stub had published rules."""


class Refresher:
    """Refreshes the settings of one client."""

    def __init__(
        self,
        context_features: Iterable[str] | None,
        client: MainClient,
        registry: Registry,
        *,
        listeners: CallbackRegistry,
        store: LastKnownGoodStore | None,
        backoff: Backoff,
        clock: Callable[[], float],
        random: Callable[[], float],
        positions: Positions,
    ) -> None:
        """Create a refresher.

        Args:
            context_features: The order to assume until the service says its own, if the program knows one.
            client: The client in whose name rules are published.
            registry: The settings, and the main client.
            listeners: The receivers of all changes that are published.
            store: Stores responses, for a start without the service.
            backoff: The waits of a single setting that fails.
            clock: Monotonic, in seconds.
            random: Returns numbers from 0 to 1.
            positions: Receives the positions of the responses that are applied.
        """
        self._registry, self._clock = registry, clock
        self.defaults = Defaults()
        """The defaults that reads of the published rules use."""
        self.tracking = Tracking()
        self.budget = WorkBudget()
        self.states = SettingStates(backoff, clock, random)
        self.order = FeatureOrder(context_features)
        self._publisher = Publisher(registry, client, self.defaults, listeners)
        self._declarations = Declarations(self.states, self._publisher, positions)
        self._inputs: _Inputs | None = None
        """The inputs that all settings are up to date with, except those that wait for a time of their own. None if
        they are not, or if the service does not say its position."""
        self._waiting: WeakSet[AnyEntry] = WeakSet()
        """The settings that waited then."""
        self.last_known_good = None if store is None else LastKnownGood(store, self._publisher, self.states, positions)
        self._loader = Loader(
            self.order,
            self.states,
            self._publisher,
            self._declarations,
            self.last_known_good,
            budget=self.budget,
            clock=clock,
            positions=positions,
        )

    def refresh(self, result: RefreshResult, *, is_awaited: bool, announced: Position) -> Flow[AppliedResponses | None]:
        """Refresh all settings. Errors are not raised.

        Args:
            result: Receives what was done, and what failed.
            is_awaited: Whether a caller waits for it, who may have fixed what a declaration was refused for.
            announced: The position of the last announced change.

        Returns:
            The responses to save, if any.
        """
        responses = None
        self.order.begin_refresh()
        try:
            yield from self._loader.read_order()
            if self._is_up_to_date(announced) and not (is_awaited and self._waiting):
                return self._confirm(result)
            responses = yield from self._refresh_all(result, is_awaited=is_awaited)
        except Exception as error:  # The service fails; or a defect of this package, which must not end the refreshes.
            _log_unforeseen(error)
            result.failures, result.is_failed = [error], True
        yield from self._declarations.publish_defaults(result)
        entries = self._entries()
        result.order_problem = self.order.problem
        result.problems = self._problems(entries)
        if result.is_failed:
            self.states.end_waits(entries)
        return responses

    def _refresh_all(self, result: RefreshResult, *, is_awaited: bool) -> Flow[AppliedResponses | None]:
        self._inputs = None
        generation = self._registry.generation  # before the settings: another thread may add one
        entries = self._entries()
        self.states.begin_refresh()
        if is_awaited:
            self.states.end_waits(entries)
        yield from self._declarations.declare(entries, result)
        responses = yield from self._loader.load(entries, self.tracking, result)
        inputs = self._present_inputs()
        is_complete = result.received_at is not None and not (result.failures or result.is_inconsistent)
        if is_complete and inputs is not None and (inputs.position, inputs.generation) == (result.position, generation):
            self._waiting = WeakSet(filter(self.states.is_waiting, entries))
            others = [entry for entry in entries if entry not in self._waiting]
            if all(self.states.is_current(entry, inputs.tracking, inputs.order) for entry in others):
                self._inputs = inputs
        return responses

    def _present_inputs(self) -> _Inputs | None:
        """Return the inputs of a refresh that has read the order; None if the service does not say its position."""
        position = self.order.position if self.order.is_current else None
        # The revisions of a database without an identity may begin again.
        if position is None or not position.database:
            return None
        return _Inputs(position, self.tracking, self.order.features, self._registry.generation, publications())

    def _is_up_to_date(self, announced: Position) -> bool:
        """Return True if nothing has changed since the last refresh, after the order was read."""
        if self._inputs is None or self._inputs != self._present_inputs():
            return False
        return not self._inputs.position.is_before(announced)  # Otherwise the response is of a replica that lags.

    def _confirm(self, result: RefreshResult) -> AppliedResponses | None:
        """Record that all settings are up to date. Return what to confirm in the last known good."""
        result.is_applied, result.position, result.received_at = True, self.order.position, self._clock()
        result.problems = self._problems(sorted(self._waiting, key=_name))
        self._loader.confirm()
        if self.last_known_good is None:
            return None
        entries = [entry for entry in self._entries() if entry not in self._waiting]
        return AppliedResponses((), entries, self.order.features, result.position)

    def retry(self, result: RefreshResult) -> Flow[None]:
        """Declare and query again only the settings that failed, and whose own time has come. Errors are not raised.

        Args:
            result: Receives what was done, and what failed.
        """
        due = self.states.due_for_retry(self._entries())
        self.states.begin_refresh()
        self.states.end_waits(due)
        try:
            yield from self._declarations.declare(due, result)
            yield from self._loader.load(due, self.tracking, result, is_retry=True)
        except Exception as error:  # As above; or the service fails, which the next refresh will show.
            _log_unforeseen(error)
            result.failures.append(error)
            for entry in filter(self.states.is_unsettled, due):
                self.states.mark_failed(entry, error)
        yield from self._declarations.publish_defaults(result)
        result.is_recovered = any(self.states.of(entry).applied for entry in due)
        result.problems = self._problems(self._entries())

    def next_retry(self) -> float:
        """Return when the next single setting is to be tried again, by the client's clock."""
        # While all others are up to date, only those that wait are to be tried again.
        return self.states.next_retry(self._registry.entries() if self._inputs is None else self._waiting)

    def _entries(self) -> list[AnyEntry]:
        return sorted(self._registry.entries(), key=_name)

    def save(self, responses: AppliedResponses, result: RefreshResult) -> Flow[None]:
        """Store responses as the last known good. Errors are not raised."""
        assert self.last_known_good is not None  # noqa: S101 - otherwise `refresh` returns no responses
        try:
            if (yield from self.last_known_good.save(responses)):
                self._inputs = None
        except Exception as error:  # As above.
            _log_unforeseen(error)
            result.failures = [error]

    def restore(self, result: RefreshResult, *, is_age_known: bool) -> Flow[bool]:
        """Publish stored rules for the settings that have none from the service. Errors are not raised.

        Returns:
            True if anything was stored: see `LastKnownGood.restore`.
        """
        if self.last_known_good is None:
            return False
        try:
            return (
                yield from self.last_known_good.restore(
                    self.order, self.tracking, self.budget, result, is_age_known=is_age_known
                )
            )
        except Exception as error:  # As above.
            logger.exception("the last known good cannot be used", extra={"error": error})
            return False

    def _problems(self, entries: Sequence[AnyEntry]) -> list[Exception]:
        """Return what is wrong although the refresh did everything that was due."""
        return [*self.states.problems(entries), *filter(None, (self.order.problem, self.order.lacking))]


def _log_unforeseen(error: Exception) -> None:
    """Log an error with its traceback, unless it is one of those that a refresh is expected to end by."""
    if not isinstance(error, HeksherError):
        logger.exception("a refresh failed in an unforeseen way", extra={"error": error})


def _name(entry: AnyEntry) -> str:
    return entry.name
