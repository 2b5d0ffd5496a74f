"""The state of each setting in one client: its declaration, its name in the service, its applied and restored rules.

This is the one record of it. `SettingStates` is the only place that changes a `SettingState`.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final
from weakref import WeakKeyDictionary

import msgspec

from heksher_client._core.refresh.backoff import Backoff
from heksher_client._core.refresh.decoding import AppliedUpdate
from heksher_client._core.refresh.publisher import AnyEntry
from heksher_client._core.refresh.status import SettingStatus
from heksher_client._core.settings.context import Tracking
from heksher_client._core.settings.rule_set import RuleSet
from heksher_client._core.settings.rules import Reason
from heksher_client._logging import escaped, text_of

REFUSED: Final = "refused"
"""The outcome of a declaration that the service did not accept as one. Not a word of the service."""


class SettingState(msgspec.Struct):
    """The state of one setting in a client."""

    canonical_name: str | None = None
    """The name in the service's responses; None if the service does not have the setting, or was not asked."""
    is_declared: bool = False
    """True if the service has it, as declared or with differences."""
    outcome: str | None = None
    """The outcome of the declaration."""
    conflict: str = ""
    """The text of a declaration's response that has no outcome."""
    problem: Exception | None = None
    """Why the declaration was refused or failed, or why the last response could not be used."""
    attempts: int = 0
    """The number of failures since the last usable response."""
    retry_at: float = math.inf
    """When to try again what failed, by the client's clock; `-inf` for the next refresh."""
    applied: AppliedUpdate | None = None
    """The update that was applied last; None to query it in full."""
    lookup_tracking: Tracking | None = None
    """The tracking at the time of its lookup in the last known good."""
    restored: RuleSet[Any] | None = None
    """The rules that were restored from the last known good, until the service sends others."""
    restored_tracking: Tracking | None = None
    """The tracking at that time."""
    only_default: RuleSet[Any] | None = None
    """The published rule set, if it consists of the service's default alone, which came with the declaration."""


