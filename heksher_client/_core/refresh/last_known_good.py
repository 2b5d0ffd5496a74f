"""The last known good: responses are stored beyond the end of the process, for a start without the service."""

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from hashlib import sha256
from typing import Any, NamedTuple, Protocol

import msgspec
from msgspec.structs import replace

from heksher_client._core.refresh import protocol
from heksher_client._core.refresh.decoding import PreparedUpdate, ResponseDecoder
from heksher_client._core.refresh.effects import ApplyLocked, Flow, run_blocking
from heksher_client._core.refresh.feature_order import FeatureOrder
from heksher_client._core.refresh.positions import Position, Positions
from heksher_client._core.refresh.publisher import AnyEntry, Publisher, RefreshResult
from heksher_client._core.refresh.setting_state import SettingStates
from heksher_client._core.refresh.work_budget import WorkBudget
from heksher_client._core.settings.context import Tracking
from heksher_client._core.settings.rule_set import RuleSet
from heksher_client._core.settings.rules import Reason
from heksher_client._logging import logger
from heksher_client.exceptions import UnexpectedResponseError


class NotStoredError(Exception):
    """Nothing is stored, or nothing that may be used; the message says why."""


class StoredResponse(msgspec.Struct, frozen=True):
    """The last response for one setting."""

    content: msgspec.Raw
    """As the service sent it."""
    tracking: Tracking
    """The tracking at that time: rules that it does not admit may be missing."""
    age: float = 0.0
    """Seconds since the service last confirmed it."""
    position: Position | None = None
    """Its position in the history of the service's database, if it says so."""


class StoredResponses(msgspec.Struct, frozen=True):
    """The last responses, for this process or an earlier one."""

    settings: Mapping[str, Sequence[StoredResponse]]
    """By the declared names of the settings. There may be several, with different tracking."""
    order: tuple[str, ...]
    """The context features in the service's order; empty if it was not known."""

    def of(self, entry: AnyEntry) -> Sequence[StoredResponse]:
        """Return the responses for a setting, including those under its former name."""
        return [*self.settings.get(entry.name, ()), *self.settings.get(entry.declaration.alias or "", ())]


class AppliedResponses(NamedTuple):
    """The responses that one refresh has applied, to be stored."""

    prepared: Sequence[PreparedUpdate]
    """The settings with new rules."""
    up_to_date: Sequence[AnyEntry]
    """All settings that the service responded for."""
    order: tuple[str, ...] | None
    """The context features in the service's order, if it is known."""
    position: Position | None
    """Their position in the history of the service's database, if they say it."""


class ResponseKey(NamedTuple):
    """The identity of the response that a setting's rules come from."""

    digest: bytes
    tracking: Tracking


class LastKnownGoodStore(Protocol):
    """Stores responses. Its calls may wait for a disk."""

    def load(self) -> StoredResponses:  # pragma: no cover - a protocol
        """Return what is stored.

        Raises:
            NotStoredError: Nothing is stored, or it must not be used.
            OSError: It cannot be read.
        """
        ...

    def save(
        self, new: Mapping[str, StoredResponse], current: Mapping[str, ResponseKey], order: tuple[str, ...] | None
    ) -> Collection[str]:  # pragma: no cover - a protocol
        """Store new responses in addition to the stored ones, and confirm those that are still current.

        Args:
            new: The responses for settings that have other rules now.
            current: The responses that the rules of all settings come from, if they are up to date.
            order: The context features in the service's order, if it is known.

        Returns:
            The names of settings whose current response is not stored, and is not among the new ones.

        Raises:
            OSError: It cannot be written.
        """
        ...


