"""The last known good: what was received is kept beyond the end of the process, and is there for a start without the
service."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from typing import Any, NamedTuple, Protocol
from weakref import WeakKeyDictionary

import msgspec

from heksher_client._core.refresh.effects import Flow, run_blocking
from heksher_client._core.refresh.loading import Loading, PreparedUpdate
from heksher_client._core.refresh.setting_state import AnyEntry
from heksher_client._core.settings.context import Tracking
from heksher_client._core.settings.rule_set import RuleSet
from heksher_client._core.settings.rules import Reason
from heksher_client._logging import logger
from heksher_client.exceptions import UnexpectedResponseError


class NotStoredError(Exception):
    """There is nothing to go back to, or nothing that may be used; the text says why."""


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """What was last received for a setting."""

    answer: msgspec.Raw
    """As the service gave it."""
    tracking: Tracking
    """What was tracked then: other rules may not be in the answer."""
    age: float = 0.0
    """Seconds since the service last confirmed it."""


@dataclass(frozen=True, slots=True)
class StoredResponses:
    """What was last received, by this process or one before it."""

    settings: Mapping[str, Sequence[StoredResponse]]
    """By the names of the settings, as they are declared. Of each there may be several, for which other contexts were
    tracked."""
    order: tuple[str, ...]
    """The context features in the service's order; nothing if that was not known."""

    def of(self, setting: AnyEntry) -> Sequence[StoredResponse]:
        """What was kept for a setting, also by a release of the program that called it by its former name."""
        return [*self.settings.get(setting.name, ()), *self.settings.get(setting.declaration.alias or "", ())]


class Held(NamedTuple):
    """What a setting has."""

    digest: bytes
    """Of the answer that it was made of."""
    tracking: Tracking


class LastKnownGoodStore(Protocol):
    """Keeps what was last received. Its calls may wait for a disk."""

    def load(self) -> StoredResponses:  # pragma: no cover - a protocol
        """Give back what was kept.

        Raises:
            NotKeptError: It is not there, or not to be used.
            OSError: It cannot be read.
        """
        ...

    def save(
        self, new: Mapping[str, StoredResponse], held: Mapping[str, Held], order: tuple[str, ...] | None
    ) -> Collection[str]:  # pragma: no cover - a protocol
        """Keep what is new, beside what was kept before, and note that the rest of it still holds.

        Args:
            new: What there is to keep for settings that have something else now.
            held: What all settings have that are up to date.
            order: The context features in the service's order, if it is known.

        Returns:
            The names of settings for which something else is kept, or nothing, and that are not new.

        Raises:
            OSError: It cannot be written.
        """
        ...


class RestoredSettings(NamedTuple):
    """What was kept, as far as it is of use."""

    looked_up: Sequence[AnyEntry]
    """The settings that had nothing yet."""
    prepared: Sequence[PreparedUpdate]
    """What is to be put in place of some of them."""
    tracking: Tracking
    """What was tracked when they were looked up."""
    order: tuple[str, ...]
    """The context features in the service's order; nothing if that was not known."""
    age: float | None
    """Seconds since the oldest of what the settings then have was confirmed; None if they have nothing of it."""