class SettingStates:
    """The states of all settings. Settings are held weakly."""

    def __init__(self, backoff: Backoff, clock: Callable[[], float], random: Callable[[], float]) -> None:
        """Create the states of settings that the service was not asked for yet.

        Args:
            backoff: The waits of a setting that fails.
            clock: Monotonic, in seconds.
            random: Returns numbers from 0 to 1.
        """
        self._backoff, self._clock, self._random = backoff, clock, random
        self._drawn = 0.0
        self._states: WeakKeyDictionary[AnyEntry, SettingState] = WeakKeyDictionary()

    def of(self, entry: AnyEntry) -> SettingState:
        """Return the state of a setting, to read it."""
        state = self._states.get(entry)
        return self._states.setdefault(entry, SettingState()) if state is None else state

    # -- declarations --------------------------------------------------------------------------------------------------

    def is_due(self, entry: AnyEntry) -> bool:
        """True if a setting is to be declared. One that was refused or failed has a time of its own."""
        return not self.of(entry).is_declared and not self.is_waiting(entry)

    def mark_declared(self, entry: AnyEntry, canonical_name: str, outcome: str, conflict: str = "") -> None:
        """Record that the service has a setting, under a name, and the outcome of the declaration."""
        state = self.of(entry)
        state.is_declared, state.canonical_name, state.outcome = True, canonical_name, outcome
        state.conflict, state.problem, state.retry_at, state.applied = conflict, None, math.inf, None

    def mark_refused(self, entry: AnyEntry, error: Exception) -> None:
        """Record that the service does not have a setting, and why. It is declared again later."""
        state = self.of(entry)
        state.is_declared, state.canonical_name, state.outcome = False, None, REFUSED
        self.mark_failed(entry, error)

    def is_denied(self, entry: AnyEntry) -> bool:
        """True if the service refused a declaration with a conflict, and has sent nothing for the setting since.

        If the service does not have it then, it was not lost, and declaring it again would result in the same.
        """
        state = self.of(entry)
        return state.conflict != "" and state.applied is None

    def mark_missing(self, entry: AnyEntry) -> None:
        """Record that the service lost a setting, which is to be declared again at once."""
        state = self.of(entry)
        state.is_declared, state.canonical_name = False, None
        state.problem, state.retry_at = None, math.inf

    def rename(self, entry: AnyEntry, canonical_name: str) -> None:
        """Record the name that the service uses from now on."""
        self.of(entry).canonical_name = canonical_name

    def rename_all(self, entries: Iterable[AnyEntry], former: str, canonical_name: str) -> None:
        """Record that a setting was renamed for all that have its former name."""
        for entry in entries:
            if self.of(entry).canonical_name == former:
                self.rename(entry, canonical_name)

    # -- retries -------------------------------------------------------------------------------------------------------

    def begin_refresh(self) -> None:
        """Draw the random part of waits. Settings that fail in one refresh are tried again in one."""
        self._drawn = self._random()

    def mark_failed(self, entry: AnyEntry, error: Exception, *, may_be_of_another: bool = False) -> None:
        """Record why a declaration or a response could not be used for a setting.

        It is declared or queried again at a time of its own: other refreshes do not include it.

        Args:
            entry: The setting.
            error: The reason.
            may_be_of_another: Whether the request was for several settings, so that any of them may be the reason.
        """
        state = self.of(entry)
        state.attempts += 1
        state.applied, state.problem = None, error.with_traceback(None)  # Its frames would be kept alive.
        wait = self._backoff.wait([error], state.attempts, self._drawn, may_be_of_another=may_be_of_another)
        state.retry_at = self._clock() + wait

    def is_waiting(self, entry: AnyEntry) -> bool:
        """True if a setting has failed, and is not included in refreshes: they would last as long as its requests."""
        state = self.of(entry)
        return state.problem is not None and state.retry_at > -math.inf

    def end_waits(self, entries: Iterable[AnyEntry]) -> None:
        """Include the settings that failed in the refresh or retry that begins, or in the next one."""
        for entry in entries:
            if self.of(entry).problem is not None:
                self.of(entry).retry_at = -math.inf

    def due_for_retry(self, entries: Iterable[AnyEntry]) -> list[AnyEntry]:
        """Return the settings whose own time has come."""
        now = self._clock()
        return [entry for entry in entries if self.of(entry).retry_at <= now]

    def is_unsettled(self, entry: AnyEntry) -> bool:
        """True if a setting was to be tried again, and then neither succeeded nor failed."""
        state = self.of(entry)
        return state.applied is None and not self._clock() < state.retry_at < math.inf

    def next_retry(self, entries: Iterable[AnyEntry]) -> float:
        """Return when the next setting is to be tried again, by the client's clock."""
        return min((self.of(entry).retry_at for entry in entries), default=math.inf)

    def problems(self, entries: Iterable[AnyEntry]) -> list[Exception]:
        """Return what is wrong with single settings."""
        return [problem for entry in entries if (problem := self.of(entry).problem) is not None]

    # -- names ---------------------------------------------------------------------------------------------------------

    def by_canonical_name(self, entries: Iterable[AnyEntry]) -> dict[str, list[AnyEntry]]:
        """Return the settings that the service has, by the name that it uses."""
        by_name: dict[str, list[AnyEntry]] = {}
        for entry in entries:
            name = self.of(entry).canonical_name
            if name is not None:
                by_name.setdefault(name, []).append(entry)
        return by_name

    def names(self, entries: Iterable[AnyEntry]) -> frozenset[str]:
        """Return all names that the service may use for these settings."""
        entries = list(entries)
        return frozenset(self.by_canonical_name(entries)) | {entry.name for entry in entries}

    # -- updates -------------------------------------------------------------------------------------------------------

    def mark_applied(self, entry: AnyEntry, applied: AppliedUpdate) -> None:
        """Record an update that the service sent."""
        state = self.of(entry)
        state.applied = applied
        state.problem = state.restored = state.only_default = None
        state.attempts, state.retry_at = 0, math.inf

    def are_confirmed(self, entries: Sequence[AnyEntry]) -> bool:
        """True if the service has sent rules for any of these settings, and none has restored ones.

        Except those with a problem of their own: a refused setting does not make the others old.
        """
        is_any_applied = not entries or any(self.of(entry).applied for entry in entries)
        return is_any_applied and not any(self.is_restored(e) and self.of(e).problem is None for e in entries)

    def forget_applied(self, entry: AnyEntry) -> None:
        """Query a setting in full next time."""
        self.of(entry).applied = None

    def is_current(self, entry: AnyEntry, tracking: Tracking, order: tuple[str, ...]) -> bool:
        """True if decoding the last response again would result in what is published.

        Only then an unmodified response (304) means that there is nothing to do: not after another client or a stub
        published something, nor with a new validator, another tracking or another order of context features.
        """
        applied = self.of(entry).applied
        return (
            applied is not None
            and applied.decoded.rule_set is entry.published.rule_set
            and applied.validators is entry.validators
            and applied.tracking is tracking
            and applied.order == order
        )

    def current_names(
        self, by_name: Mapping[str, Sequence[AnyEntry]], tracking: Tracking, order: tuple[str, ...]
    ) -> frozenset[str]:
        """Return the names for which all settings are current: see `is_current`."""
        outdated = {
            name
            for name, entries in by_name.items()
            for entry in entries
            if not self.is_current(entry, tracking, order)
        }
        return frozenset(by_name).difference(outdated)

    def is_applied(self, entry: AnyEntry, digest: bytes, tracking: Tracking, order: tuple[str, ...]) -> bool:
        """True if what is published is the result of a response with this digest."""
        applied = self.of(entry).applied
        return applied is not None and applied.digest == digest and self.is_current(entry, tracking, order)

    # -- last known good -----------------------------------------------------------------------------------------------

    def mark_looked_up(self, entry: AnyEntry, tracking: Tracking) -> None:
        """Record that a setting was looked up in the last known good."""
        self.of(entry).lookup_tracking = tracking

    def mark_restored(self, entry: AnyEntry, rule_set: RuleSet[Any], tracking: Tracking) -> None:
        """Record that rules were restored from the last known good, and what was tracked."""
        state = self.of(entry)
        state.restored, state.restored_tracking = rule_set, tracking

    def mark_default_replaced(self, entry: AnyEntry, former: RuleSet[Any], new: RuleSet[Any]) -> None:
        """Record that only the default of a published rule set was replaced."""
        state = self.of(entry)
        if state.restored is former:
            state.restored = new
        if state.only_default is former or _is_declared_default(former):
            state.only_default = new

    def is_restored(self, entry: AnyEntry) -> bool:
        """True if a setting has rules from the last known good, and none from the service since."""
        return self.of(entry).restored is entry.published.rule_set

    def restored_tracking(self, entry: AnyEntry) -> Tracking | None:
        """Return what was tracked when a setting's rules were restored; None if they were not."""
        return self.of(entry).restored_tracking if self.is_restored(entry) else None

    def needs_lookup(self, entry: AnyEntry, tracking: Tracking) -> bool:
        """True if a setting is to be looked up in the last known good: it has no rules yet, or none but restored ones,
        which may not be all there are."""
        state, rule_set = self.of(entry), entry.published.rule_set
        has_no_rules = _is_declared_default(rule_set) or state.only_default is rule_set
        return state.lookup_tracking is not tracking and (has_no_rules or self.is_restored(entry))

    # -- status --------------------------------------------------------------------------------------------------------

    def status(self, entry: AnyEntry, next_refresh: float | None) -> SettingStatus:
        """Return the status of a setting. May be called from any thread.

        Args:
            entry: The setting.
            next_refresh: Seconds until the next refresh; None if there will be none.
        """
        state = self.of(entry)
        decoded, problem, retry_at = state.applied.decoded if state.applied else None, state.problem, state.retry_at
        next_attempt = None
        if problem is not None and next_refresh is not None:
            next_attempt = next_refresh if retry_at == -math.inf else max(0.0, retry_at - self._clock())
        return SettingStatus(
            declaration=state.outcome,
            problem=None if problem is None else escaped(text_of(problem)),
            canonical_name=state.canonical_name or entry.name,
            rules=len(entry.published.rule_set),
            rejected=decoded.rejected if decoded else 0,
            first_rejected=decoded.first_rejected if decoded else (),
            next_attempt=next_attempt,
        )


def _is_declared_default(rule_set: RuleSet[Any]) -> bool:
    return rule_set.default_reason is Reason.DECLARED_DEFAULT and len(rule_set) == 0