class LastKnownGood:
    """Stores the responses that one client has applied, and restores rules from them."""

    def __init__(
        self, store: LastKnownGoodStore, publisher: Publisher, states: SettingStates, positions: Positions
    ) -> None:
        self._store, self._publisher, self._states, self._positions = store, publisher, states, positions
        self._order: tuple[str, ...] | None = None
        self._unsaved: dict[str, StoredResponse] = {}
        """The responses that could not be stored yet."""
        self.problem: str | None = None
        """Why nothing can be stored, or used."""

    def order(self) -> Flow[tuple[str, ...]]:
        """Return the stored order of the context features; an empty tuple if there is none."""
        if self._order is None:
            stored = yield from self._load()
            self._order = stored.order if stored else ()
        return self._order

    # -- restoring -----------------------------------------------------------------------------------------------------

    def restore(
        self,
        order: FeatureOrder,
        tracking: Tracking,
        budget: WorkBudget,
        result: RefreshResult,
        *,
        is_age_known: bool,
    ) -> Flow[bool]:
        """Publish stored rules for the settings that have none from the service.

        Args:
            order: The order of the context features. The stored one is used if the service has not said it.
            tracking: What must have been tracked when a response was received.
            budget: Limits how long decoding runs before others do.
            result: Receives what was done.
            is_age_known: True if the age of the published rules is known.

        Returns:
            True if a response was stored for any setting.
        """
        entries = self._publisher.entries()
        lacking = [entry for entry in entries if self._states.needs_lookup(entry, tracking)]
        stored = (yield from self._load()) if lacking or not is_age_known else None
        if stored is None or not order.restore(stored.order):
            return False
        decoder = ResponseDecoder(tracking, order.features, budget)
        prepared: list[PreparedUpdate] = []
        positions: list[Position | None] = []
        # Rules that an earlier client of this process published were stored as well.
        others = set(entries) - set(lacking)
        ages = [min(response.age for response in known) for entry in others if (known := stored.of(entry))]
        missing = self._without_kept(lacking, stored, tracking)
        for entry in missing:
            try:
                response = _response_to_restore(entry, stored, tracking)
                if response is not None:
                    prepared += yield from decoder.decode(entry.name, response.content, b"", [entry])
                    ages.append(response.age)
                    positions.append(response.position)
            except (NotStoredError, UnexpectedResponseError) as error:
                logger.warning(
                    "setting %s has no last known good: %s",
                    entry.name,
                    error,
                    extra={"setting": entry.name, "error": error},
                )
        age = max(ages, default=None)
        logger.warning(
            "restored the last known good of %d settings, %.0f seconds old; %d settings have none",
            len(prepared),
            age or 0.0,
            len(missing) - len(prepared),
            extra={"age": age, "settings": [update.entry.name for update in prepared]},
        )
        yield self._apply(lacking, prepared, tracking, age, result)
        if result.is_restored:
            self._positions.apply_single(*positions)
        return age is not None

    def _without_kept(self, entries: Sequence[AnyEntry], stored: StoredResponses, tracking: Tracking) -> list[AnyEntry]:
        """Return the settings without those that keep their restored rules, as all others are older."""
        kept = dict.fromkeys(entry for entry in entries if self._is_older(entry, stored, tracking))
        if kept:
            logger.warning(
                "%d settings keep their last known good: the one with all contexts that are tracked now is older",
                len(kept),
                extra={"settings": [entry.name for entry in kept]},
            )
        return [entry for entry in entries if entry not in kept]

    def _is_older(self, entry: AnyEntry, stored: StoredResponses, tracking: Tracking) -> bool:
        """Return True if the response with all rules that the tracking admits is older than the restored one."""
        former = self._states.restored_tracking(entry)
        known = stored.of(entry)
        newest = _newest(_covering(entry, known, tracking))
        if former is None or newest is None:
            return False
        restored = _newest(_covering(entry, known, former))
        return newest is not _newest([one for one in known if one is newest or one is restored])

    def _apply(
        self,
        looked_up: Sequence[AnyEntry],
        prepared: Sequence[PreparedUpdate],
        tracking: Tracking,
        age: float | None,
        result: RefreshResult,
    ) -> ApplyLocked:
        def apply() -> None:
            rule_sets = {update.entry: self._with_newer_default(update) for update in prepared}
            if not self._publisher.publish(rule_sets, result):
                return
            for entry in looked_up:
                self._states.mark_looked_up(entry, tracking)
            for entry, rule_set in rule_sets.items():
                self._states.mark_restored(entry, rule_set, tracking)
            result.restored_age, result.is_restored = age, bool(prepared)

        return ApplyLocked(apply)

    def _with_newer_default(self, update: PreparedUpdate) -> RuleSet[Any]:
        """Return stored rules with the default that the declaration's outcome implies."""
        entry, stored = update.entry, update.applied.decoded.rule_set
        published, declared = entry.published.rule_set, entry.declaration.default_value
        match self._states.of(entry).outcome:
            case protocol.OUTDATED if published.default_reason is Reason.SERVER_DEFAULT:
                return replace(stored, default=published.default, default_reason=published.default_reason)
            case protocol.UPTODATE | protocol.UPGRADED:
                return replace(stored, default=declared, default_reason=Reason.SERVER_DEFAULT)
            case protocol.CREATED:  # The service has no rules for it any more.
                return RuleSet(declared, Reason.SERVER_DEFAULT)
        return stored

    # -- storing -------------------------------------------------------------------------------------------------------

    def save(self, responses: AppliedResponses) -> Flow[Collection[str]]:
        """Store the responses that were applied. Return the names of the settings that have to be queried again."""
        prepared, up_to_date, order, position = responses
        all_applied = {entry.name: self._states.of(entry).applied for entry in up_to_date}
        current = {name: ResponseKey(one.digest, one.tracking) for name, one in all_applied.items() if one}
        # The responses that could not be stored before, if they are still current.
        new = {name: one for name, one in self._unsaved.items() if _is_current(one, current.get(name))}
        new |= _stored(prepared, position)
        try:
            lacking = yield from run_blocking(partial(self._store.save, new, current, order))
        except Exception as error:
            self._unsaved = {name: replace(one, content=one.content.copy()) for name, one in new.items()}
            if not isinstance(error, NotStoredError | OSError):
                self.problem = f"{type(error).__name__}: {error}"
                raise  # A defect of this package, or of the store. The responses are stored with the next ones.
            self._log_problem("the last known good cannot be stored: %s", error)
            return ()
        self.problem, self._unsaved = None, {}
        for entry in up_to_date:
            if entry.name in lacking:
                self._states.forget_applied(entry)  # It is queried again, and then stored.
        return lacking

    def keep(self, prepared: Sequence[PreparedUpdate], position: Position | None) -> None:
        """Keep the responses for single settings, to be stored with those of the next refresh."""
        stored = _stored(prepared, position)
        self._unsaved |= {name: replace(one, content=one.content.copy()) for name, one in stored.items()}

    def _load(self) -> Flow[StoredResponses | None]:
        try:
            stored = yield from run_blocking(self._store.load)
        except (NotStoredError, OSError) as error:
            self._log_problem("there is no last known good to start from: %s", error)
        except Exception as error:  # A defect of this package must not end a refresh that does not need it.
            logger.exception("the last known good cannot be used", extra={"error": error})
        else:
            self.problem = None
            return stored
        return None

    def _log_problem(self, message: str, error: Exception) -> None:
        if str(error) != self.problem:
            logger.warning(message, error, extra={"error": error})
        self.problem = str(error)