class LastKnownGood:
    """What one client has kept, and has recalled."""

    def __init__(self, keeper: LastKnownGoodStore | None) -> None:
        """Make one; without a keeper it keeps nothing."""
        self._keeper = keeper
        self._looked_up: WeakKeyDictionary[AnyEntry, Tracking] = WeakKeyDictionary()
        """For which settings it was looked up what was kept, and what was tracked then."""
        self._recalled: WeakKeyDictionary[AnyEntry, RuleSet[Any]] = WeakKeyDictionary()
        """What they have of it."""
        self._bare: WeakKeyDictionary[AnyEntry, RuleSet[Any]] = WeakKeyDictionary()
        """What those have that got a default value from the service, and no rules yet."""
        self._order: tuple[str, ...] | None = None
        self._unsaved: dict[str, StoredResponse] = {}
        """What could not be kept yet."""
        self.problem: str | None = None
        """Why nothing can be kept, or used."""

    def recall(
        self,
        settings: Sequence[AnyEntry],
        loading: Loading,
        tracking: Tracking,
        order: tuple[str, ...] | None,
        *,
        is_age_known: bool,
    ) -> Flow[RestoredSettings | None]:
        """Convert what was kept for those settings that have got nothing from the service yet.

        Args:
            settings: All there are.
            loading: Converts it.
            tracking: What must have been tracked when it was received.
            order: The order of context features to rank rules by; None to take the one that was kept.
            is_age_known: Whether it is known how old what the settings have is.

        Returns:
            None if there is nothing to look up, or nothing to look it up in.
        """
        lacking = [s for s in settings if self._looked_up.get(s) is not tracking and self._has_nothing(s)]
        kept = (yield from self._load()) if lacking or not is_age_known else None
        if kept is None:
            return None
        prepared: list[PreparedUpdate] = []
        # What a former client of this process has put in place was kept as well.
        others = set(settings) - set(lacking)
        ages = [min(one.age for one in known) for setting in others if (known := kept.of(setting))]
        for setting in lacking:
            try:
                converted, age = yield from _convert(setting, kept, loading, tracking, order or kept.order)
            except (NotStoredError, UnexpectedResponseError) as error:
                logger.warning(
                    "there is no last known good of setting %s: %s",
                    setting.name,
                    error,
                    extra={"setting": setting.name, "error": error},
                )
                continue
            if converted:
                prepared += converted
                ages.append(age)
        logger.warning(
            "%d settings have their last known good, of %.0f seconds ago; %d have none",
            len(prepared),
            max(ages, default=0.0),
            len(lacking) - len(prepared),
            extra={"age": max(ages, default=None), "settings": [one.setting.name for one in prepared]},
        )
        return RestoredSettings(lacking, prepared, tracking, kept.order, max(ages, default=None))

    def order(self) -> Flow[tuple[str, ...]]:
        """The context features in the order that was kept; nothing if none was."""
        if self._order is None:
            kept = yield from self._load()
            self._order = kept.order if kept else ()
        return self._order

    def note_looked_up(self, recalled: RestoredSettings) -> None:
        """Note that what was looked up is in place."""
        for setting in recalled.looked_up:
            self._looked_up[setting] = recalled.tracking

    def note_recalled(self, setting: AnyEntry, rule_set: RuleSet[Any]) -> None:
        """Note that a setting has what was kept for it."""
        self._recalled[setting] = rule_set

    def note_default(self, setting: AnyEntry, former: RuleSet[Any], new: RuleSet[Any]) -> None:
        """Note that a setting has another default value, and is otherwise as it was."""
        for noted in (self._recalled, self._bare):
            if noted.get(setting) is former:
                noted[setting] = new
        if _is_untouched(former):
            self._bare[setting] = new

    def note_received(self, setting: AnyEntry) -> None:
        """Note that a setting has what the service sent."""
        self._recalled.pop(setting, None)
        self._bare.pop(setting, None)

    @property
    def is_any_recalled(self) -> bool:
        """Whether any setting has."""
        return any(map(self.is_recalled, list(self._recalled)))

    def is_recalled(self, setting: AnyEntry) -> bool:
        """Whether a setting has rules that were kept, and none from the service since then."""
        return self._recalled.get(setting) is setting.rule_set

    def _has_nothing(self, setting: AnyEntry) -> bool:
        """Whether a setting has got no rules yet, or none but those that were kept, which may not be all there are."""
        rule_set = setting.rule_set
        return _is_untouched(rule_set) or self._bare.get(setting) is rule_set or self.is_recalled(setting)

    def save(
        self, prepared: Iterable[PreparedUpdate], held: Callable[[], Mapping[str, Held]], order: tuple[str, ...] | None
    ) -> Flow[Collection[str]]:
        """Have what was put in place kept.

        Args:
            prepared: What is new.
            held: Gives what all settings have that are up to date.
            order: As in `LastKnownGoodStore.save`.

        Returns:
            The names of settings that are to be asked for again, to be kept.
        """
        if self._keeper is None:
            return ()
        now_held = held()
        # What could not be kept before, as far as it still holds.
        new = {name: one for name, one in self._unsaved.items() if _is_held(one, now_held.get(name))}
        new |= {p.setting.name: StoredResponse(p.answer, p.loaded.tracking) for p in prepared if p.answer is not None}
        try:
            lacking = yield from run_blocking(partial(self._keeper.save, new, now_held, order))
        except (NotStoredError, OSError) as error:
            self._log_problem("the last known good cannot be kept: %s", error)
            self._unsaved = {name: replace(kept, answer=kept.answer.copy()) for name, kept in new.items()}
            return ()
        self.problem, self._unsaved = None, {}
        return lacking

    def _load(self) -> Flow[StoredResponses | None]:
        if self._keeper is None:
            return None
        try:
            kept = yield from run_blocking(self._keeper.load)
        except (NotStoredError, OSError) as error:
            self._log_problem("there is no last known good to start from: %s", error)
        except Exception as defect:  # Ours: it must not end a refresh that has no need of it.
            logger.exception("the last known good cannot be used", extra={"error": defect})
        else:
            self.problem = None
            return kept
        return None

    def _log_problem(self, message: str, error: Exception) -> None:
        if str(error) != self.problem:
            logger.warning(message, error, extra={"error": error})
        self.problem = str(error)


def _is_held(kept: StoredResponse, held: Held | None) -> bool:
    return held is not None and held.tracking == kept.tracking and held.digest == sha256(kept.answer).digest()


def _is_untouched(rule_set: RuleSet[Any]) -> bool:
    return rule_set.default_reason is Reason.DECLARED_DEFAULT and len(rule_set) == 0


def _convert(
    setting: AnyEntry, kept: StoredResponses, loading: Loading, tracking: Tracking, order: tuple[str, ...]
) -> Flow[tuple[list[PreparedUpdate], float]]:
    """What is to be put in place for a setting, nothing if nothing was kept for it, and its age."""
    known = kept.of(setting)
    usable = [one for one in known if one.tracking.covers(tracking, setting.declaration.configurable_features)]
    if known and not usable:
        raise NotStoredError("when it was received, fewer contexts were tracked than now")
    if not usable:
        return [], 0.0
    newest = min(usable, key=lambda one: one.age)
    digest = yield from loading.digest(newest.answer)
    prepared = yield from loading.convert(setting.name, newest.answer, digest, [setting], tracking, order)
    return prepared, newest.age
