"""Loading rules: query settings, decode all that was received, and only then apply it.

A fault is contained: a bad rule affects that rule, a bad setting that setting, and what was good stays.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final

from heksher_client._core.refresh import protocol
from heksher_client._core.refresh.declarations import Declarations
from heksher_client._core.refresh.decoding import PreparedUpdate, ResponseDecoder
from heksher_client._core.refresh.effects import ApplyLocked, Exchange, Flow
from heksher_client._core.refresh.feature_order import FeatureOrder
from heksher_client._core.refresh.last_known_good import AppliedResponses, LastKnownGood
from heksher_client._core.refresh.positions import (
    Position,
    Positions,
    Validity,
    inconsistent,
    newest_position,
    oldest_position,
    position,
)
from heksher_client._core.refresh.publisher import AnyEntry, Publisher, RefreshResult
from heksher_client._core.refresh.queries import MAX_FILTER, Queries, QueryResults
from heksher_client._core.refresh.responses import with_prefix
from heksher_client._core.refresh.setting_state import SettingStates
from heksher_client._core.refresh.work_budget import WorkBudget
from heksher_client._core.settings.context import Tracking
from heksher_client._logging import logger, shortened
from heksher_client.exceptions import DeclarationError, HeksherError, UnexpectedResponseError

_UNPROCESSABLE: Final = 422
_MAX_SHOWN: Final = 60
"""Characters of a value in a log record."""
_MAX_REPEATS: Final = 3
"""Of requests whose responses are older than those to others."""


class Loader:
    """Loads the rules of one client's settings."""

    def __init__(
        self,
        order: FeatureOrder,
        states: SettingStates,
        publisher: Publisher,
        declarations: Declarations,
        last_known_good: LastKnownGood | None,
        *,
        budget: WorkBudget,
        clock: Callable[[], float],
        positions: Positions,
    ) -> None:
        """Create a loader.

        Args:
            order: The order of the context features, which it reads.
            states: Receives what was applied, and what failed.
            publisher: Publishes the rules.
            declarations: Declares the settings that the service has lost.
            last_known_good: Where the order is stored, and where responses are to be stored; None if nowhere.
            budget: Limits how long decoding runs before others do.
            clock: Monotonic, in seconds.
            positions: Receives the positions of the responses that are applied.
        """
        self._order, self._states, self._publisher, self._declarations = order, states, publisher, declarations
        self._last_known_good, self._budget, self._clock, self._positions = last_known_good, budget, clock, positions
        self._queries = Queries()
        self._accepts_any_value = False
        """Whether the service has announced that it parses filters with any names and values."""
        self._has_warned = False

    def read_order(self, *, is_repeated: bool = False) -> Flow[None]:
        """Request the order of the context features. If the response cannot be used, the known order is kept.

        In each refresh: an operator may move a feature, and the responses to queries need not show it.

        Args:
            is_repeated: Whether it was read in this refresh before. Then a failure changes nothing.

        Raises:
            ServiceUnavailableError: The service is not available.
        """
        (reply,) = yield Exchange((protocol.CONTEXT_FEATURES,))
        try:
            self._order.update(protocol.parse_context_features(reply), position(reply))
            self._accepts_any_value = protocol.accepts_any_value(reply)
        except HeksherError as error:
            if is_repeated:
                return  # The order of the first response is used.
            if not isinstance(error, UnexpectedResponseError):
                raise
            self._order.keep(error)
            if self._last_known_good is not None and not self._order.is_from_service:
                self._order.features = (yield from self._last_known_good.order()) or self._order.features
            if self._order.problem is not None and not self._order.is_known:
                raise self._order.problem from error  # Rules in an arbitrary order would have other values.

    def load(
        self, entries: Sequence[AnyEntry], tracking: Tracking, result: RefreshResult, *, is_retry: bool = False
    ) -> Flow[AppliedResponses | None]:
        """Query the rules of settings that the service has, and apply them.

        Args:
            entries: The settings.
            tracking: The context values to load rules for: the same ones in the query, and in decoding its response.
            result: Receives what was done, and what failed.
            is_retry: Whether they are single settings, and not all. Then nothing is recorded that is about all.
        """
        active = [entry for entry in entries if not self._states.is_waiting(entry)]
        by_name = self._states.by_canonical_name(active)
        results = yield from self._query(by_name, tracking, is_retry=is_retry)
        self._record_failed(results, by_name, result)
        missing = _named(results.missing, by_name)
        lost = [entry for entry in missing if not self._states.is_denied(entry)]
        self._record_denied([entry for entry in missing if entry not in lost], result)
        if lost:
            names = [entry.name for entry in lost]
            logger.warning("the service lost %d settings; declaring them again", len(names), extra={"settings": names})
            for entry in lost:
                self._states.mark_missing(entry)
            yield from self._declarations.declare(lost, result)
            by_name = self._states.by_canonical_name(entry for entry in active if not self._states.is_waiting(entry))
            results = yield from self._query(by_name, tracking, is_retry=is_retry)
            self._record_failed(results, by_name, result)
            self._record_denied(_named(results.missing, by_name), result)
        if not is_retry:  # The other settings have not been queried, and keep the position of the last refresh.
            yield from self._make_consistent(results, result)
        yield from self._follow_renames(results, by_name, result)
        up_to_date = [name for name in by_name if name not in results.missing and name not in results.failed]
        prepared = yield from self._prepare(results, by_name, tracking, result)
        yield self._apply(prepared, results, entries, result, is_retry=is_retry)
        if is_retry:
            if self._last_known_good is not None:
                position = oldest_position(part.validity.until for part in results.parts.values())
                self._last_known_good.keep(prepared, position)
            return None
        # A fault of all settings, for example a wrong URL, need not be told apart from one of a single setting if the
        # service responded for none of the others.
        result.is_failed = bool(result.failures) and not results.has_responses
        if self._last_known_good is None or not result.is_applied:
            return None
        order = self._order.features if self._order.is_current else None
        return AppliedResponses(prepared, _named(up_to_date, by_name), order, result.position)

    def confirm(self) -> None:
        """Count a refresh as successful that found all settings up to date without a query."""
        self._queries.count_success()

    def _query(
        self, by_name: Mapping[str, Sequence[AnyEntry]], tracking: Tracking, *, is_retry: bool
    ) -> Flow[QueryResults]:
        self._check_tracked_values(tracking)
        current = self._states.current_names(by_name, tracking, self._order.features)
        is_working = self._order.is_current

        def run(context_filter: str) -> Flow[QueryResults]:
            return self._queries.run(by_name, context_filter, current, is_retry=is_retry, is_working=is_working)

        v1_filter = tracking.wire_filter(MAX_FILTER)
        announced_filter = tracking.wire_filter(MAX_FILTER, accepts_any_value=self._accepts_any_value)
        if announced_filter != v1_filter:
            # Behind a load balancer, an instance of another version may receive the query, and refuse the filter.
            try:
                results = yield from run(announced_filter)
            except UnexpectedResponseError as error:
                if error.status != _UNPROCESSABLE:
                    raise
            else:
                if not any(getattr(error, "status", 0) == _UNPROCESSABLE for error in results.failed.values()):
                    return results
        return (yield from run(v1_filter))

    def _check_tracked_values(self, tracking: Tracking) -> None:
        """Log once if the service probably allows no rules for one of the tracked values."""
        unsupported = tracking.unsupported_values
        if not unsupported or self._has_warned or self._accepts_any_value or not self._order.is_current:
            return
        self._has_warned = True
        feature, value = unsupported[0]
        logger.warning(
            "rules for the tracked value %r of %s may be impossible: the service does not announce that it accepts "
            "other characters than letters, digits and underscores",
            shortened(value, _MAX_SHOWN),
            feature,
            extra={"unsupported_values": len(unsupported)},
        )

    def _make_consistent(self, results: QueryResults, result: RefreshResult) -> Flow[None]:
        """Send requests again, until all responses are of one position.

        Replicas may lag, so the newest position of the responses is required: see `monotonic`. If the service changes
        all the time, or one of its endpoints lags for longer, the responses are used nevertheless: waiting for it could
        take for ever.
        """
        for _ in range(_MAX_REPEATS):
            targets = inconsistent(self._validities(results))
            if not targets:
                return
            self._positions.require(newest_position(self._validities(results)))
            try:
                if protocol.CONTEXT_FEATURES.target in targets:
                    yield from self.read_order(is_repeated=True)
                yield from self._queries.repeat(results, targets)
            finally:
                self._positions.require(None)
        result.is_inconsistent = bool(inconsistent(self._validities(results)))

    def _position(self, queried: Collection[Position | None]) -> Position | None:
        """Return the position of a refresh, which the stream of changes can begin after."""
        order, oldest = self._order.position, oldest_position(queried)
        if not self._order.is_from_service:
            return oldest  # It is requested again soon, and so cannot be older than the stream.
        if self._order.problem and order and oldest and order.database != oldest.database:
            return oldest  # The last known order is of another database; this one has yet to say its own.
        return oldest_position([order, oldest])

    def _validities(self, results: QueryResults) -> dict[str, Validity]:
        order = {protocol.CONTEXT_FEATURES.target: self._order.validity}
        return order | {target: part.validity for target, part in results.parts.items()}

    def _record_failed(
        self, results: QueryResults, by_name: Mapping[str, Sequence[AnyEntry]], result: RefreshResult
    ) -> None:
        """Record that there was no usable response to some of the queries."""
        for error in dict.fromkeys(results.failed.values()):
            first, *others = (name for name, one in results.failed.items() if one is error)
            which = f"setting {first} and {len(others)} more" if others else f"setting {first}"
            entries = _named([first, *others], by_name)
            self._fail(entries, with_prefix(error, f"{which} cannot be queried"), result, is_shared=bool(others))

    def _record_denied(self, entries: Iterable[AnyEntry], result: RefreshResult) -> None:
        """Record that the service does not have settings that were declared."""
        for entry in entries:
            conflict = self._states.of(entry).conflict
            text = f"the service denies setting {entry.name}" + (f": {conflict}" if conflict else "")
            self._declarations.record_refusal([entry], DeclarationError(text, setting=entry.name), result)

    def _fail(
        self, entries: Iterable[AnyEntry], error: Exception, result: RefreshResult, *, is_shared: bool = False
    ) -> None:
        """Record that settings keep their rules, and are to be queried in full next time."""
        result.failures.append(error)
        for entry in entries:
            self._states.mark_failed(entry, error, may_be_of_another=is_shared)

    def _follow_renames(
        self, results: QueryResults, by_name: dict[str, list[AnyEntry]], result: RefreshResult
    ) -> Flow[None]:
        """Find the present names of settings that were renamed since they were declared."""
        unanswered = [name for name in results.modified if name not in results.settings]
        if not unanswered:
            return
        requests = [protocol.setting(name) for name in unanswered]
        replies = yield Exchange(tuple(requests))
        for name, request, reply in zip(unanswered, requests, replies, strict=True):
            try:
                data = protocol.parse_setting(request, reply)
                if data is None or data.name not in results.settings:
                    raise UnexpectedResponseError(f"the response did not include setting {name}; it keeps its rules")
            except HeksherError as error:
                self._fail(by_name[name], error, result)
                continue
            logger.info(
                "setting %s was renamed to %s in the service",
                name,
                data.name,
                extra={"setting": name, "canonical_name": data.name},
            )
            for entry in by_name[name]:
                self._states.rename(entry, data.name)
            by_name.setdefault(data.name, []).extend(by_name.pop(name))

    def _prepare(
        self,
        results: QueryResults,
        by_name: Mapping[str, Sequence[AnyEntry]],
        tracking: Tracking,
        result: RefreshResult,
    ) -> Flow[list[PreparedUpdate]]:
        """Decode all that has changed, before any of it is applied."""
        prepared: list[PreparedUpdate] = []
        keeps_content = self._last_known_good is not None
        decoder = ResponseDecoder(tracking, self._order.features, self._budget, keeps_content=keeps_content)
        for name in filter(results.settings.__contains__, by_name):
            content = results.settings.pop(name)  # so that a response is freed with the last setting in it
            digest = yield from decoder.digest(content)
            changed = [
                entry for entry in by_name[name] if not self._states.is_applied(entry, digest, tracking, decoder.order)
            ]
            if not changed:
                continue
            try:
                prepared += yield from decoder.decode(name, content, digest, changed)
            except UnexpectedResponseError as error:
                self._fail(changed, error, result)
            except Exception as error:  # A defect of a setting type, or of this package: it affects this setting only.
                if any(self._states.of(entry).problem is None for entry in changed):
                    logger.exception("setting %s cannot be updated", name, extra={"setting": name, "error": error})
                self._fail(changed, error, result)
        return prepared

    def _apply(
        self,
        prepared: Sequence[PreparedUpdate],
        results: QueryResults,
        entries: Sequence[AnyEntry],
        result: RefreshResult,
        *,
        is_retry: bool,
    ) -> ApplyLocked:
        def apply() -> None:
            rule_sets = {entry: applied.decoded.rule_set for entry, applied, _ in prepared}
            if not self._publisher.publish(rule_sets, result):
                return
            for entry, applied, _ in prepared:
                self._states.mark_applied(entry, applied)
            if is_retry:
                if prepared:
                    self._positions.apply_single(*(part.validity.until for part in results.parts.values()))
                return
            self._queries.etags = results.etags  # only now, see there
            received = {target: part.validity.until for target, part in results.parts.items()}
            result.position = self._position(received.values())
            received[protocol.CONTEXT_FEATURES.target] = self._order.position
            self._positions.apply({target: one for target, one in received.items() if one is not None})
            result.is_applied = True
            if self._states.are_confirmed(entries):
                result.received_at = self._clock()

        return ApplyLocked(apply)


def _named(names: Iterable[str], by_name: Mapping[str, Sequence[AnyEntry]]) -> list[AnyEntry]:
    return [entry for name in sorted(names) for entry in by_name[name]]