def _stored(prepared: Sequence[PreparedUpdate], position: Position | None) -> dict[str, StoredResponse]:
    """Return the responses that updates were decoded from, with their position, by the names of the settings."""
    return {
        update.entry.name: StoredResponse(update.content, update.applied.tracking, position=position)
        for update in prepared
        if update.content is not None
    }


def _response_to_restore(entry: AnyEntry, stored: StoredResponses, tracking: Tracking) -> StoredResponse | None:
    """Return the newest response for a setting that has all rules which the tracking admits.

    Raises:
        NotStoredError: There are responses, but none with all of these rules.
    """
    known = stored.of(entry)
    usable = _covering(entry, known, tracking)
    if known and not usable:
        raise NotStoredError("it was stored when fewer contexts were tracked than now")
    return _newest(usable)


def _covering(entry: AnyEntry, known: Sequence[StoredResponse], tracking: Tracking) -> list[StoredResponse]:
    """Return the responses for a setting that have all rules which the tracking admits."""
    return [one for one in known if one.tracking.covers(tracking, entry.declaration.configurable_features)]


def _newest(responses: Sequence[StoredResponse]) -> StoredResponse | None:
    # Of two that were stored at the same time by the clock, the later one.
    return min(reversed(responses), key=lambda one: one.age, default=None)


def _is_current(response: StoredResponse, current: ResponseKey | None) -> bool:
    return current == ResponseKey(sha256(response.content).digest(), response.tracking)
